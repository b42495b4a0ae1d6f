"""Demo rows: inserted when a row with their key is missing, else left as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg import sql
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.blueprint import SeedRow


def row_name(row: SeedRow) -> str:
    """The table and the key, such as `conversation_rounds id=…`."""
    return f"{row.table} {_key_text(row.key)}"


def _key_text(key: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={value}" for column, value in key.items())


def missing(connection: psycopg.Connection[Any], rows: Sequence[SeedRow]) -> list[SeedRow]:
    """Those of `rows` whose key is not there, asked in one round trip."""
    if not rows:
        return []
    query = sql.SQL("SELECT ") + sql.SQL(", ").join(_exists(row) for row in rows)
    found = connection.execute(query, [v for row in rows for v in _adapted(row.key)]).fetchone() or ()
    return [row for row, there in zip(rows, found, strict=True) if not there]


def _exists(row: SeedRow) -> sql.Composed:
    conditions = sql.SQL(" AND ").join(sql.SQL("{} = {}").format(sql.Identifier(c), sql.Placeholder()) for c in row.key)
    return sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(sql.Identifier(row.table), conditions)


def insert(connection: psycopg.Connection[Any], row: SeedRow) -> None:
    """Insert the row unless its key is there."""
    if not missing(connection, [row]):
        return
    values = {**row.key, **row.values}
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(row.table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join([sql.Placeholder()] * len(values)),
    )
    connection.execute(query, _adapted(values))


def _adapted(values: Mapping[str, Any]) -> list[Any]:
    return [Jsonb(v) if isinstance(v, dict | list) else v for v in values.values()]
