"""What models declare and revisions do not make, or make otherwise, by the catalogues of both.

Alembic's comparison does not see CHECKs, values of enums, predicates of indexes, computed columns,
functions and triggers. So one scratch database has what the revisions make, a second one what the
models make by themselves, and their catalogues are compared.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import FetchedValue, Table

from is_db_bootstrap.stores.postgres.catalogue import PARTITION, Objects
from is_db_bootstrap.stores.postgres.compare import PARTS
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.definitions import Definitions
from is_db_bootstrap.stores.postgres.dump_form import is_same, same_after_restore
from is_db_bootstrap.stores.postgres.operations import Operation

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.models import Models
#: Kinds that a statement of the server makes, in the order in which they need one another.
WRITTEN = (
    "enum",
    "sequence",
    "function",
    "procedure",
    "constraint",
    "index",
    "view",
    "materialized view",
    "trigger",
)
#: Kinds that models cannot declare, or only by SQL of their own. Such an object that only the
#: revisions make is told in one line with the others of its kind.
_BEYOND = ("table", *PARTS)
_DEFAULT = re.compile(r" DEFAULT .*$| GENERATED (ALWAYS|BY DEFAULT) AS IDENTITY.*$", re.DOTALL)
_OWN_SEQUENCE = re.compile(r"nextval\('(?:.*\.)?\"?(.*?)\"?'::regclass\)")
#: What goes with a constraint that the models do not declare.
DANGER_OF_DROP = "what it refused is taken from then on"
#: Characters of a definition that a message shows.
_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Difference:
    """One object that differs. `declared` is None when the models lack it, `made` the revisions.

    `up` are the statements that make it as the models declare it, `down` those that undo that.
    Both are empty when only a person can write them. `reason` says why.
    """

    kind: str
    name: str
    declared: str | None
    made: str | None
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    reason: str = ""

    def operation(self, *, by_hand: bool = False, left_out: bool = False) -> Operation:
        """The difference in words."""
        if self.declared is None:
            is_written = not left_out and not by_hand
            danger = DANGER_OF_DROP if is_written else ""
            return Operation(
                f"drop {self.kind}", self.name, "", left_out, by_hand=by_hand, danger=danger
            )
        verb = "change" if self.made is not None else "add"
        if not by_hand:
            return Operation(f"{verb} {self.kind}", self.name, _brief(self.declared))
        is_there = _brief(self.made) if self.made is not None else "not there"
        detail = f"the models have {_brief(self.declared)}, the revisions {is_there}"
        if self.reason:
            detail = f"{detail}; {self.reason}"
        return Operation(f"{verb} {self.kind}", self.name, detail, by_hand=True)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its catalogue and its statements, each by schema."""

    objects: Mapping[str, Objects]
    definitions: Mapping[str, Definitions]


@dataclass(slots=True)
class Comparison:
    """The comparison of what models declare with what revisions make.

    `schemas` maps each schema that is compared to the prefix of its names in messages.
    """

    metadata: Models
    declared: Side
    made: Side
    own_schema: str = "public"
    _tables: Mapping[str, Mapping[str, Table]] = field(init=False)

    def __post_init__(self) -> None:
        tables: dict[str, dict[str, Table]] = {}
        for table in self.metadata.tables.values():
            tables.setdefault(table.schema or self.own_schema, {})[table.name] = table
        self._tables = tables

    def differences(self) -> list[Difference]:
        """Every difference within what the models declare, in the order of `WRITTEN`."""
        found = [
            each
            for schema, declared in self.declared.objects.items()
            for each in self._in_schema(schema, declared, self.made.objects.get(schema, {}))
        ]
        order = {kind: number for number, kind in enumerate(WRITTEN)}
        return sorted(found, key=lambda each: order.get(each.kind, len(order)))

    def beyond(self) -> Iterator[str]:
        """What only the revisions make and models do not express, a kind a line."""
        for schema, made in self.made.objects.items():
            declared = self.declared.objects.get(schema, {})
            for kind, objects in made.items():
                if kind in _BEYOND or kind == PARTITION:
                    continue
                owned = _owned_sequences(made) if kind == "sequence" else set()
                names = [
                    self._shown(schema, name)
                    for name in objects
                    if name not in declared.get(kind, {}) and name not in owned
                ]
                if names:
                    yield f"{kind} {', '.join(names)}"

    def _in_schema(self, schema: str, declared: Objects, made: Objects) -> Iterator[Difference]:
        tables = declared.get("table", {})
        same_text = _same_by_definition(declared, made)
        owned = _owned_sequences(declared) | _owned_sequences(made)
        for kind in {**declared, **made}:
            if kind in {PARTITION, "extension"}:
                continue
            ours, theirs = declared.get(kind, {}), made.get(kind, {})
            for name in {**ours, **theirs}:
                expected, actual = ours.get(name), theirs.get(name)
                if is_same(expected, actual) or (kind, name) in same_text:
                    continue
                if kind == "sequence" and name in owned:
                    continue
                is_part = kind in PARTS
                if is_part and name.partition(".")[0] not in tables:
                    continue
                if expected is None and (not is_part or kind in {"trigger", "policy"}):
                    continue  # an undeclared table is told by Alembic, the rest by `beyond`
                if kind == "column" and self._is_filled_alike(schema, name, expected, actual):
                    continue
                yield self._difference(schema, kind, name, expected, actual)

    def _is_filled_alike(
        self, schema: str, name: str, expected: str | None, actual: str | None
    ) -> bool:
        """Whether a column differs only in a default that the model leaves to the database."""
        table, _, column_name = name.partition(".")
        column = self._tables.get(schema, {})[table].columns.get(column_name)
        if column is None or expected is None or actual is None:
            return False
        default = column.server_default
        is_left_open = type(default) is FetchedValue
        is_numbered = default is None and column is column.table.autoincrement_column
        if is_numbered:
            is_left_open = _DEFAULT.search(actual) is not None
        return is_left_open and _DEFAULT.sub("", expected) == _DEFAULT.sub("", actual)

    def _difference(
        self, schema: str, kind: str, name: str, expected: str | None, actual: str | None
    ) -> Difference:
        shown = self._shown(schema, name)
        if kind == "enum" and expected is not None and actual is not None:
            return self._changed_enum(schema, name, expected, actual)
        if kind not in WRITTEN:
            return Difference(
                kind, shown, expected, actual, reason=_advice(kind, name, expected, actual)
            )
        new = self.declared.definitions[schema].statements.get((kind, name))
        made_definitions = self.made.definitions.get(schema)
        old = made_definitions.statements.get((kind, name)) if made_definitions else None
        up: list[str] = []
        down: list[str] = []
        is_replaced = kind in {"function", "procedure", "view"}
        if old is not None and not (is_replaced and new is not None):
            up.append(old.drop)
            down.append(old.create)
        if new is not None:
            up.append(new.create)
            down.insert(0, old.create if is_replaced and old is not None else new.drop)
        return Difference(kind, shown, expected, actual, tuple(up), tuple(down))

    def _changed_enum(self, schema: str, name: str, expected: str, actual: str) -> Difference:
        """New values are added where they belong. A value is never taken away."""
        shown = self._shown(schema, name)
        wanted = self.declared.definitions[schema].labels[name]
        there = self.made.definitions[schema].labels[name]
        if [label for label in wanted if label in there] != there:
            reason = "PostgreSQL takes no value out of an enum and moves none: make a new type"
            return Difference("enum", shown, expected, actual, reason=reason)
        made = self.made.definitions[schema].statements["enum", name]
        place = made.drop.removeprefix("DROP TYPE ")
        add = f"ALTER TYPE {place} ADD VALUE IF NOT EXISTS"
        up = [
            f"{add} {_literal(label)}{_position(wanted, there, number)}"
            for number, label in enumerate(wanted)
            if label not in there
        ]
        return Difference("enum", shown, expected, actual, tuple(up))

    def _shown(self, schema: str, name: str) -> str:
        return name if schema == self.own_schema else f"{schema}.{name}"


def _position(wanted: list[str], there: list[str], number: int) -> str:
    """Where a new value belongs. Those before it are there by then."""
    if number:
        return f" AFTER {_literal(wanted[number - 1])}"
    return f" BEFORE {_literal(there[0])}" if there else ""


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _same_by_definition(declared: Objects, made: Objects) -> Collection[tuple[str, str]]:
    """Constraints and indexes of a table that differ in nothing but their names.

    A model that names none gets a name from the server, and a revision may have another.
    """
    found: set[tuple[str, str]] = set()
    for kind in ("constraint", "index"):
        ours, theirs = declared.get(kind, {}), made.get(kind, {})
        left: dict[tuple[str, str], list[str]] = {}
        for name, text in theirs.items():
            if name not in ours:
                left.setdefault((name.partition(".")[0], same_after_restore(text)), []).append(name)
        for name, text in ours.items():
            alike = left.get((name.partition(".")[0], same_after_restore(text)))
            if name not in theirs and alike:
                found |= {(kind, name), (kind, alike.pop())}
    return found


def _owned_sequences(objects: Objects) -> set[str]:
    """The sequences that number a column."""
    texts = objects.get("column", {}).values()
    return {match[1] for text in texts for match in _OWN_SEQUENCE.finditer(text)}


def _advice(kind: str, name: str, expected: str | None, actual: str | None) -> str:
    """How a person writes a difference for which there is no statement that fits every table."""
    if kind != "column" or expected is None or actual is None or " GENERATED " not in expected:
        return ""
    table, _, column = name.partition(".")
    computed = re.search(r"GENERATED ALWAYS AS (\(.*\)) (STORED|VIRTUAL)$", expected, re.DOTALL)
    if computed is None:
        return ""
    return (
        f"from PostgreSQL 17 on: ALTER TABLE {identifier(table)} ALTER COLUMN "
        f"{identifier(column)} SET EXPRESSION AS {computed[1]}; before that, drop the column and "
        "add it again"
    )


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
