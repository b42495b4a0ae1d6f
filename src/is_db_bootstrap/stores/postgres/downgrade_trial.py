"""What a downgrade does, seen in a scratch database: what goes, which tables' rows are touched, whether it stays in its transaction.

The scratch database is on the same server and is brought to the revisions that the target records. Nothing of the
target is read or locked for that. Statement triggers note every DELETE, UPDATE and TRUNCATE, since they fire for tables
without rows too. A statement that a revision runs once per row that it has read is not seen: the scratch database has
no rows but those that the revisions write themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from alembic import command
from sqlalchemy import event

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.alembic import config, engine, running_alembic
from is_db_bootstrap.stores.postgres.catalogue import PARTITION, live
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.revision_folder import revision_files
from is_db_bootstrap.stores.postgres.revisions import TABLE
from is_db_bootstrap.stores.postgres.scratch import at_revisions

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing

#: Schema and name.
Name = tuple[str, str]

#: Statements whose effect is on the whole server, so no scratch database keeps it away from others.
_SERVER_WIDE = re.compile(
    r"""
    \b(create|alter|drop)\s+(role|user|group|database|tablespace|subscription)\b
    | \balter\s+system\b
    | \b(reassign|drop)\s+owned\b
    | \b(grant|revoke)\s+(?:(?!\bon\b)[^;'"])+?\s(to|from)\s
    | \bpg_\w*(replication_slot|terminate_backend|cancel_backend|reload_conf)
    | \bdblink
    """,
    re.IGNORECASE | re.VERBOSE,
)

#: Where the triggers note what they see.
_NOTES = "is_db_bootstrap_trial"
_SCHEMAS = """
    SELECT oid::int8, nspname::text FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'is_db_bootstrap_trial')
"""
_RELATIONS = """
    SELECT c.oid::int8, c.relnamespace::int8, c.relname::text, c.relkind = ANY('{r,p}') FROM pg_class c
    WHERE c.relkind IN ('r', 'p', 'm')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
_COLUMNS = """
    SELECT a.attrelid::int8, a.attnum::int, a.attname::text, format_type(a.atttypid, a.atttypmod)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
_CREATE_NOTES = f"""
    CREATE SCHEMA {_NOTES};
    CREATE TABLE {_NOTES}.seen (relation oid, operation text);
    CREATE FUNCTION {_NOTES}.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {_NOTES}.seen VALUES (TG_RELID, TG_OP);
        RETURN NULL;
    END $$;
"""  # noqa: S608 - a constant
_READ_NOTES = f"SELECT DISTINCT relation::int8, operation FROM {_NOTES}.seen"  # noqa: S608 - a constant
#: Kinds of the catalogue that are told by themselves, or go with what is told.
_UNTOLD = {"table", "column", PARTITION}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a downgrade did in the scratch database. Names are those before it.

    `columns` and `retyped` are of tables that stay: names, and for `retyped` the old and the new type. `touched` maps a
    table to the statements that were run on its rows. `objects` are other things that go, such as `index a.b`.
    `left` are the revisions whose downgrade left its transaction.
    """

    tables: tuple[Name, ...]
    columns: tuple[tuple[Name, str], ...]
    retyped: tuple[tuple[Name, str, str], ...]
    touched: Mapping[Name, tuple[str, ...]]
    schemas: tuple[str, ...]
    objects: tuple[str, ...]
    left: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    """The catalogue at one moment; identities are those of the server."""

    schemas: Mapping[int, str]
    tables: Mapping[int, Name]
    columns: Mapping[tuple[int, int], tuple[str, str]]
    objects: frozenset[str]
    #: Tables that a trigger can watch: no materialized views.
    watchable: tuple[Name, ...] = ()


def tried(
    url: StoreUrl,
    blueprint: Blueprint,
    schema: str,
    timing: Timing,
    *,
    done: Sequence[str],
    to: str,
) -> Seen:
    """Bring a scratch database on the server of `url` to the revisions `done`, downgrade it to `to`, and look.

    Raises what a run raises: `AccessDenied` when no database may be created, `ChangeFailed` for a revision that fails there.
    Raises `ConfigurationError`, before anything is run, when a revision names a statement that acts on the whole server.
    """
    _refuse_server_wide(blueprint)
    with at_revisions(url, blueprint, done, timing, schema) as scratch:
        found = engine(scratch, schema, timing)
        try:
            with found.connect() as connection:
                session = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
                before = _look(session, schema)
                _watch(session, before)
                session.commit()
                left = _downgraded(connection, blueprint, schema, to)
                session.rollback()
                after = _look(session, schema)
                seen = session.execute(_READ_NOTES.encode()).fetchall()
                session.rollback()
        finally:
            found.dispose()
    return _compared(before, after, seen, left)


def _look(session: psycopg.Connection[Any], schema: str) -> _Look:
    schemas = dict(session.execute(_SCHEMAS.encode()).fetchall())
    rows = [
        (oid, (schemas[namespace], name), is_table)
        for oid, namespace, name, is_table in session.execute(_RELATIONS.encode()).fetchall()
        if namespace in schemas and (schemas[namespace], name) != (schema, TABLE)
    ]
    tables = {oid: name for oid, name, _ in rows}
    columns = {
        (oid, number): (name, kind)
        for oid, number, name, kind in session.execute(_COLUMNS.encode()).fetchall()
        if oid in tables
    }
    objects = {
        f"{kind} {name if kind == 'extension' or space == schema else f'{space}.{name}'}"
        for space in schemas.values()
        for kind, found in live(session, space).items()
        if kind not in _UNTOLD
        for name in found
    }
    return _Look(
        schemas,
        tables,
        columns,
        frozenset(objects),
        tuple(name for _, name, is_table in rows if is_table),
    )


def _refuse_server_wide(blueprint: Blueprint) -> None:
    """Run no revision in a trial whose text has a statement on roles, databases or the server itself.

    The upgrades are looked at too, because the scratch database is brought to a revision by them.
    """
    for path in revision_files(blueprint.migrations) if blueprint.migrations else ():
        text = path.read_bytes().decode(errors="replace")
        found = _SERVER_WIDE.search(text)
        if found:
            statement = " ".join(found[0].split())
            raise ConfigurationError(
                f"{path.name} has {statement!r}, which acts on the whole server and not on one database"
            )


def _watch(session: psycopg.Connection[Any], look: _Look) -> None:
    session.execute(_CREATE_NOTES.encode())
    for name in look.watchable:
        table = identifier(*name)
        session.execute(
            f"CREATE TRIGGER {_NOTES} AFTER DELETE OR UPDATE OR TRUNCATE ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {_NOTES}.note()".encode()
        )
        session.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {_NOTES}".encode())


def _downgraded(
    connection: Connection, blueprint: Blueprint, schema: str, to: str
) -> tuple[str, ...]:
    """Run the downgrade; the revisions whose step did not end in the transaction that it began in."""
    began: list[int] = []
    left: list[str] = []

    @event.listens_for(connection, "begin")
    def note_begin(begun: Connection) -> None:
        began.append(_transaction(begun))

    def stepped(step: Any) -> None:
        if began != [_transaction(connection)]:
            left.append(step.up_revision_id)
        began.clear()

    with running_alembic():
        wanted = config(blueprint, schema, connection)
        wanted.attributes["applied"] = stepped
        command.downgrade(wanted, to)
    return tuple(left)


def _transaction(connection: Connection) -> int:
    """The number of the running transaction. It is asked of the driver, so that a COMMIT sent as text shows as well."""
    session = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
    row = session.execute("SELECT txid_current()").fetchone()
    return int(row[0]) if row else 0


def _compared(
    before: _Look, after: _Look, seen: Sequence[tuple[int, str]], left: tuple[str, ...]
) -> Seen:
    gone = {oid for oid in before.tables if oid not in after.tables}
    columns, retyped = [], []
    for (oid, number), (name, kind) in before.columns.items():
        now = after.columns.get((oid, number))
        if oid in gone:
            continue
        if now is None:
            columns.append((before.tables[oid], name))
        elif now[1] != kind:
            retyped.append((before.tables[oid], name, f"{kind} to {now[1]}"))
    touched: dict[Name, tuple[str, ...]] = {}
    for oid, operation in sorted(seen):
        if oid in before.tables and oid not in gone:
            name_ = before.tables[oid]
            touched[name_] = (*touched.get(name_, ()), operation)
    tables = [before.tables[oid] for oid in gone]
    told = {f"{space}.{name}" for space, name in tables} | {name for _, name in tables}
    objects = [each for each in before.objects - after.objects if not _is_part(each, told)]
    return Seen(
        tuple(sorted(tables)), tuple(sorted(columns)), tuple(sorted(retyped)), touched,
        tuple(sorted(name for oid, name in before.schemas.items() if oid not in after.schemas)), tuple(sorted(objects)), left,
    )  # fmt: skip


def _is_part(found: str, tables: set[str]) -> bool:
    """Whether an object such as `index orders.by_total` belongs to one of the tables, and so goes with it."""
    name = found.partition(" ")[2]
    return any(name.startswith(f"{table}.") for table in tables)
