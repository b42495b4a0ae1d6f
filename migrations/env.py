"""What Alembic runs for every blueprint, by the stock command as by is-db-bootstrap.

Driven from code, `config.attributes` holds `connection`, `blueprint` and `schema`. Otherwise the
section's name (or its `blueprint` option) says which blueprint, and the address is taken from
is-db-bootstrap's own settings.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from logging.config import fileConfig
from typing import TYPE_CHECKING, Any

from alembic import context
from alembic.command import current, downgrade, stamp, upgrade
from alembic.util import CommandError
from sqlalchemy import text

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine.lineage import Standing
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.guests import GuestFailed, guest, strict_guest
from is_db_bootstrap.settings import Settings, ignored_version_tables
from is_db_bootstrap.stores.postgres import begun, diverged, elsewhere, lineage_table
from is_db_bootstrap.stores.postgres.alembic import (
    commit_record,
    engine,
    render_type,
    watch_of,
    watch_steps,
)
from is_db_bootstrap.stores.postgres.begun import Begun, Fate, Marks
from is_db_bootstrap.stores.postgres.connection import identifier, search_path
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.portable_watch import PortableWatch
from is_db_bootstrap.stores.postgres.revision_digests import squashed
from is_db_bootstrap.stores.postgres.revisions import TABLE, Chain, Record
from is_db_bootstrap.stores.postgres.search_path import Found, place_of_tables
from is_db_bootstrap.stores.postgres.session_roles import SessionRoles

if TYPE_CHECKING:
    import psycopg
    from alembic.runtime.migration import RevisionStep
    from sqlalchemy import Connection, MetaData

    from is_db_bootstrap.blueprint import Blueprint

config = context.config

TABLES_OF = """
    SELECT relname::text, relispartition FROM pg_class
    WHERE relnamespace = to_regnamespace(:schema) AND relkind IN ('r', 'p')
"""


@cache
def declared() -> Blueprint:
    """The blueprint whose revisions these are."""
    found: Blueprint | None = config.attributes.get("blueprint")
    if found is not None:
        return found
    name = config.get_main_option("blueprint") or config.config_ini_section
    return load_blueprint(name, may_have_no_files=True)


@cache
def declared_chain() -> Chain:
    """The revisions of the blueprint, which are read once per run."""
    if found := config.attributes.get("chain"):
        return found  # type: ignore[no-any-return]  # Alembic's attributes have no types
    return chain_of(declared())


def models(blueprint: Blueprint) -> MetaData | None:
    """The metadata of the blueprint's `models`, which `alembic check` compares with.

    None when it names no models, and when nothing is compared: steps are run without them. The
    metadata of a run that was given some is taken first.
    """
    given: MetaData | None = config.attributes.get("models")
    if given is not None:
        return given
    if not blueprint.models or not compares_models():
        return None
    try:
        with strict_guest():
            module = importlib.import_module(blueprint.models)
    except GuestFailed as exc:
        raise CommandError(f"The models {blueprint.models} cannot be imported: {exc}") from exc
    return metadata_of(module)


def compares_models() -> bool:
    """Whether Alembic was called to compare the models with the database."""
    if "schema" in config.attributes:
        return bool(config.attributes.get("compares_models"))
    called = getattr(config.cmd_opts, "cmd", (None,))[0]
    return called not in {upgrade, downgrade, stamp, current}


def metadata_of(module: Any) -> MetaData:
    """The module's `metadata`, or that of its `Base`; a `CommandError` when it has neither."""
    found: MetaData | None = getattr(module, "metadata", None)
    if found is None:
        found = getattr(getattr(module, "Base", None), "metadata", None)
    if found is None:
        raise CommandError(
            f"The models {module.__name__} have neither `metadata` nor `Base`: write metadata = "
            "….metadata there"
        )
    return found


def record_lineage(ctx: Any, step: Any, heads: Collection[str], **_: Any) -> None:
    """Write the blueprint and all applied revisions beside the version table (`lineage_table`).

    That is done within each step's transaction, unless a run of ours has written before its first
    step to what it leads. A step that has left its transaction is committed here: Alembic would
    commit one that is over, and lose the row.
    """
    config.attributes.get("applied", lambda _: None)(step)
    config.attributes["heads"] = set(heads)
    is_planned = config.attributes.get("is_lineage_planned", bool)
    if not is_planned():
        write_lineage(ctx, heads, step)
    if not ctx.as_sql:
        watch = config.attributes["watch"]
        if step.is_stamp:
            watch.stamped(ctx.connection.connection.driver_connection)
        commit_record(ctx, watch)


def write_lineage(ctx: Any, heads: Collection[str], step: Any) -> None:
    """Write the blueprint and the revisions that led to `heads`, in the open transaction.

    The digests of the files that this step records as applied are written too.
    """
    chain = declared_chain()
    lineage = chain.until(heads)
    known = [each for each in step.source_revision_ids if each in chain.parents]
    renewed = {*chain.until(step.destination_revision_ids)} - {*chain.until(known)}
    renewed |= config.attributes.get("squashed", set())
    digests = {each: chain.digests[each] for each in lineage if each in renewed}
    reader = config.attributes.get("reader")  # of the stock command
    if reader is not None and not ctx.as_sql:
        lineage_table.make(reader())
    ctx.execute(
        lineage_table.record_statement(
            ctx.version_table_schema or config.attributes["schema"],
            ctx.version_table,
            declared().name,
            lineage,
            digests,
        )
    )


def record_of(connection: Connection, reader: psycopg.Connection[Any], schema: str) -> Record:
    """What the schema records before anything is run."""
    place = identifier(schema, TABLE)
    comment = connection.scalar(
        text("SELECT obj_description(to_regclass(:place), 'pg_class')"), {"place": place}
    )
    heads = context.get_context().get_current_heads()
    return Record.of(heads, comment, lineage_table.find(reader, schema, TABLE))


def refuse_half_done(connection: Connection, reader: psycopg.Connection[Any], schema: str) -> None:
    """Refuse to run a revision after one that has committed a part and is not recorded."""
    record = record_of(connection, reader, schema)
    readable = reader.execute(begun.READABLE.encode()).fetchone()
    if readable and not readable[0]:
        raise begun.unreadable(reader)
    chain = declared_chain()
    for found in begun.marked(reader, schema, in_comment=record.begun, may_read=bool(readable)):
        if found.has_ended(record.revisions, chain):
            config.attributes["marks"].forget(found)  # after a next step it would not look ended
        else:
            refuse_unended(reader, found)


def refuse_unended(reader: psycopg.Connection[Any], found: Begun) -> None:
    """Refuse to run a revision unless the server knows that this step left nothing."""
    known = begun.fate(reader, found)
    if known is Fate.ROLLED_BACK:
        return
    said = begun.WHAT_IS_KNOWN.get(known, "is still at work")
    raise CommandError(
        f"The {found.direction} of revision {found.revision} {said} and did not end. It is not run "
        "again by itself. Look at what it did, then record the revision at which the schema is: "
        "`is-db-bootstrap migrate stamp`, which lifts the mark also where it is recorded already."
    )


def refuse_diverged(connection: Connection, reader: psycopg.Connection[Any], schema: str) -> None:
    """Refuse to go on from a schema that has gone another way than the revisions here.

    Alembic looks at the last revision only. It would pass over one that was put before that.
    """
    name = declared().name
    chain = declared_chain()
    record = record_of(connection, reader, schema)
    config.attributes["squashed"] = squashed(record, chain)
    found = record.as_lineage(chain).compare(chain.lineage)
    if found.standing is Standing.DIVERGED:
        raise CommandError(
            f"Schema {schema} {diverged.differences(record, found, chain, name)}. "
            f"{diverged.ways_out(record, found, chain)}"
        )


def refuse_recorded_elsewhere(reader: psycopg.Connection[Any], schema: str) -> None:
    """Refuse to run revisions that another version table of the database records.

    A run of is-db-bootstrap looks at more before it decides on a table with unknown revisions. That
    needs a second run of Alembic, which is not possible within this one. So such a table is told.
    """
    chain = declared_chain()
    done = chain.until(context.get_context().get_current_heads())
    pending = [revision for revision in chain.order if revision not in done]
    ignored = elsewhere.IgnoredTables(ignored_version_tables(), KIND.ignored_variable)
    found = elsewhere.find(
        reader, schema, declared().name, done=done, pending=pending, ignored=ignored
    )
    if found.ours:
        raise CommandError(
            f"{found.ours} records {', '.join(found.ours.revisions)}, which {schema}.{TABLE} does "
            "not. Nothing was changed: what has run would run a second time. "
            "`is-db-bootstrap plan` says how to go on from there."
        )
    for table in found.unknown:
        # No log record: Alembic's loggers drop what no ini file asks for.
        sys.stderr.write(
            f"{table} records {', '.join(table.revisions)}, which is not of {declared().name}. "
            "That is right for another application. `is-db-bootstrap plan` looks whether its "
            "tables are ours.\n"
        )


def recorded_revisions(reader: psycopg.Connection[Any], schema: str) -> set[str]:
    """What the version table says to a session that does not write it."""
    query = f"SELECT version_num FROM {identifier(schema, TABLE)}"  # noqa: S608 - quoted
    return {row[0] for row in reader.execute(query.encode()).fetchall()}


def read_back(settings: Settings, schema: str, heads: set[str]) -> None:
    """Read the version table from a session of its own.

    What is said to be done is recorded, or this is an error.
    """
    with sessions_of(settings).looking() as reader:
        recorded = recorded_revisions(reader, schema)
    if recorded != heads:
        raise CommandError(
            f"{TABLE} records {', '.join(sorted(recorded)) or 'nothing'} instead of "
            f"{', '.join(sorted(heads)) or 'nothing'}. Look at what the last revision did before "
            "anything is run again, then stamp what holds."
        )


def sessions_of(settings: Settings) -> SessionRoles:
    """The sessions of the stock command beside that of Alembic."""
    return SessionRoles(settings.need("postgres"), settings.named_schema, settings.timing)


def schema_of(settings: Settings) -> str:
    """The schema of a run of the stock command: that of DB_SCHEMA, or of the search path."""
    if settings.named_schema is not None or context.is_offline_mode():
        return settings.schema
    with sessions_of(settings).looking() as reader:
        return place_of_tables(reader, Found.by(reader), is_team=False)


@contextmanager
def marking(settings: Settings, schema: str) -> Iterator[Watch]:
    """The watch of the stock command, which marks its steps from a session of its own.

    The session is opened when it is first asked for: before the first step, or by a stamp.
    """
    timing = settings.timing
    chain = declared_chain()
    with ExitStack() as opened:

        @cache
        def session() -> psycopg.Connection[Any]:
            return opened.enter_context(sessions_of(settings).looking())

        def has_ended(found: Begun) -> bool:
            return found.has_ended(recorded_revisions(session(), schema), chain)

        config.attributes["reader"] = session
        place = identifier(schema, TABLE)
        marks = Marks(session, schema, place, has_ended, timing.lock_timeout_s)
        config.attributes["marks"] = marks
        yield Watch(marks)


def is_upgrade() -> bool:
    """Whether the stock command was called to upgrade."""
    return getattr(config.cmd_opts, "cmd", (None,))[0] is upgrade


@contextmanager
def connected(schema: str) -> Iterator[Connection]:
    """The connection that was handed over, or one of our own."""
    if given := config.attributes.get("connection"):
        yield given
        return
    settings = Settings.load(declared())
    with marking(settings, schema) as watch:
        url, path_schema = settings.need("postgres"), settings.named_schema
        found = engine(url, path_schema, settings.timing, watch=watch)
        with found.connect() as connection:
            if schema != "public" and is_upgrade():
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
                connection.commit()
            yield connection
        if "heads" in config.attributes:
            read_back(settings, schema, config.attributes["heads"])
            watch.forget()


def configure(schema: str, **options: Any) -> None:
    """What online and offline runs share."""
    place, table = config.attributes.get("place", (schema, TABLE))
    given: dict[str, Any] = {
        "target_metadata": models(declared()),
        "compare_server_default": True,
        "render_item": render_type,
    }
    of_team = config.attributes.get("options", {})
    context.configure(
        version_table=table,
        version_table_schema=place,
        transaction_per_migration=True,
        on_version_apply=record_lineage,  # type: ignore[arg-type]  # it is called with keywords
        type_told=config.attributes.get("type_told", lambda _: None),
        created_types=config.attributes.get("created_types", ()),
        **(given | options | of_team),
    )


def portable(connection: Connection) -> None:
    """Run on MariaDB or SQLite: no schemas, so no place of our own that records the lineage."""
    watch = PortableWatch(connection)

    def recorded(ctx: Any, step: Any, **_: Any) -> None:
        config.attributes.get("applied", lambda _: None)(step)
        watch.ended()
        commit_record(ctx, watch)

    context.configure(
        connection=connection,
        target_metadata=models(declared()),
        version_table=TABLE,
        transaction_per_migration=True,
        transactional_ddl=connection.dialect.name == "sqlite",
        compare_server_default=True,
        include_name=lambda name, kind, _: kind != "table" or name != TABLE,
        on_version_apply=recorded,  # type: ignore[arg-type]  # it is called with keywords
    )
    config.attributes["watch"] = watch
    watch_steps(context.get_context(), watch)
    with context.begin_transaction():
        context.run_migrations()


class Compared:
    """What autogenerate looks at: the blueprint's schema, and every schema that the models name.

    Nothing is asked of the server before autogenerate asks.
    """

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._tables: dict[str, set[str]] = {}
        metadata = models(declared())
        modelled = [] if metadata is None else [*metadata.tables.values()]
        #: Schema to tables as the models write them; None is the blueprint's own schema.
        self._modelled: dict[str | None, set[str]] = {None: set()}
        for table in modelled:
            self._modelled.setdefault(table.schema, set()).add(table.name)
        # A model may also name the blueprint's own schema.
        self._modelled[None] |= self._modelled.pop(schema, set())

    @property
    def has_other_schemas(self) -> bool:
        """Whether the models name a schema that is not the blueprint's own."""
        return len(self._modelled) > 1

    def include_name(self, name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        """Alembic's hook: whether an object of the database is compared with the models."""
        if kind == "schema":
            return name in self._modelled
        if kind != "table":
            return True
        return name != TABLE and name in self._tables_of(parents.get("schema_name"))

    def _tables_of(self, named: str | None) -> set[str]:
        """Tables of one schema. A partition is its parent's, unless the models declare it.

        A scratch database has nothing but what the revisions made. In a database of the stock
        command, a schema beside our own may hold tables of others, which are not proposed to be
        dropped.
        """
        schema = named or self._schema
        if schema not in self._tables:
            modelled = self._modelled[named]
            rows = self._connection.execute(text(TABLES_OF), {"schema": identifier(schema)})
            found = {name for name, is_partition in rows if not is_partition or name in modelled}
            may_hold_others = named is not None and "reader" in config.attributes
            self._tables[schema] = found & modelled if may_hold_others else found
        return self._tables[schema]


def online(schema: str) -> None:
    """Run with a connection."""
    with connected(schema) as connection:
        if connection.dialect.name != "postgresql":
            portable(connection)
            return
        compared = Compared(connection, schema)
        configure(
            schema,
            connection=connection,
            include_schemas=compared.has_other_schemas,
            include_name=compared.include_name,
        )
        reader = config.attributes.get("reader")  # of the stock command; else a plan has looked

        def before_all() -> None:
            if reader is not None and is_upgrade():
                refuse_diverged(connection, reader(), schema)

        def before_first(step: RevisionStep) -> None:
            if reader is None:
                return
            refuse_half_done(connection, reader(), schema)
            refuse_diverged(connection, reader(), schema)
            if step.is_upgrade:
                refuse_recorded_elsewhere(reader(), schema)

        config.attributes.setdefault("watch", watch_of(connection))
        if not config.attributes.get("is_followed"):
            watch_steps(context.get_context(), config.attributes["watch"], before_first, before_all)
        with context.begin_transaction():
            context.run_migrations(**config.attributes.get("arguments", {}))


def offline(schema: str) -> None:
    """Write SQL instead of running it; the schema is created and searched as our own runs do."""
    configure(
        schema,
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        output_buffer=config.output_buffer
        or config.stdout,  # `sys.stdout` is stderr while guests run
        starting_rev=config.attributes.get("after"),
    )
    if schema != "public":
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)}")
    own_place, _ = config.attributes.get("place", (None, TABLE))
    if own_place:
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(own_place)}")
    elif "place" not in config.attributes:  # else the search path is the team's
        context.execute(f"SET search_path TO {search_path(schema)}")
    context.execute(lineage_table.make_statement())
    with context.begin_transaction():
        context.run_migrations(**config.attributes.get("arguments", {}))


def main() -> None:
    """Set up logging for the stock command only: a caller's own logging is left alone."""
    if (
        "schema" not in config.attributes
        and config.cmd_opts is not None
        and config.config_file_name is not None
        and config.file_config.has_section("loggers")
    ):
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    run = offline if context.is_offline_mode() else online
    if "schema" in config.attributes:
        run(config.attributes["schema"])
        return
    try:
        with guest():
            run(schema_of(Settings.load(declared())))
    except (BootstrapError, DatabaseMissing, GuestFailed) as exc:
        raise CommandError(str(exc)) from exc  # which the stock command prints without a traceback


main()
