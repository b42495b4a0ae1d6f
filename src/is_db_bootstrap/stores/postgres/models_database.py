"""A scratch database that has what the models make by themselves, as `metadata.create_all` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.stores.postgres.alembic import engine
from is_db_bootstrap.stores.postgres.catalogue import live_with_others
from is_db_bootstrap.stores.postgres.connection import connect, identifier, session_settings
from is_db_bootstrap.stores.postgres.definitions import Definitions
from is_db_bootstrap.stores.postgres.differences import Side
from is_db_bootstrap.stores.postgres.named_types import named_type, place_of
from is_db_bootstrap.stores.postgres.scratch import new_database
from is_db_bootstrap.stores.postgres.scratch_path import path_schema_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.models import Models

#: Runs a function on a connection to a scratch database.
RunOn = Callable[["StoreUrl", Callable[["Connection"], None]], None]
#: What the models are written for: extensions and schemas that the revisions make.
_GROUND = """
    SELECT format('CREATE SCHEMA IF NOT EXISTS %I', nspname) FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I CASCADE', extname, nspname)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname <> 'plpgsql'
"""


@dataclass(frozen=True, slots=True)
class ModelsUnmade:
    """The models make no database by themselves, and why."""

    reason: str


def models_made(
    metadata: Models, timing: Timing, revisions: StoreUrl, run_on: RunOn | None = None
) -> Side | ModelsUnmade:
    """What the models make, in a scratch database on the server of `revisions`.

    That is an empty one with the schemas and the extensions of the database `revisions`. Models
    that need more, such as a function that a revision makes, are made over a copy of it. Nobody may
    be connected to `revisions` meanwhile. `run_on` makes them, by another driver than psycopg.
    """
    run_on = run_on or _run_on_psycopg(timing)
    first = _made_in_empty(metadata, timing, revisions, run_on)
    if isinstance(first, Side):
        return first
    return _made_over_revisions(metadata, timing, revisions, run_on)


def _run_on_psycopg(timing: Timing) -> RunOn:
    def run(scratch: StoreUrl, act: Callable[[Connection], None]) -> None:
        found = engine(scratch, path_schema_of(scratch), timing)
        try:
            with found.begin() as connection:
                act(connection)
        finally:
            found.dispose()

    return run


def read_side(url: StoreUrl, timing: Timing) -> Side:
    """Catalogues and statements of every schema of a scratch database."""
    settings = session_settings("public")
    with connect(url, timing.connect_timeout_s, settings=settings) as connection:
        own, others = live_with_others(connection, "public")
        objects = {"public": own, **others}
        definitions = {schema: Definitions.read(connection, schema) for schema in objects}
        return Side(objects, definitions)


def _made_in_empty(
    metadata: Models, timing: Timing, revisions: StoreUrl, run_on: RunOn
) -> Side | ModelsUnmade:
    settings = session_settings("public")
    with new_database(revisions, timing) as scratch:
        with connect(revisions, timing.connect_timeout_s, settings=settings) as reader:
            ground = [row[0] for row in reader.execute(_GROUND.encode()).fetchall()]
        with connect(scratch, timing.connect_timeout_s, settings=settings) as writer:
            for statement in [*ground, *_schemas(metadata)]:
                writer.execute(statement.encode())
        return _made(metadata, timing, scratch, run_on)


def _made_over_revisions(
    metadata: Models, timing: Timing, revisions: StoreUrl, run_on: RunOn
) -> Side | ModelsUnmade:
    """Drop what the models declare from a copy of what the revisions made, and make that anew."""
    settings = session_settings("public")
    with new_database(revisions, timing, template=revisions) as scratch:
        with connect(scratch, timing.connect_timeout_s, settings=settings) as writer:
            for statement in [*_schemas(metadata), *_drops(metadata)]:
                writer.execute(statement.encode())
        return _made(metadata, timing, scratch, run_on)


def _schemas(metadata: Models) -> Iterator[str]:
    for schema in sorted({table.schema for table in metadata.tables.values() if table.schema}):
        yield f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}"


def _drops(metadata: Models) -> Iterator[str]:
    for table in metadata.tables.values():
        place = [table.schema, table.name] if table.schema else [table.name]
        yield f"DROP TABLE IF EXISTS {identifier(*place)} CASCADE"
    types = [column.type for table in metadata.tables.values() for column in table.columns]
    for named in map(named_type, types):
        if named is not None and getattr(named, "create_type", True):
            yield f"DROP TYPE IF EXISTS {place_of(named)} CASCADE"


def _made(
    metadata: Models, timing: Timing, scratch: StoreUrl, run_on: RunOn
) -> Side | ModelsUnmade:
    try:
        with strict_guest():
            run_on(scratch, metadata.create_all)
    except GuestFailed as exc:
        return ModelsUnmade(_first_line(exc.__cause__))
    return read_side(scratch, timing)


def _first_line(exc: BaseException | None) -> str:
    cause: Any = getattr(exc, "orig", None) or exc
    return str(cause).partition("\n")[0]
