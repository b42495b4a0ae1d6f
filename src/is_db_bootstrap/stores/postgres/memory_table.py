"""What a database remembers of the stores that were converged with it: rows in our schema.

There is one row for each deployment. A row is found by the blueprint and by the schema that carries
it, so that a database of many tenants does not read the rows of all. What a row says is one text,
the same as in the other stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.engine.memory import UNSEEN, Memory
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA, literal
from is_db_bootstrap.stores.recalled import Kept, Recalled, read_kept
from is_db_bootstrap.wording import visible

#: Key and text of a record.
Row = tuple[str, str]

TABLE = "memory"
PLACE = f"{SCHEMA}.{TABLE}"
#: Whether we may read every row. No row: there is no such table.
READABLE = own_schema.readable(TABLE)
_CREATE = (
    f"""
    CREATE TABLE IF NOT EXISTS {PLACE} (
        key text PRIMARY KEY,
        blueprint text NOT NULL,
        schema_name text NOT NULL,
        record text NOT NULL
    )
""",
    f"""
    COMMENT ON TABLE {PLACE} IS
    'is-db-bootstrap: which stores were converged together, and when'
""",
)
#: Key and text of each record, as an array of pairs.
ROWS = f"""
    (SELECT array_agg(ARRAY[key, record] ORDER BY key) FROM {PLACE}
     WHERE blueprint = %(blueprint)s AND schema_name = %(schema)s)
"""  # noqa: S608 - constants
NO_ROWS = "NULL::text[]"
_WRITE = f"""
    INSERT INTO {PLACE} (key, blueprint, schema_name, record)
    VALUES (%(key)s, %(blueprint)s, %(schema)s, %(record)s)
    ON CONFLICT (key) DO UPDATE
    SET blueprint = excluded.blueprint, schema_name = excluded.schema_name,
        record = excluded.record
"""  # noqa: S608 - constants
#: Whether this role may write the table, or make it; whether our schema is there; who we are; and
#: the number of the database, which a copy of it does not share.
RIGHTS = f"""
    coalesce(({own_schema.rights(TABLE)}),
             (SELECT CASE WHEN n.oid IS NULL
                          THEN has_database_privilege(current_database(), 'CREATE')
                          ELSE has_schema_privilege(n.oid, 'CREATE') END
              FROM (SELECT 1) AS always LEFT JOIN pg_namespace n ON n.nspname = '{SCHEMA}')),
    EXISTS (SELECT FROM pg_namespace WHERE nspname = '{SCHEMA}'),
    current_user::text,
    (SELECT oid::text FROM pg_database WHERE datname = current_database())
"""  # noqa: S608 - constants
#: What tells the server from others. Not every role and not every server lets us ask.
SYSTEM = "(SELECT system_identifier::text FROM pg_control_system())"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the records has seen of a database and of its memory.

    `has_record_table` says whether the version table is there, where `recorded` says that it has a
    row. `rows` are key and text of each record. Without `may_read`, they could not be seen.
    """

    system: str | None = None
    database: str = ""
    may_write: bool = True
    may_read: bool | None = None
    has_schema: bool = False
    role: str = ""
    has_record_table: bool = False
    rows: tuple[Row, ...] = ()

    @property
    def identity(self) -> str:
        """What tells this database from others. Empty while there is none.

        A server that does not say which one it is stands as `UNSEEN` in it.
        """
        return f"{self.system or UNSEEN}/{self.database}" if self.database else ""

    @property
    def remarks(self) -> Iterator[str]:
        """What could not be seen of the identity."""
        if self.database and self.system is None:
            yield (
                f"Which server this is could not be seen, because {self.role} may not call "
                "pg_control_system(). So a copy on another server is not told from this database "
                "where the number of the database is the same. Let an administrator run: "
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() "
                f"TO {identifier(self.role)};"
            )

    @property
    def unable(self) -> str:
        """Why this role can record nothing here. Empty when it can."""
        is_able = self.may_write and self.may_read is not False
        return "" if is_able else self.refusal

    @property
    def refusal(self) -> str:
        """What a role is told that may not write the records, or not even read them."""
        remedy = own_schema.remedy(self.role, has_schema=self.has_schema)
        if self.may_read is False:
            return (
                f"{self.role} may not read the records in the schema {SCHEMA}, so what was "
                "converged together with this database is not seen, and nothing is recorded here. "
                f"Let an administrator run: {remedy}"
            )
        return (
            f"What this run finds is not remembered here, because {self.role} may not write to "
            f"the schema {SCHEMA}: when a store is lost later, this database tells no more than "
            "was recorded before. Where the role is for apply, let an administrator run: "
            f"{remedy}"
        )


def read(rows: Sequence[Row], blueprint: str) -> Recalled:
    """The records in these rows. Raises `StoreConflict` when one of them is broken."""
    return read_kept(NAME, blueprint, (_kept(key, text) for key, text in rows))


def _kept(key: str, text: str) -> Kept:
    removal = f"DELETE FROM {PLACE} WHERE key = {literal(key)};"  # noqa: S608 - quoted
    return Kept(text, f"row {visible(key)} of {PLACE}", removal, key=key, subject=PLACE)


def rows_of(session: psycopg.Connection[Any], blueprint: str, schema: str) -> tuple[Row, ...]:
    """Key and text of each record of a schema. Raises what psycopg raises."""
    given = {"blueprint": blueprint, "schema": schema}
    row = session.execute(f"SELECT {ROWS}".encode(), given).fetchone()
    return as_rows(row[0] if row else None)


def as_rows(found: Sequence[Sequence[str]] | None) -> tuple[Row, ...]:
    """The rows in what `ROWS` selects."""
    return tuple((key, text) for key, text in found or ())


def write(session: psycopg.Connection[Any], memory: Memory, schema: str) -> bool:
    """Write the record of a schema, and the table if it is missing. Whether this role may.

    The session is in autocommit mode. Raises what psycopg raises.
    """
    if not own_schema.make(session, TABLE, _CREATE):
        return False
    session.execute(
        _WRITE.encode(),
        {
            "key": memory.key,
            "blueprint": memory.blueprint,
            "schema": schema,
            "record": to_text(memory),
        },
    )
    return True
