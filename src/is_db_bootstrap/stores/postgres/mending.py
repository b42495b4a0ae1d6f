"""The statements that bring an object back to what `catalogue.json` declares.

A catalogue has definitions as the server writes them, so most statements can be made of it. A
person runs them. Nothing here asks a server. Of these statements, `repair` runs those only that
make what is missing and holds no rows, after it has asked (`repairs`).

What is not made is told with its reason. The catalogue folds white space in the body of a function,
for one, so a body in which white space may count cannot be written again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from is_db_bootstrap.results import Drift
from is_db_bootstrap.stores.postgres.catalogue import Objects, plain
from is_db_bootstrap.stores.postgres.connection import identifier, search_path
from is_db_bootstrap.stores.postgres.dump_form import NOT_VALID, is_same, is_unfinished
from is_db_bootstrap.wording import has_unseen, spelled

#: Kinds in the order in which one needs another. What is not named comes last.
_ORDER = (
    "schema",
    "extension",
    "enum",
    "domain",
    "composite type",
    "sequence",
    "function",
    "procedure",
    "table",
    "column",
    "constraint",
    "index",
    "view",
    "materialized view",
    "trigger",
)
#: Constraints that a foreign key may lead to come before it.
_FOREIGN_KEY = "FOREIGN KEY"
_FROM_REVISION = (
    "catalogue.json has no whole statement of it: run the one of the revision that makes it, which "
    "`is-db-bootstrap migrate sql` prints"
)
_FINISHED = (
    "its rows were checked, which is more than declared, and PostgreSQL takes that back only with "
    "the constraint: write a revision that validates it (ALTER TABLE … VALIDATE CONSTRAINT …)"
)
_OF_PARTITIONS = (
    "an index of a partitioned table is valid once each partition has its own: create those that "
    "are missing, and attach them (ALTER INDEX … ATTACH PARTITION …)"
)
_NOT_IN_PLACE = "PostgreSQL does not change this in place: "
_BODY_IS_FOLDED = (
    "catalogue.json has the body with its white space folded, which may change what it does: run "
    "the statement of the revision that makes it, which `is-db-bootstrap migrate sql` prints"
)
_PART = re.compile(r'"(?:[^"]|"")*"|[^.]+')
_COLUMN = re.compile(
    r"(?P<type>.*?) (?P<null>NOT NULL|NULL)"
    r"(?: GENERATED (?P<identity>ALWAYS|BY DEFAULT) AS IDENTITY(?P<options>.*))?"
    r"(?: GENERATED ALWAYS AS (?P<computed>.*))?(?: DEFAULT (?P<default>.*))?",
    re.DOTALL,
)
_NEXT_VALUE = re.compile(r"nextval\('(?P<name>(?:[^']|'')+)'::regclass\)")
_OWNED = re.compile(r" owned by (?P<owner>.*)$", re.DOTALL)
_STATE = re.compile(r" (?P<state>DISABLED|ON REPLICA|ALWAYS)$")
_ENABLING = {
    "": "ENABLE",
    "DISABLED": "DISABLE",
    "ON REPLICA": "ENABLE REPLICA",
    "ALWAYS": "ENABLE ALWAYS",
}
_POLICY = re.compile(
    r"(?P<mode>permissive|restrictive) for (?P<command>\S)"
    r"(?: using (?P<using>(?:(?! with check ).)*))?(?: with check (?P<check>.*))?",
    re.DOTALL,
)
_POLICY_COMMANDS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE", "*": "ALL"}
_FUNCTION = re.compile(
    r"(?P<head>RETURNS .*? LANGUAGE (?P<language>sql|plpgsql)(?: IMMUTABLE| STABLE)?(?: STRICT)?"
    r"(?: SECURITY DEFINER)?) AS (?P<body>.*?)(?: ARGUMENTS \((?P<arguments>.*)\))?"
    r"(?P<more>(?: PARALLEL (?:SAFE|RESTRICTED))?(?: LEAKPROOF)?(?: COST [\d.]+)?"
    r"(?: ROWS [\d.]+)?)",
    re.DOTALL,
)
#: Literals, names in quotes, the marks of other quotes, and comments.
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\w*\$|--|/\*")
_NAME_OR_TEXT = re.compile(r"\$body\$.*?\$body\$|\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'", re.DOTALL)
_LABEL = re.compile(r"'(?:[^']|'')*'")
#: What each kind of grant is on, in SQL.
_GRANT_ON = {
    "grant": "TABLE",
    "sequence grant": "SEQUENCE",
    "type grant": "TYPE",
    "schema grant": "SCHEMA",
    "foreign server grant": "FOREIGN SERVER",
}
_GRANT_OPTION = " WITH GRANT OPTION"
_OWNER_OF = {"owner": "TABLE", "sequence owner": "SEQUENCE", "schema owner": "SCHEMA"}


#: What stands between two columns of a new table.
_BETWEEN = ",\n    "


#: What `repair` makes when it is missing. None of these has rows of its own.
_REPAIRED = frozenset({"constraint", "index", "statistics", "trigger"})
_BUILDS = re.compile(r"^(CREATE (?:UNIQUE )?INDEX|REINDEX INDEX) ")


class _Unmade(Exception):
    """There is no statement. The text says why."""


def in_order(drifts: list[Drift]) -> list[Drift]:
    """The drifts in an order in which their statements can be run."""

    def place(drift: Drift) -> tuple[int, bool]:
        number = _ORDER.index(drift.kind) if drift.kind in _ORDER else len(_ORDER)
        return number, (drift.expected or "").startswith(_FOREIGN_KEY)

    return sorted(drifts, key=place)


@dataclass(frozen=True, slots=True)
class Mending:
    """The statements for one schema.

    `schema` is the live name of the schema, `own` that of the blueprint's own schema, relative to
    which all definitions are written. `declared` and `found` are the objects of `schema`.
    """

    schema: str
    own: str
    declared: Objects
    found: Objects

    def with_fix(self, drift: Drift) -> Drift:
        """The drift with the statements that mend it, or with the reason why there are none."""
        try:
            statements = [*self._statements(drift.kind, drift.object, drift.expected, drift.actual)]
        except _Unmade as exc:
            return replace(drift, reason=str(exc))
        if self.own != "public":
            statements.insert(0, f"SET search_path TO {search_path(self.own)}")
        shown = tuple(f"{_seen(each)};" for each in statements)
        mended = replace(drift, fix="\n".join(shown), statements=shown)
        if not self._is_repairable(drift):
            return mended
        if not self._is_partitioned(drift.object):
            shown = tuple(map(_leaving_others_alone, shown))
        return replace(mended, statements=shown, can_repair=True)

    def _is_repairable(self, drift: Drift) -> bool:
        """Whether the statements make or finish what holds no rows of its own, and drop nothing."""
        if drift.kind == "column":
            return is_unfinished(drift.expected, drift.actual)
        if drift.kind not in _REPAIRED:
            return False
        return drift.actual is None or is_unfinished(drift.expected, drift.actual)

    def _is_partitioned(self, part: str) -> bool:
        """Whether the part belongs to a table whose indexes cannot be built concurrently."""
        table = self.found.get("table", {}).get(_PART.findall(part)[0], "")
        return " partition by " in table

    def _statements(
        self, kind: str, name: str, expected: str | None, actual: str | None
    ) -> Iterator[str]:
        if expected is None:
            raise _Unmade("")
        if kind in _GRANT_ON:
            return self._grant(kind, name, expected, actual)
        if kind in _OWNER_OF:
            return self._owner(kind, name, expected)
        makers: Mapping[str, Callable[[str, str, str | None], Iterator[str]]] = {
            "column": self._column,
            "constraint": self._constraint,
            "index": self._index,
            "trigger": self._trigger,
            "rule": self._rule,
            "view": self._view,
            "view option": self._view_option,
            "view column": self._view_column,
            "materialized view": self._materialized_view,
            "sequence": self._sequence,
            "extension": self._extension,
            "enum": self._enum,
            "domain": self._domain,
            "composite type": self._composite_type,
            "table": self._table,
            "function": self._function,
            "procedure": self._function,
            "policy": self._policy,
            "policy roles": self._policy_roles,
            "replica identity": self._replica_identity,
            "statistics": self._statistics,
        }
        if kind not in makers:
            raise _Unmade(_FROM_REVISION)
        return makers[kind](name, expected, actual)

    # --- names

    def _place(self, written: str) -> str:
        """The quoted name of an object of the schema, with the schema before it."""
        return identifier(self.schema, plain(written))

    def _table_and_part(self, name: str) -> tuple[str, str]:
        """The place of a table, and the quoted name of a part of it."""
        table, part = _PART.findall(name)[:2]
        return self._place(table), identifier(plain(part))

    def _parts_of(self, kind: str, whole: str) -> Iterator[tuple[str, str]]:
        """The declared parts of a table or view, of one kind: name and definition."""
        for name, definition in self.declared.get(kind, {}).items():
            if _PART.findall(name)[0] == whole:
                yield name, definition

    # --- parts of tables

    def _column(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table, column = self._table_and_part(name)
        if is_unfinished(expected, actual):
            # PostgreSQL 18 checks the rows of a constraint then that was added NOT VALID.
            yield f"ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"
            return
        if is_unfinished(actual, expected):
            raise _Unmade(_FINISHED)
        if expected.endswith(f" {NOT_VALID}"):
            raise _Unmade(_FROM_REVISION)
        if actual is None:
            yield f"ALTER TABLE {table} ADD COLUMN {column} {expected}"
            yield from self._owning(name, expected)
            return
        wanted, there = _COLUMN.fullmatch(expected), _COLUMN.fullmatch(actual)
        if wanted is None or there is None:
            raise _Unmade(_FROM_REVISION)
        if not is_same(wanted["computed"], there["computed"]):
            raise _Unmade(
                f"{_NOT_IN_PLACE}drop the column and add it again, which computes it anew"
            )
        if wanted["options"] != there["options"] and wanted["identity"] and there["identity"]:
            raise _Unmade("ALTER TABLE … ALTER COLUMN … SET (…) sets the options of an identity")
        alter = f"ALTER TABLE {table} ALTER COLUMN {column}"
        yield from _changed_column(alter, wanted, there)
        if wanted["identity"] and not there["identity"]:
            yield _counting_on(table, column)

    def _owning(self, name: str, column: str) -> Iterator[str]:
        """The statement that gives a column the sequence by which it is numbered."""
        for sequence in self._sequences_of(name):
            if _NEXT_VALUE.search(column):
                table, part = self._table_and_part(name)
                yield f"ALTER SEQUENCE {self._place(sequence)} OWNED BY {table}.{part}"

    def _sequences_of(self, name: str) -> Iterator[str]:
        """The sequences that belong to a column."""
        written = ".".join(_shortest(plain(part)) for part in _PART.findall(name))
        for sequence, definition in self.declared.get("sequence", {}).items():
            owned = _OWNED.search(definition)
            if owned and owned["owner"] == written:
                yield sequence

    def _constraint(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table, constraint = self._table_and_part(name)
        add = f"ADD CONSTRAINT {constraint} {expected}"
        if is_unfinished(expected, actual):
            yield f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}"
        elif is_unfinished(actual, expected):
            raise _Unmade(_FINISHED)
        elif is_same(f"{expected} TRIGGERS DISABLED", actual):
            yield f"ALTER TABLE {table} ENABLE TRIGGER ALL"
        elif expected.endswith(" TRIGGERS DISABLED"):
            raise _Unmade(_FROM_REVISION)
        elif actual is None:
            yield f"ALTER TABLE {table} {add}"
        else:
            yield f"ALTER TABLE {table} DROP CONSTRAINT {constraint}, {add}"

    def _index(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table, index = self._table_and_part(name)
        in_schema = f"{identifier(self.schema)}.{index}"
        if is_unfinished(expected, actual):
            if self._is_partitioned(name):
                raise _Unmade(_OF_PARTITIONS)
            yield f"REINDEX INDEX {in_schema}"
            return
        if actual is not None:
            yield f"DROP INDEX {in_schema}"
        unique = "UNIQUE " if expected.startswith("UNIQUE ") else ""
        using = expected.removeprefix("UNIQUE ")
        yield f"CREATE {unique}INDEX {index} ON {table} USING {using}"

    def _trigger(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table, trigger = self._table_and_part(name)
        wanted, state = _without_state(expected)
        there, _ = _without_state(actual or "")
        is_there = is_same(wanted, there)
        if actual is not None and not is_there:
            yield f"DROP TRIGGER {trigger} ON {table}"
        if not is_there:
            constraint = "CONSTRAINT " if wanted.startswith("CONSTRAINT ") else ""
            rest = wanted.removeprefix("CONSTRAINT ")
            yield f"CREATE {constraint}TRIGGER {trigger} {rest}"
        if state or is_there:
            yield f"ALTER TABLE {table} {_ENABLING[state]} TRIGGER {trigger}"

    def _rule(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table, rule = self._table_and_part(name)
        wanted, state = _without_state(expected)
        there, _ = _without_state(actual or "")
        is_there = is_same(wanted, there)
        if not is_there:
            yield f"CREATE OR REPLACE RULE {rule} AS {wanted.removesuffix(';')}"
        if state or is_there:
            yield f"ALTER TABLE {table} {_ENABLING[state]} RULE {rule}"

    def _policy(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table, policy = self._table_and_part(name)
        found = _POLICY.fullmatch(expected)
        if found is None:
            raise _Unmade(_FROM_REVISION)
        if actual is not None:
            yield f"DROP POLICY {policy} ON {table}"
        roles = self.declared.get("policy roles", {}).get(name, "PUBLIC")
        parts = [
            f"CREATE POLICY {policy} ON {table} AS {found['mode'].upper()}",
            f"FOR {_POLICY_COMMANDS[found['command']]} TO {_roles(roles)}",
        ]
        if found["using"]:
            parts.append(f"USING ({found['using']})")
        if found["check"]:
            parts.append(f"WITH CHECK ({found['check']})")
        yield " ".join(parts)

    def _policy_roles(self, name: str, expected: str, _: str | None) -> Iterator[str]:
        table, policy = self._table_and_part(name)
        yield f"ALTER POLICY {policy} ON {table} TO {_roles(expected)}"

    def _replica_identity(self, name: str, expected: str, _: str | None) -> Iterator[str]:
        yield f"ALTER TABLE {self._place(name)} REPLICA IDENTITY {expected}"

    def _statistics(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        _, part = self._table_and_part(name)
        place = f"{identifier(self.schema)}.{part}"
        if actual is not None:
            yield f"DROP STATISTICS {place}"
        yield f"CREATE STATISTICS {place} {expected}"

    # --- tables and views

    def _table(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        table = self._place(name)
        if actual is not None:
            yield from _changed_table(table, expected, actual)
            return
        if not {*expected.removeprefix("table").replace("forced", "").split()} <= {
            "row",
            "level",
            "security",
        }:
            raise _Unmade(_FROM_REVISION)
        columns = [
            f"{self._table_and_part(column)[1]} {definition}"
            for column, definition in self._parts_of("column", name)
        ]
        yield (
            f"CREATE TABLE {table} (\n    {_BETWEEN.join(columns)}\n)"
            if columns
            else f"CREATE TABLE {table} ()"
        )
        for column, definition in self._parts_of("column", name):
            yield from self._owning(column, definition)
        yield from _changed_table(table, expected, "table")
        constraints = sorted(
            self._parts_of("constraint", name), key=lambda each: each[1].startswith(_FOREIGN_KEY)
        )
        for part, definition in constraints:
            yield from self._constraint(part, definition, None)
        yield from self._parts(
            name, ("index", "policy", "trigger", "rule", "replica identity", "statistics")
        )
        yield from self._parts(name, ("owner",))
        for granted, privileges in self.declared.get("grant", {}).items():
            if _PART.findall(granted.rpartition(" to ")[0])[0] == name:
                yield from self._grant("grant", granted, privileges, None)

    def _parts(self, whole: str, kinds: tuple[str, ...]) -> Iterator[str]:
        for kind in kinds:
            for part, definition in self._parts_of(kind, whole):
                yield from self._statements(kind, part, definition, None)

    def _view(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        options = ", ".join(
            f"{_PART.findall(option)[-1]} = {_literal(value)}"
            for option, value in self._parts_of("view option", name)
        )
        with_options = f" WITH ({options})" if options else ""
        query = expected.strip().removesuffix(";")
        yield f"CREATE OR REPLACE VIEW {self._place(name)}{with_options} AS\n{query}"
        if actual is None:
            yield from self._parts(name, ("view column", "trigger", "rule"))

    def _view_option(self, name: str, expected: str, _: str | None) -> Iterator[str]:
        view, option = _PART.findall(name)[:2]
        yield f"ALTER VIEW {self._place(view)} SET ({option} = {_literal(expected)})"

    def _view_column(self, name: str, expected: str, _: str | None) -> Iterator[str]:
        view, column = self._table_and_part(name)
        yield f"ALTER VIEW {view} ALTER COLUMN {column} SET {expected}"

    def _materialized_view(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        view = self._place(name)
        if actual is not None:
            yield f"DROP MATERIALIZED VIEW {view}"
        query = expected.strip().removesuffix(";")
        yield f"CREATE MATERIALIZED VIEW {view} AS\n{query}"
        yield from self._parts(name, ("index",))

    # --- sequences, types, functions, extensions

    def _sequence(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        sequence = self._place(name)
        owned = _OWNED.search(expected)
        options = _OWNED.sub("", expected)
        if actual is None:
            yield f"CREATE SEQUENCE {sequence} AS {options}"
        else:
            yield f"ALTER SEQUENCE {sequence} AS {_all_options(options)}"
        if owned is None:
            if actual is not None and _OWNED.search(actual):
                yield f"ALTER SEQUENCE {sequence} OWNED BY NONE"
            return
        table, column = _PART.findall(owned["owner"])[:2]
        is_there = f"{table}.{column}" in self.found.get("column", {})
        if not is_there:
            return  # The statement of the table or the column says to whom it belongs.
        role = self.declared.get("sequence owner", {}).get(name)
        if role and actual is None:
            yield f"ALTER SEQUENCE {sequence} OWNER TO {_role(role)}"
        owner = f"{self._place(table)}.{identifier(plain(column))}"
        yield f"ALTER SEQUENCE {sequence} OWNED BY {owner}"
        if actual is None:
            yield _counting_on(self._place(table), identifier(plain(column)))

    def _extension(self, name: str, _: str, __: str | None) -> Iterator[str]:
        yield f"CREATE EXTENSION {identifier(plain(name))}"

    def _enum(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        place = self._place(name)
        if actual is None:
            yield f"CREATE TYPE {place} AS ENUM ({expected})"
            return
        wanted, there = _LABEL.findall(expected), _LABEL.findall(actual)
        if [label for label in wanted if label in there] != there:
            raise _Unmade(
                "PostgreSQL takes no value out of an enum and moves none: make a new type, and "
                "change the columns to it"
            )
        for number, label in enumerate(wanted):
            if label in there:
                continue
            before = f" BEFORE {there[0]}" if there else ""
            position = f" AFTER {wanted[number - 1]}" if number else before
            yield f"ALTER TYPE {place} ADD VALUE {label}{position}"

    def _domain(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        if actual is not None:
            raise _Unmade("ALTER DOMAIN changes one thing at a time: compare both definitions")
        yield f"CREATE DOMAIN {self._place(name)} AS {expected}"

    def _composite_type(self, name: str, expected: str, actual: str | None) -> Iterator[str]:
        if actual is not None:
            raise _Unmade("ALTER TYPE changes one attribute at a time: compare both definitions")
        yield f"CREATE TYPE {self._place(name)} AS ({expected})"

    def _function(self, name: str, expected: str, _: str | None) -> Iterator[str]:
        called, _, arguments = name.partition("(")
        # A procedure returns nothing, so the catalogue says nothing of it.
        is_procedure = not expected.startswith("RETURNS ")
        text = f"RETURNS nothing {expected}" if is_procedure else expected
        found = _FUNCTION.fullmatch(text)
        if found is None:
            raise _Unmade(_FROM_REVISION)
        body = found["body"]
        if any(quoted[0] in "$-/" or re.search(r"\s", quoted) for quoted in _QUOTED.findall(body)):
            raise _Unmade(_BODY_IS_FOLDED)
        taken = found["arguments"] or arguments.removesuffix(")")
        is_expression = body.startswith(("RETURN ", "BEGIN ATOMIC"))
        is_plain = found["language"] == "sql" and is_expression
        head = found["head"].removeprefix("RETURNS nothing ") if is_procedure else found["head"]
        what = "PROCEDURE" if is_procedure else "FUNCTION"
        place = f"{identifier(self.schema, called)}({taken})"
        ending = body if is_plain else f"AS $body$ {body} $body$"
        yield f"CREATE OR REPLACE {what} {place} {head}{found['more']} {ending}"

    # --- owners and grants

    def _owner(self, kind: str, name: str, expected: str) -> Iterator[str]:
        """A sequence of a column goes with its table. The server refuses anything else."""
        owned = _OWNED.search(self.declared.get("sequence", {}).get(name, ""))
        if kind == "sequence owner" and owned:
            table = self._place(_PART.findall(owned["owner"])[0])
            yield f"ALTER TABLE {table} OWNER TO {_role(expected)}"
            return
        place = identifier(self.schema) if kind == "schema owner" else self._place(name)
        yield f"ALTER {_OWNER_OF[kind]} {place} OWNER TO {_role(expected)}"

    def _grant(self, kind: str, name: str, expected: str, actual: str | None) -> Iterator[str]:
        on, _, role = name.rpartition(" to ")
        parts = _PART.findall(on)
        is_column = kind == "grant" and len(parts) > 1
        place = self._place(parts[0])
        if kind == "schema grant":
            place = identifier(self.schema)
        if kind == "foreign server grant":
            place = identifier(plain(on))
        what = f"{_GRANT_ON[kind]} {place}"
        columns = f" ({identifier(plain(parts[1]))})" if is_column else ""
        to = "PUBLIC" if role == "PUBLIC" else identifier(role)
        wanted, there = _privileges(expected), _privileges(actual)
        for privilege, may_grant in there.items():
            if privilege not in wanted:
                yield f"REVOKE {privilege}{columns} ON {what} FROM {to}"
            elif may_grant and not wanted[privilege]:
                yield f"REVOKE GRANT OPTION FOR {privilege}{columns} ON {what} FROM {to}"
        for privilege, may_grant in wanted.items():
            is_there = privilege in there and (there[privilege] or not may_grant)
            if not is_there:
                option = _GRANT_OPTION if may_grant else ""
                yield f"GRANT {privilege}{columns} ON {what} TO {to}{option}"


def _leaving_others_alone(statement: str) -> str:
    """The statement, which lets others read and write while it builds an index."""
    return _BUILDS.sub(r"\1 CONCURRENTLY ", statement)


def _seen(statement: str) -> str:
    """The statement with names and texts spelled so that each of their characters is seen."""
    return _NAME_OR_TEXT.sub(_spelled_name, statement) if has_unseen(statement) else statement


def _spelled_name(found: re.Match[str]) -> str:
    """A name or a text in quotes, with PostgreSQL's Unicode escapes where it needs them."""
    quoted = found[0]
    if quoted.startswith("$") or not has_unseen(quoted):
        return quoted
    doubled = quoted.replace("\\", "\\\\")
    return "U&" + spelled(doubled, lambda character: f"\\+{ord(character):06x}")


def _privileges(listed: str | None) -> dict[str, bool]:
    """Each privilege of a catalogue's list, and whether its holder may grant it."""
    words = [] if listed in {None, "nothing"} else str(listed).split(", ")
    return {word.removesuffix(_GRANT_OPTION): word.endswith(_GRANT_OPTION) for word in words}


def _changed_column(alter: str, wanted: re.Match[str], there: re.Match[str]) -> Iterator[str]:
    """What turns a column into the declared one, but for what it is computed from."""
    is_other_type = wanted["type"] != there["type"]
    if is_other_type:
        if there["default"]:
            yield f"{alter} DROP DEFAULT"
        plain_type = wanted["type"].partition(" COLLATE ")[0]
        column = alter.rpartition(" ALTER COLUMN ")[2]
        yield f"{alter} TYPE {wanted['type']} USING {column}::{plain_type}"
    if there["identity"] and not wanted["identity"]:
        yield f"{alter} DROP IDENTITY"
    if wanted["null"] != there["null"] and not (there["identity"] and wanted["null"] != "NULL"):
        verb = "SET" if wanted["null"] == "NOT NULL" else "DROP"
        yield f"{alter} {verb} NOT NULL"
    is_same_default = is_same(wanted["default"], there["default"])
    if wanted["default"] and (is_other_type or not is_same_default):
        yield f"{alter} SET DEFAULT {wanted['default']}"
    if there["default"] and not wanted["default"] and not is_other_type:
        yield f"{alter} DROP DEFAULT"
    if wanted["identity"] and not there["identity"]:
        yield f"{alter} ADD GENERATED {wanted['identity']} AS IDENTITY{wanted['options']}"
    elif wanted["identity"] and wanted["identity"] != there["identity"]:
        yield f"{alter} SET GENERATED {wanted['identity']}"


def _changed_table(table: str, expected: str, actual: str) -> Iterator[str]:
    """What turns row level security of a table on or off. Nothing else is changed in place."""
    wanted, there = _security(expected), _security(actual)
    if wanted[0] != there[0]:
        raise _Unmade(_FROM_REVISION)
    if wanted[1] != there[1]:
        yield f"ALTER TABLE {table} {'ENABLE' if wanted[1] else 'DISABLE'} ROW LEVEL SECURITY"
    if wanted[2] != there[2]:
        yield f"ALTER TABLE {table} {'' if wanted[2] else 'NO '}FORCE ROW LEVEL SECURITY"


def _security(table: str) -> tuple[str, bool, bool]:
    """A table without its row level security, whether that is on, and whether it is forced."""
    rest, is_on, after = table.partition(" row level security")
    is_forced = (after or rest).endswith(" forced")
    kept = f"{rest}{after}".removesuffix(" forced")
    return kept, bool(is_on), is_forced


def _counting_on(table: str, column: str) -> str:
    """A new sequence begins behind the numbers that are there."""
    named = f"{_literal(table)}, {_literal(column[1:-1].replace(chr(34) * 2, chr(34)))}"
    number = f"setval(pg_get_serial_sequence({named}), max({column}))"
    return f"SELECT {number} FROM {table}"  # noqa: S608 - quoted


def _without_state(definition: str) -> tuple[str, str]:
    """A trigger or a rule, and whether it is switched off or fires in another way."""
    found = _STATE.search(definition)
    return (definition[: found.start()], found["state"]) if found else (definition, "")


def _all_options(options: str) -> str:
    """The options of a sequence, with those that are not named as they are by default."""
    defaults = [
        option
        for word, option in (
            ("MINVALUE", "NO MINVALUE"),
            ("MAXVALUE", "NO MAXVALUE"),
            ("CACHE", "CACHE 1"),
            ("CYCLE", "NO CYCLE"),
        )
        if word not in options.split()
    ]
    return " ".join([options, *defaults])


def _roles(listed: str) -> str:
    return ", ".join(_role(role) for role in listed.split(", "))


def _role(name: str) -> str:
    return name if name == "PUBLIC" else identifier(name)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _shortest(name: str) -> str:
    """A name as the server writes it where it quotes what it must."""
    is_plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    return name if is_plain else identifier(name)
