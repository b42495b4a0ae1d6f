"""Demo rows: inserted when a row with their key is missing, else left as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from is_db_bootstrap.blueprint import SeedReference
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.postgres.errors import errors

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import SeedRow


class DemoRows:
    """The declared `rows`. Each is inserted only where it is missing.

    `target` is how messages call the server.
    """

    def __init__(self, rows: Sequence[SeedRow], target: str) -> None:
        self._rows = rows
        self._target = target

    def all(self) -> Iterator[Change]:
        """A step for each row."""
        return (_change_of(row) for row in self._rows)

    def missing(self, reader: psycopg.Connection[Any]) -> Iterator[Change]:
        """A step for each row that is missing. A missing table is drift, which `verify` tells."""
        with errors(self._target, "demo rows"):
            try:
                lacking = missing(reader, self._rows)
            except psycopg.errors.UndefinedTable:
                return
        yield from (_change_of(row) for row in lacking)

    def is_missing(self, session: psycopg.Connection[Any], name: str) -> bool:
        """Whether the row of this name is missing, maybe with its table."""
        try:
            return bool(missing(session, self._named(name)))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return True

    def statements(self, name: str) -> tuple[str, ...]:
        """What inserts the row of this name."""
        return tuple(f"{insert_text(row)};" for row in self._named(name))

    def insert(self, reader: psycopg.Connection[Any], name: str) -> None:
        """Insert the row of this name unless it is there."""
        insert(reader, self._named(name)[0])

    def _named(self, name: str) -> list[SeedRow]:
        return [row for row in self._rows if row_name(row) == name]


def _change_of(row: SeedRow) -> Change:
    return Change(row_name(row), "seed", nature=Nature.REPEATABLE)


def row_name(row: SeedRow) -> str:
    """The table and the key, such as `conversation_rounds id=…`."""
    return f"{row.table} {_key_text(row.key)}"


def _key_text(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={value}" for column, value in key.items())


def missing(connection: psycopg.Connection[Any], rows: Sequence[SeedRow]) -> list[SeedRow]:
    """Those of `rows` of which neither the key nor the unique columns are there.

    All are asked for in one round trip.
    """
    if not rows:
        return []
    query = sql.SQL("SELECT ") + sql.SQL(", ").join(_exists(row) for row in rows)
    given = [
        v for row in rows for identity in _identities(row) for v in _adapted(identity.values())
    ]
    found = connection.execute(query, given).fetchone() or ()
    return [row for row, there in zip(rows, found, strict=True) if not there]


def _identities(row: SeedRow) -> list[Mapping[str, Any]]:
    unique = {column: row.values[column] for column in row.unique}
    return [row.key, unique] if unique else [row.key]


def _exists(row: SeedRow) -> sql.Composed:
    each = (
        sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(c), _placeholder(v))
            for c, v in identity.items()
        )
        for identity in _identities(row)
    )
    return sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(
        sql.Identifier(row.table), sql.SQL(" OR ").join(each)
    )


def insert(connection: psycopg.Connection[Any], row: SeedRow) -> None:
    """Insert the row unless it is there."""
    if not missing(connection, [row]):
        return
    values = {**row.key, **row.values}
    connection.execute(_insertion(row, _placeholder), _adapted(values.values()))


def insert_text(row: SeedRow) -> str:
    """What inserts the row, with its values as literals."""
    return _insertion(row, _literal).as_string()


def _insertion(row: SeedRow, written: Callable[[Any], sql.Composable]) -> sql.Composed:
    """What inserts the row. `written` says how a value stands there."""
    values = {**row.key, **row.values}
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(row.table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(map(written, values.values())),
    )


def _placeholder(value: Any) -> sql.Composable:
    if not isinstance(value, SeedReference):
        return sql.Placeholder()
    return _referred(value, _placeholder)


def _literal(value: Any) -> sql.Composable:
    if isinstance(value, SeedReference):
        return _referred(value, _literal)
    return sql.Literal(Jsonb(value) if isinstance(value, dict) else value)


def _referred(value: SeedReference, written: Callable[[Any], sql.Composable]) -> sql.Composed:
    """The query for the value to which a reference leads."""
    conditions = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(c), written(v)) for c, v in value.key.items()
    )
    return sql.SQL("(SELECT {} FROM {} WHERE {})").format(
        sql.Identifier(value.column), sql.Identifier(value.table), conditions
    )


def _adapted(values: Iterable[Any]) -> list[Any]:
    """What psycopg is to send, a reference as the values of its key."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, SeedReference):
            found += _adapted(value.key.values())
        else:
            found.append(Jsonb(value) if isinstance(value, dict) else value)
    return found
