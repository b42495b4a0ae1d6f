"""To which schema a session's search path leads, where DB_SCHEMA names none.

The path may come from the address (`options`), from PGOPTIONS, from the role or from the database.
All that needs no schema's name in a statement is found by it, such as the operators of an extension
that is in a schema of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.errors import AccessDenied, ConfigurationError
from is_db_bootstrap.stores.postgres.connection import (
    identifier,
    search_path,
    settings_query,
)
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.grant_statements import create_in_schema, use_schema
from is_db_bootstrap.stores.postgres.revisions import TABLE

#: A name in a search path, with quotation marks or without.
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^\s,"]+)')
#: The one schema that a new database has.
_USUAL_SCHEMA = "public"
_FIND = """
    SELECT current_schemas(false)::text[], current_setting('search_path'),
           EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = %s AND c.relname = %s
                     AND has_schema_privilege(n.oid, 'USAGE'))
"""
#: The first schema of a path that is there and that the role may not use.
_UNUSABLE = """
    SELECT n.nspname::text, current_user::text
    FROM unnest(%s::text[]) WITH ORDINALITY AS given(name, place) JOIN pg_namespace n
      ON n.nspname = CASE given.name WHEN '$user' THEN current_user::text ELSE given.name END
    WHERE NOT has_schema_privilege(n.oid, 'USAGE') ORDER BY given.place LIMIT 1
"""
_HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Found:
    """The search path of a session.

    `schemas` are those that are there and that its role may use, in their order. `written` is the
    path as it was set. `has_record` says that `public` has a version table of Alembic's usual name,
    and that the role may use `public`.
    """

    schemas: tuple[str, ...]
    written: str
    has_record: bool

    @classmethod
    def by(cls, session: psycopg.Connection[Any], *, is_new: bool = False) -> Found:
        """The path of a session; of `is_new`, what it would be in a new database."""
        row = session.execute(_FIND.encode(), [_USUAL_SCHEMA, TABLE]).fetchone()
        schemas, written, has_record = row or ([], "", False)
        if is_new:
            schemas, has_record = [each for each in schemas if each == _USUAL_SCHEMA], False
        return cls(tuple(schemas), written, has_record)

    @property
    def is_plain(self) -> bool:
        """Whether the session sees what one with our own search path would see."""
        return self.schemas in {(_USUAL_SCHEMA,), (*self.schemas[:1], _USUAL_SCHEMA)}


def place_of_tables(session: psycopg.Connection[Any], found: Found, *, is_team: bool) -> str:
    """The schema in which a statement that names none makes a table.

    An `env.py` of a team may make the schema itself, or set another path. So its path may lead
    nowhere yet.

    Raises `ConfigurationError` for a path that leads nowhere, or away from a record in `public` to
    a schema that has none, and `AccessDenied` for one that leads only where the role may not go.
    """
    if not found.schemas:
        if is_team:
            return _USUAL_SCHEMA
        _refuse_unusable(session, found)
        raise leads_nowhere(found)
    schema = found.schemas[0]
    if schema == _USUAL_SCHEMA or is_team or not found.has_record:
        return schema
    if _has_table(session, schema):
        return schema
    raise ConfigurationError(
        f"postgres: the search path {found.written} leads to schema {schema}, where nothing is "
        f"recorded, and {_USUAL_SCHEMA}.{TABLE} is there.",
        hint=f"Set DB_SCHEMA={_USUAL_SCHEMA} to go on there, or DB_SCHEMA={schema}.",
    )


def _refuse_unusable(session: psycopg.Connection[Any], found: Found) -> None:
    """Raise `AccessDenied` where the path names a schema that is there and may not be used."""
    row = session.execute(_UNUSABLE.encode(), [names_in(found.written)]).fetchone()
    if row is None:
        return
    schema, role = row
    raise AccessDenied(
        NAME,
        f"{role} may not use schema {schema}, to which the search path {found.written} leads.",
        hint=f"Let an administrator run: {create_in_schema(schema, role)} For a role that only "
        f"looks: {use_schema(schema, role)}",
        subject=schema,
    )


def leads_nowhere(found: Found) -> ConfigurationError:
    """What is said of a search path that names no schema that is there."""
    names = names_in(found.written)
    first = names[0] if names and names[0] else _USUAL_SCHEMA
    one_name = f" That is one name: {names[0]!r}." if len(names) == 1 and "," in names[0] else ""
    return ConfigurationError(
        f"postgres: the search path {found.written or 'of this session'} names no schema that "
        f"is there, so tables would have no place.{one_name}",
        hint="Correct the search path of the role, the database or the address."
        if one_name
        else f"Set DB_SCHEMA={first}, which is created then, or correct the search path.",
    )


def names_in(path: str) -> list[str]:
    """The names that a search path lists. A comma in quotation marks is part of a name."""
    return [
        quoted.replace('""', '"') if quoted else plain
        for quoted, plain in _NAME.findall(path)
        if quoted or plain
    ]


def _has_table(session: psycopg.Connection[Any], schema: str) -> bool:
    row = session.execute(_HAS_TABLE, [identifier(schema, TABLE)]).fetchone()
    return bool(row and row[0])


@contextmanager
def in_view_of(session: psycopg.Connection[Any], schema: str) -> Iterator[None]:
    """While inside, the search path is the one with which a catalogue is made.

    The server writes the names of what a path finds without their schema.
    """
    session.execute(*settings_query({"search_path": search_path(schema)}))
    try:
        yield
    finally:
        if not session.closed:
            session.execute(b"RESET search_path")
