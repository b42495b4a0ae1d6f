"""What a database remembers of the stores that were converged with it: rows in our schema.

There is one row for each deployment. A row is found by the blueprint and by the schema that carries
it, so that a database of many tenants does not read the rows of all. What a row says is one text,
the same as in the other stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from is_db_bootstrap.engine.memory import Memory
from is_db_bootstrap.engine.memory_text import BrokenMemory, NewerMemory, from_text, to_text
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA, literal
from is_db_bootstrap.wording import visible

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
#: The texts of the records, as an array.
TEXTS = f"""
    (SELECT array_agg(record ORDER BY key) FROM {PLACE}
     WHERE blueprint = %(blueprint)s AND schema_name = %(schema)s)
"""  # noqa: S608 - constants
NO_TEXTS = "NULL::text[]"
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
    row. `texts` are the records. Without `may_read`, they could not be seen.
    """

    system: str | None = None
    database: str = ""
    may_write: bool = True
    may_read: bool | None = None
    has_schema: bool = False
    role: str = ""
    has_record_table: bool = False
    texts: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What tells this database from others. Empty while there is none."""
        return f"{self.system or '?'}/{self.database}" if self.database else ""

    @property
    def unable(self) -> str:
        """Why this role can record nothing here. Empty when it can."""
        if self.may_write and self.may_read is not False:
            return ""
        remedy = own_schema.remedy(self.role, has_schema=self.has_schema)
        return (
            f"That the stores were converged together is not remembered here, because "
            f"{self.role} may not write to the schema {SCHEMA}: when a store is lost later, this "
            "database does not tell. Where the role is for apply, let an administrator run: "
            f"{remedy}"
        )


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one schema, and a remark on each that a newer version wrote."""

    memories: tuple[Memory, ...]
    remarks: tuple[str, ...]


def read(texts: Sequence[str], blueprint: str, schema: str) -> Records:
    """The records in these texts. Raises `StoreConflict` when one of them is broken."""
    where = f"blueprint = {literal(blueprint)} AND schema_name = {literal(schema)}"
    remedy = f"DELETE FROM {PLACE} WHERE {where};"  # noqa: S608 - quoted
    memories, newer = [], set()
    for text in texts:
        try:
            memories.append(from_text(text))
        except NewerMemory as exc:
            newer.add(exc.version)
        except BrokenMemory as exc:
            raise StoreConflict(
                NAME,
                f"A row of {PLACE} is no record of what was converged: {exc}. Nothing was changed.",
                hint=f"See who wrote it. Without it, the record is made anew: {remedy}",
                subject=PLACE,
            ) from exc
    remarks = [
        f"A record of what was converged was written by version {visible(version) or '?'} of "
        "is-db-bootstrap, which is newer. It is left alone and not believed."
        for version in sorted(newer)
    ]
    return Records(tuple(memories), tuple(remarks))


def texts_of(session: psycopg.Connection[Any], blueprint: str, schema: str) -> tuple[str, ...]:
    """The records of a schema. Raises what psycopg raises."""
    given = {"blueprint": blueprint, "schema": schema}
    row = session.execute(f"SELECT {TEXTS}".encode(), given).fetchone()
    return tuple(row[0] or ()) if row else ()


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
