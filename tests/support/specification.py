"""What the page of a blueprint says of its tables, read from the migrated database in the page's
own words.
"""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from psycopg.types.json import Jsonb


@contextlib.contextmanager
def refused(connection, *states):
    """The block must be refused by the server with one of these SQLSTATEs; what came before stays."""
    with pytest.raises(psycopg.Error) as refusal, connection.transaction():
        yield refusal
    assert refusal.value.sqlstate in states, refusal.value


def insert(connection, table, returning="*", **columns):
    """Insert a row; the value of a single returned column, or the row as a dict."""
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join(["%s"] * len(columns))
    text = (
        f"INSERT INTO {table} ({names}) VALUES ({marks})"
        if columns
        else f"INSERT INTO {table} DEFAULT VALUES"
    )
    values = [Jsonb(v) if isinstance(v, dict) else v for v in columns.values()]
    cursor = connection.execute(f"{text} RETURNING {returning}", values)
    row = cursor.fetchone()
    return (
        row[0]
        if len(row) == 1
        else dict(zip([c.name for c in cursor.description], row, strict=True))
    )


def value(connection, query, *parameters):
    """The first column of the first row."""
    row = connection.execute(query, parameters or None).fetchone()
    return row[0] if row else None


def column(connection, query, *parameters):
    """The first column of every row."""
    return [row[0] for row in connection.execute(query, parameters or None)]


def plan_of(connection, query, *parameters):
    """The plan as text, with sequential scans disabled."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL enable_seqscan = off")
        return "\n".join(column(connection, f"EXPLAIN {query}", *parameters))
