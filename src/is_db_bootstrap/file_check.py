"""What is wrong with the files of a blueprint, and what to look at in them, without a server.

Cypher is looked through (`stores.neo4j.cypher_check`). Revisions are written down as SQL by a
process of its own (`stores.postgres.planned_sql`), and PostgreSQL's own parser reads that SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.results import Change, DangerKind

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.planned_sql import PlannedSql
    from is_db_bootstrap.stores.postgres.revisions import Chain

#: The schema for which revisions are written down.
_SCHEMA = "public"
#: What only wrong code raises, whatever the database holds.
_OF_WRONG_NAMES = {
    "ImportError",
    "IndentationError",
    "ModuleNotFoundError",
    "NameError",
    "SyntaxError",
    "TabError",
    "UnboundLocalError",
}
#: What wrong code raises, and what code raises that has asked a database and got no answer.
_OF_WRONG_CODE = _OF_WRONG_NAMES | {"AttributeError", "TypeError"}
_FAILS = re.compile(r"fails: (?P<error>\w+)(?: \((?P<file>.+), line (?P<line>\d+)\))?")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file. `line` is from 1, or None for the whole file."""

    file: str
    line: int | None
    text: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.text}"


@dataclass(frozen=True, slots=True)
class CheckedFiles:
    """What was found in the files of a blueprint.

    `changes` are all its revisions and Cypher files in order, as a plan on empty stores has them,
    each with the dangers that are sure without a server. `newest` are the names of those that
    nothing goes on from. `notes` say what could not be checked.
    """

    problems: tuple[Problem, ...] = ()
    changes: tuple[Change, ...] = ()
    newest: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def danger_lines(self) -> Iterator[str]:
        """The dangers of the newest revision and Cypher file, a line each."""
        for change in self.changes:
            if change.name in self.newest:
                for danger in change.dangers:
                    yield f"{change.name}: {danger.kind} {danger.object}: {danger.text}"

    def document(self) -> dict[str, Any]:
        """The findings as a JSON document has them."""
        return {
            "problems": [asdict(each) for each in self.problems],
            "changes": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "statements": list(each.statements),
                    "is_code": each.is_code,
                    "dangers": [asdict(danger) for danger in each.dangers],
                }
                for each in self.changes
            ],
            "notes": list(self.notes),
        }


def check_files(blueprint: Blueprint) -> CheckedFiles:
    """Look through the Cypher files and the revisions of a blueprint.

    Raises `ConfigurationError` for files that no run could load, such as a revision that is no
    Python.
    """
    cypher = _checked_cypher(blueprint)
    revisions = _checked_revisions(blueprint)
    return CheckedFiles(
        (*cypher.problems, *revisions.problems),
        (*revisions.changes, *cypher.changes),
        (*revisions.newest, *cypher.newest),
        (*revisions.notes, *cypher.notes),
    )


def _checked_cypher(blueprint: Blueprint) -> CheckedFiles:
    folder = blueprint.cypher
    if folder is None:
        return CheckedFiles()
    from is_db_bootstrap.stores.neo4j import cypher_check, cypher_file
    from is_db_bootstrap.stores.neo4j.callbacks import Callbacks
    from is_db_bootstrap.stores.neo4j.cypher_file import read_text
    from is_db_bootstrap.stores.neo4j.dangers import Dangers, Forecasted

    crlf = blueprint.cypher_autocrlf
    files = cypher_file.load(folder, autocrlf=crlf)
    callbacks = Callbacks.load(folder, autocrlf=crlf)
    of_callbacks = [*callbacks.before, *callbacks.after, *callbacks.not_run]
    places = [file.place for file in files] + [each.place for each in of_callbacks]
    problems = [
        Problem(str(folder / place), found.line, found.text)
        for place in places
        for found in cypher_check.problems(read_text(folder / place))
    ]
    changes = []
    for file in files:
        statements = tuple(each.text for each in file.statements)
        dangers = Dangers(None, Forecasted()).of(statements)
        changes.append(Change(file.name, "cypher", statements=statements, dangers=dangers))
    newest = [file.name for file in files if not file.repeatable][-1:]
    return CheckedFiles(tuple(problems), tuple(changes), tuple(newest))


def _checked_revisions(blueprint: Blueprint) -> CheckedFiles:
    if blueprint.migrations is None and blueprint.alembic is None:
        return CheckedFiles()
    from is_db_bootstrap.stores.postgres.connection import NOWHERE, placeholders
    from is_db_bootstrap.stores.postgres.dangers import PlanDangers
    from is_db_bootstrap.stores.postgres.declared_revisions import chain_of
    from is_db_bootstrap.stores.postgres.planned_sql import SqlWriter

    chain = chain_of(blueprint)
    if not chain.order:
        return CheckedFiles()
    chain.refuse_unparsable(chain.order)
    values = placeholders(replace(NOWHERE, database=blueprint.name), _SCHEMA)
    written = SqlWriter(blueprint, _SCHEMA, chain).written(chain.order, values)
    problems, notes, changes = [], [], []
    for name in chain.order:
        found = written[name]
        wrong = list(_problems_of(name, found, chain))
        problems += wrong
        if found.reasons and not wrong:
            notes.append(f"{name} runs Python ({', '.join(found.reasons)}).")
        dangers = PlanDangers(None, _SCHEMA).of(found.statements)
        told = tuple(each for each in dangers if each.kind is not DangerKind.UNSEEN)
        change = Change(name, "revision", chain.titles[name], statements=found.statements)
        changes.append(replace(change, is_code=bool(found.reasons), dangers=told))
    heads = chain.heads(chain.order)
    return CheckedFiles(tuple(problems), tuple(changes), heads, tuple(notes))


def _problems_of(name: str, found: PlannedSql, chain: Chain) -> Iterator[Problem]:
    """What is wrong with a revision: Python that fails, and SQL that cannot be read."""
    file = chain.files.get(name)
    shown = str(file) if file else name
    for reason in found.reasons:
        failure = _FAILS.search(reason)
        if failure is None:
            continue
        is_sure = failure["error"] in _OF_WRONG_NAMES or len(found.reasons) == 1
        if is_sure and failure["error"] in _OF_WRONG_CODE:
            line = int(failure["line"]) if failure["line"] else None
            text = f"The revision fails when it is written as SQL: {failure['error']}."
            yield Problem(failure["file"] or shown, line, text)
    yield from _unreadable_sql(found.statements, file, shown)


def _unreadable_sql(
    statements: tuple[str, ...], file: Path | None, shown: str
) -> Iterator[Problem]:
    from is_db_bootstrap.stores.postgres.sql_syntax import (
        ParserMissing,
        Unreadable,
        beginning,
        statements_of,
    )

    source = file.read_text(encoding="utf-8", errors="replace") if file else ""
    for statement in statements:
        try:
            statements_of(statement)
        except ParserMissing:
            return
        except Unreadable as exc:
            line = _line_of(statement, exc.line, source)
            yield Problem(shown, line, f"{exc}, in `{beginning(statement)}`.")


def _line_of(statement: str, line: int, source: str) -> int | None:
    """The line of a file on which a line of a statement is, when the file has it just once."""
    lines = statement.strip().rstrip(";").splitlines()
    for wanted in (lines[max(line, 1) - 1 : max(line, 1)], lines[:1]):
        words = wanted[0].strip() if wanted else ""
        if words and source.count(words) == 1:
            return source.count("\n", 0, source.index(words)) + 1
    return None
