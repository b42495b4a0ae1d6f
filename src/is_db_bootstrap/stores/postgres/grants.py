"""The privileges that a role of a PostgreSQL needs, as statements of SQL.

What a revision needs besides is read from its text, and no revision is run for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from is_db_bootstrap.grant_list import Grant, GrantWish, RoleGrants
from is_db_bootstrap.stores.postgres import grant_statements as statements
from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.connection import MAINTENANCE, connect_statement, identifier
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.server_wide import server_wide, statements_in
from is_db_bootstrap.stores.postgres.sql_of_python import sql_of_python

#: Every database has this schema, and extensions usually are there.
_USUAL_SCHEMA = "public"
_SUFFIXES = {".py", ".sql"}
_EXTENSION = re.compile(
    r"""\bCREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?["']?(?P<name>[A-Za-z_][\w-]*)""",
    re.IGNORECASE,
)
#: What needs CREATE on the database: schemas, and publications.
_OF_DATABASE = re.compile(
    r"\bCREATE\s+(?P<what>SCHEMA|PUBLICATION)\s+(?:IF\s+NOT\s+EXISTS\s+)?", re.IGNORECASE
)
#: What a superuser alone may make, or a role of few.
_OF_SUPERUSERS = re.compile(
    r"\bCREATE\s+(?:OR\s+REPLACE\s+)?(?P<what>EVENT\s+TRIGGER|(?:TRUSTED\s+)?LANGUAGE|CAST|"
    r"FOREIGN\s+DATA\s+WRAPPER|SUBSCRIPTION|TABLESPACE)\s",
    re.IGNORECASE,
)
_NO_RECORDS = (
    "what is recorded of a revision stands in the comment of the version table, and the memory of "
    "the other stores is not kept"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a blueprint works, and by what.

    `is_named` says that the schema was named, and is not the one to which the search path leads.
    `record_schema` and `record_table` are where its version table is. `revisions` is the folder of
    its revisions.
    """

    database: str
    schema: str
    is_named: bool
    record_schema: str
    record_table: str
    revisions: Path | None

    @property
    def version_table(self) -> str:
        """The quoted name of the version table."""
        return identifier(self.record_schema, self.record_table)

    @property
    def schemas(self) -> list[str]:
        """The schemas of the tables and of the version table."""
        return list(dict.fromkeys((self.schema, self.record_schema)))


def role_grants(place: Place, wish: GrantWish) -> RoleGrants:
    """The privileges of one role in one database."""
    role = wish.role
    made = Grant(f"CREATE ROLE {identifier(role)} LOGIN;", "the role itself")
    rest = _making_database(place, role) if wish.creates_database else _in_database(place, wish)
    return RoleGrants(
        KIND.name,
        role,
        tuple(sorted(wish.purposes)),
        client="psql",
        comment="--",
        grants=(made, *rest),
        first=tuple(_first(place, wish)),
        notes=tuple(_notes(place, wish)),
    )


def _making_database(place: Place, role: str) -> Iterator[Grant]:
    """What a role needs that makes the database, to whose owner everything in it is allowed."""
    yield Grant(statements.let_create_database(role), f"to create the database {place.database}")
    yield Grant(connect_statement(MAINTENANCE, role), "to create it from there")


def _in_database(place: Place, wish: GrantWish) -> Iterator[Grant]:
    role = wish.role
    yield Grant(connect_statement(place.database, role), "to log in")
    yield Grant(f"\\connect {identifier(place.database)}", "what follows is of this database")
    if wish.applies:
        yield from _changing(place, role)
    else:
        yield from _looking(place, role)


def _changing(place: Place, role: str) -> Iterator[Grant]:
    for schema in place.schemas:
        if schema != _USUAL_SCHEMA:
            yield Grant(statements.own_schema_of(schema, role), "the schema of the tables")
        yield Grant(
            statements.create_in_schema(schema, role), "to make tables, and the version table"
        )
    yield Grant(
        statements.own_schema_of(own_schema.SCHEMA, role),
        "the schema of the records of this tool",
        without=_NO_RECORDS,
    )
    for name, file in _extensions(place.revisions).items():
        yield Grant(statements.create_extension(name), f"the extension that {file} names")
    if needing := next(iter(_needing(place.revisions, _OF_DATABASE).items()), None):
        what, file = needing
        reason = f"CREATE {what} in {file}"
        yield Grant(statements.create_in_database(place.database, role), reason)


def _looking(place: Place, role: str) -> Iterator[Grant]:
    for schema in place.schemas:
        not_yet = "" if schema == _USUAL_SCHEMA else "the schema"
        yield Grant(statements.use_schema(schema, role), "to see the tables", not_yet=not_yet)
    yield Grant(
        statements.read_table(place.version_table, role),
        "to read which revisions were applied",
        not_yet="the version table, which the first apply makes",
    )


def _first(place: Place, wish: GrantWish) -> Iterator[str]:
    if not wish.creates_database:
        yield (
            "Where the database is missing, first: CREATE DATABASE "
            f"{identifier(place.database)} TEMPLATE template0 ENCODING 'UTF8';"
        )


def _notes(place: Place, wish: GrantWish) -> Iterator[str]:
    user = identifier(wish.role)
    yield f"Give the role a password of yours: \\password {user}"
    if wish.creates_database:
        yield f"The role then owns the database {place.database}, and may do everything in it."
        return
    if not place.is_named:
        yield (
            f"The schema {place.schema} is taken, because DB_SCHEMA names none. Where the search "
            "path of the role leads elsewhere, set DB_SCHEMA and print this again."
        )
    if wish.applies:
        yield from _notes_on_changing(place, wish.role)
        return
    yield (
        "Only a member of pg_read_all_stats sees since when, and from where, another role holds "
        "the lock (status)."
    )


def _notes_on_changing(place: Place, role: str) -> Iterator[str]:
    yield (
        f"Where {own_schema.SCHEMA} belongs to another role: "
        f"{own_schema.remedy(role, has_schema=True)}"
    )
    yield (
        "A table that a revision alters must belong to the role, or to a role of which it is a "
        f"member. For one that another role has made: {statements.own_table('NAME', role)}"
    )
    write = statements.write_records(place.version_table, role)
    yield f"A version table that another role has made: {write}"
    for what, file in _needing(place.revisions, _OF_SUPERUSERS).items():
        yield f"{file} has CREATE {what}, which a superuser may do. Let an administrator do it."
    for file, text in _texts(place.revisions):
        if found := server_wide(text):
            yield (
                f"{file} has {found}, which acts on the whole server. Let an administrator do it."
            )


def _extensions(folder: Path | None) -> dict[str, str]:
    """The extensions that revisions make, each with the first file that does."""
    found: dict[str, str] = {}
    for file, text in _texts(folder):
        for match in _begun_with(_EXTENSION, text):
            found.setdefault(match["name"], file)
    return found


def _needing(folder: Path | None, pattern: re.Pattern[str]) -> dict[str, str]:
    """The kinds of objects that revisions make, each with the first file that does."""
    found: dict[str, str] = {}
    for file, text in _texts(folder):
        for match in _begun_with(pattern, text):
            if match.string.startswith(own_schema.SCHEMA, match.end()):
                continue  # what `migrate sql` has printed
            found.setdefault(" ".join(match["what"].upper().split()), file)
    return found


def _begun_with(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Where a pattern stands at the beginning of a statement, or anywhere in a block."""
    for statement, is_block in statements_in(text):
        if is_block:
            yield from pattern.finditer(statement)
        elif found := pattern.match(statement):
            yield found


def _texts(folder: Path | None) -> Iterator[tuple[str, str]]:
    """Name and SQL of each file of a folder of revisions, in the order of the names."""
    if folder is None or not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for each in sql_of_python(text) if path.suffix == ".py" else [text]:
            yield path.name, each
