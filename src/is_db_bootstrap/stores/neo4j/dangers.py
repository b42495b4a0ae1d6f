"""What a person should look at before pending Cypher is sent.

Constraints and indexes are judged by the nodes that are there now. How many there are is asked of
the count store, which answers at once. What a statement matches is not run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import neo4j

from is_db_bootstrap.results import Change, Danger, DangerKind
from is_db_bootstrap.stores.neo4j import cypher_check, cypher_text
from is_db_bootstrap.stores.neo4j.cypher_schema import Drop, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement, quoted
from is_db_bootstrap.stores.neo4j.duplicates import AFFORDABLE_NODES
from is_db_bootstrap.stores.neo4j.errors import TIMED_OUT, code, told

if TYPE_CHECKING:
    from is_db_bootstrap.stores.neo4j.database import Database

#: From so many nodes or relationships on, a constraint or an index is told.
MANY = 10_000
#: Seconds that one query may take.
QUERY_S = 2.0
#: Seconds that all queries of one plan may take together.
ALL_S = 20.0
#: Seconds in which the statements of one plan are parsed by the server.
PARSE_S = 10.0
#: Shorter than this a query is not begun.
_SHORTEST_S = 0.05

#: What the server answers to Cypher that it will never run.
_NOT_UNDERSTOOD = {
    "ClientError.Statement.SyntaxError",
    "ClientError.Statement.UnsupportedAdministrationCommand",
    "ClientError.Procedure.ProcedureNotFound",
}
#: Where the server found it. Lines and columns there are those of the question.
_PLACE = re.compile(r" *\(line \d+, column \d+.*", re.DOTALL)

_TEXT = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_NAME = r"(?:`(?:``|[^`])*`|\w+)"
_DELETE = re.compile(r"(?<![.:$] )\b(?:DETACH |NODETACH )?DELETE (?P<what>[^;{}]*)", re.IGNORECASE)
_REMOVE = re.compile(rf"(?<![.:$] )\bREMOVE (?P<what>{_NAME} \. {_NAME})", re.IGNORECASE)
#: `MATCH (n:Label) DETACH DELETE n`, also `MATCH (n)`: the count store knows how many.
_WHOLE_LABEL = re.compile(
    rf"MATCH \( (?P<n>\w+)(?: : (?P<label>{_NAME}))? \) (?:WITH (?P=n)(?: LIMIT \S+)? )?"
    r"(?:DETACH )?DELETE (?P=n)",
    re.IGNORECASE,
)


class NotSeen(Exception):
    """A look that gave no answer. Its text says why, as the rest of a sentence."""


class NotUnderstood(NotSeen):
    """The server does not take the question. Its text is the server's reason."""


#: Asks one question. Raises `NotSeen`.
Ask = Callable[[str], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Forecasted:
    """What `plan` has found out.

    `new` are the objects that are not there yet, by name or definition. `unforeseen` are those of
    which a script that comes before may change the data, with that script's name. `live` are the
    names of the objects that are there.
    """

    new: Collection[str] = ()
    unforeseen: Mapping[str, str] = field(default_factory=dict)
    live: Collection[str] = ()


class BoundedLook:
    """Asks the server within `query_s` seconds a question, and `all_s` for all of them."""

    def __init__(
        self,
        database: Database,
        session: neo4j.Session,
        *,
        query_s: float = QUERY_S,
        all_s: float = ALL_S,
    ) -> None:
        self._database = database
        self._session = session
        self._query_s = query_s
        self._all_s = all_s
        self._left_s = all_s

    def __call__(self, question: str) -> list[dict[str, Any]]:
        """The rows of an answer. Raises `NotSeen`, and what a lost connection raises."""
        limit_s = min(self._query_s, self._left_s)
        if limit_s < _SHORTEST_S:
            raise NotSeen(f"could not be seen within the {self._all_s:g} s that a plan may look")
        begin = time.monotonic()
        try:
            return self._database.rows_within(self._session, question, limit_s)
        except neo4j.exceptions.ClientError as exc:
            if code(exc).startswith(TIMED_OUT):
                raise NotSeen(f"could not be seen within {limit_s:g} s") from exc
            if code(exc) in _NOT_UNDERSTOOD:
                raise NotUnderstood(_PLACE.sub("", told(exc)[0])) from exc
            raise NotSeen(f"could not be seen: {told(exc)[0]}") from exc
        finally:
            self._left_s -= time.monotonic() - begin


class Dangers:
    """Goes through the Cypher of a plan. `ask` is bounded, and None where there is no server.

    `parse` asks too, for the Cypher itself. Without it, no statement is parsed by the server.
    """

    def __init__(
        self,
        ask: Ask | None,
        forecast: Forecasted,
        *,
        parse: Ask | None = None,
        many: int = MANY,
    ) -> None:
        self._ask = ask
        self._parse = parse
        self._forecast = forecast
        self._many = many
        self._made: set[str] = set()
        self._counts: dict[str, int] = {}

    def of(self, statements: Sequence[str]) -> tuple[Danger, ...]:
        """The dangers of one change, each with the place of its statement."""
        found = []
        for place, text in enumerate(statements):
            for statement in cypher_text.split(text):
                marks = [*self._of(statement), *self._not_understood(statement)]
                found += [replace(each, statement=place) for each in marks]
        return tuple(found)

    def _of(self, statement: Statement) -> Iterator[Danger]:
        thing = recognise(statement.tokens)
        if isinstance(thing, Drop):
            yield from self._dropped(thing)
        elif thing is not None:
            self._made.add(thing.name)
            yield from self._made_over_nodes(thing)
        elif not statement.is_schema:
            yield from self._removed(statement)

    def _not_understood(self, statement: Statement) -> Iterator[Danger]:
        """Cypher that the server does not take. `EXPLAIN` parses it and runs nothing.

        What cannot be parsed is told once, and nothing behind it is parsed.
        """
        if self._parse is None:
            return
        name = _beginning(statement)
        try:
            self._parse(f"EXPLAIN {statement.text}")
        except NotUnderstood as exc:
            known = next(cypher_check.problems(statement.text), None)
            reason = known.text if known else f"{str(exc).rstrip('.')}."
            yield Danger(DangerKind.REFUSED, name, f"Neo4j does not take it: {reason}")
        except NotSeen as exc:
            self._parse = None
            yield _unseen(name, f"Whether Neo4j takes it and the statements behind it {exc}.")

    def _dropped(self, drop: Drop) -> Iterator[Danger]:
        is_passed_over = drop.guarded and drop.name not in self._forecast.live
        if drop.name in self._made or (is_passed_over and self._ask is not None):
            return
        lost = "what it refused is taken" if drop.kind == "constraint" else "it helps no query"
        yield Danger(
            DangerKind.DROPS, drop.name, f"The {drop.kind} is dropped, and {lost} from then on."
        )

    def _made_over_nodes(self, thing: SchemaObject) -> Iterator[Danger]:
        key = thing.name or thing.definition
        is_new = key in self._forecast.new or key in self._forecast.unforeseen
        if self._ask is None or not is_new or not thing.labels:
            return
        name = thing.name or thing.definition
        try:
            number = sum(self._count(thing, label) for label in thing.labels)
        except NotSeen as exc:
            yield _unseen(name, f"How many {_noun(thing)} it is about {exc}.")
            return
        if number >= self._many:
            yield Danger(DangerKind.LOCKS, name, _wait(thing, number))
        if number and thing.kind == "constraint":
            yield from self._in_the_way(thing, number)

    def _count(self, thing: SchemaObject, label: str) -> int:
        pattern = _pattern(thing, label)
        if pattern not in self._counts:
            rows = self._asked(f"MATCH {pattern} RETURN count(n) AS n")
            self._counts[pattern] = rows[0]["n"]
        return self._counts[pattern]

    def _in_the_way(self, thing: SchemaObject, number: int) -> Iterator[Danger]:
        """Nodes or relationships that a constraint refuses."""
        name = thing.name or thing.definition
        script = self._forecast.unforeseen.get(name)
        if script:
            text = f"Whether values are in its way is not known before {script} has run."
            yield _unseen(name, text)
            return
        if thing.type in {"UNIQUENESS", "KEY"} and number > AFFORDABLE_NODES:
            text = (
                f"Whether duplicates are in its way could not be seen: {number:,} {_noun(thing)} "
                f"are more than the {AFFORDABLE_NODES:,} that a plan looks at."
            )
            yield _unseen(name, text)
        for condition, words in _conditions(thing):
            pattern = _pattern(thing, thing.labels[0])
            question = f"MATCH {pattern} WHERE {condition} RETURN 1 AS found LIMIT 1"
            try:
                is_found = bool(self._asked(question))
            except NotSeen as exc:
                yield _unseen(name, f"Whether one of the {_noun(thing)} {words} {exc}.")
                continue
            if is_found:
                text = f"At least one of the {number:,} {_noun(thing)} {words}."
                yield Danger(DangerKind.REFUSED, name, text)

    def _removed(self, statement: Statement) -> Iterator[Danger]:
        words = _TEXT.sub("''", statement.tokens)
        whole = _WHOLE_LABEL.fullmatch(words)
        if whole:
            yield from self._whole_label(whole["label"])
            return
        for found in _DELETE.finditer(words):
            what = found["what"].split(" RETURN ")[0].strip()
            text = "What the statement matches is deleted. How much that is was not looked at."
            yield Danger(DangerKind.DROPS, what.split(" ")[0] or "nodes", text)
        for found in _REMOVE.finditer(words):
            what = found["what"].replace(" . ", ".")
            yield Danger(DangerKind.DROPS, what, f"The values of {what} are removed.")

    def _whole_label(self, label: str | None) -> Iterator[Danger]:
        pattern = f"(n:{label})" if label else "(n)"
        name = label or "all nodes"
        what = f"All nodes of {label} are" if label else "All nodes are"
        if self._ask is None:
            yield Danger(DangerKind.DROPS, name, f"{what} deleted.")
            return
        try:
            number = self._asked(f"MATCH {pattern} RETURN count(n) AS n")[0]["n"]
        except NotSeen as exc:
            yield Danger(DangerKind.DROPS, name, f"{what} deleted. How many there are {exc}.")
            return
        if number:
            yield Danger(DangerKind.DROPS, name, f"{what} deleted, {number:,} now.")

    def _asked(self, question: str) -> list[dict[str, Any]]:
        if self._ask is None:
            raise NotSeen("could not be seen without a server")
        return self._ask(question)


def _conditions(thing: SchemaObject) -> Iterator[tuple[str, str]]:
    """What a constraint refuses, as a condition and in words. Duplicates are found elsewhere."""
    for name in thing.properties:
        if thing.type in {"EXISTENCE", "KEY"}:
            yield f"n.{quoted(name)} IS NULL", f"has no {name}"
        if thing.type == "TYPE":
            value = f"n.{quoted(name)}"
            condition = f"{value} IS NOT NULL AND NOT {value} IS :: {thing.property_type}"
            yield condition, f"has a {name} that is no {thing.property_type}"


def _wait(thing: SchemaObject, number: int) -> str:
    over = f"{number:,} {_noun(thing)}"
    if thing.kind == "constraint":
        return f"Writers of {'|'.join(thing.labels)} wait while each of {over} is looked at."
    return f"The index is built over {over} in the background, and the run waits for it."


def _noun(thing: SchemaObject) -> str:
    return "nodes" if thing.entity == "NODE" else "relationships"


def _pattern(thing: SchemaObject, label: str) -> str:
    name = quoted(label)
    return f"(n:{name})" if thing.entity == "NODE" else f"()-[n:{name}]->()"


def _beginning(statement: Statement) -> str:
    """The first word of a statement, or the first two, as `CREATE CONSTRAINT`."""
    first, *others = statement.tokens.split(" ")
    return f"{first} {others[0]}" if others and others[0].isalpha() else first


def _unseen(name: str, text: str) -> Danger:
    return Danger(DangerKind.UNSEEN, name, text)


def with_dangers(changes: Sequence[Change], dangers: Dangers) -> tuple[Change, ...]:
    """The changes of a plan, each with the dangers of its statements."""
    return tuple(replace(each, dangers=dangers.of(each.statements)) for each in changes)
