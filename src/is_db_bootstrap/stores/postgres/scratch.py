"""A scratch database brought to head, the `catalogue.json` generated from it, and `schema.sql`.

The command `is-db-bootstrap revision --refresh` writes both files again after a revision was added
or changed. The server may be of any version from 14 to 18, and its other databases are left alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap import files
from is_db_bootstrap.errors import AccessDenied, ChangeFailed, ConfigurationError
from is_db_bootstrap.settings import StoreUrl, Timing, address_elsewhere
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME, Catalogue
from is_db_bootstrap.stores.postgres.connection import (
    MAINTENANCE,
    SCRATCH,
    connect,
    identifier,
    session_settings,
)
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of, folder_of
from is_db_bootstrap.stores.postgres.errors import NAME, errors
from is_db_bootstrap.stores.postgres.half_done import WorkingCursor, text_of
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.scratch_path import path_schema_of, with_path_of
from is_db_bootstrap.stores.postgres.scratch_record import note_scratch
from is_db_bootstrap.stores.postgres.server_wide import refuse_server_wide
from is_db_bootstrap.stores.postgres.version_column import WIDTH
from is_db_bootstrap.stores.postgres.workplace import USUAL_SCHEMA

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import AlembicEnvironment, Blueprint
    from is_db_bootstrap.engine.store import Progress
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.postgres.team_run import TeamRun


#: Beside `catalogue.json`, for teams whose DBA applies it.
SCHEMA_NAME = "schema.sql"
#: What the first line of a generated `schema.sql` ends with.
_GENERATED = "Generated."


#: What a revision of a team may fail of here, although `apply` runs it.
_NOT_AS_THE_TEAM = (
    "That was in a scratch database, where revisions run with {driver} and without env.py. What "
    "needs something that env.py does fails there, such as arguments that only its online branch "
    "gives context.run_migrations. So does a schema whose beginning no revision makes. Nothing of "
    "the target was changed. `apply` uses env.py."
)
#: What is said besides where the team's driver is not known.
_DRIVER_UNKNOWN = (
    " Which driver env.py uses is not told by its offline branch or its file. Name it: driver, "
    "beside alembic in [postgres]."
)
#: First key of the advisory lock that is held while a scratch database is used.
_IN_USE = 0x69736473
#: The name of a scratch database: its first eight digits are the second key of that lock. Earlier
#: versions held no lock, and wrote twelve digits.
_HELD = re.compile(rf"{SCRATCH}([0-9a-f]{{8}})[0-9a-f]{{8}}")
#: Scratch databases of our own role that nobody is connected to.
_LEFT = """
    SELECT d.datname::text FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
    WHERE starts_with(d.datname, %s) AND r.rolname = current_user
      AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
"""


@contextmanager
def scratch_database(url: StoreUrl, timing: Timing) -> Iterator[StoreUrl]:
    """The address of a database that does not exist yet, on the server of `url`.

    Dropped afterwards. Until then a session holds a lock, which the server gives back when this
    process dies. What dead processes have left is dropped first.
    """
    name = f"{SCRATCH}{secrets.token_hex(8)}"
    with connect(url, timing.connect_timeout_s, database=MAINTENANCE) as session:
        with errors(str(url), name):
            _drop_left(session)
            session.execute("SELECT pg_advisory_lock(%s, %s)", _lock_keys(name))
            scratch = with_path_of(session, url, replace(url, database=name))
        try:
            yield scratch
        finally:
            drop_database(url, timing, name)


def _drop_left(session: psycopg.Connection[Any]) -> None:
    """Drop the scratch databases whose process is dead.

    The lock of such a database is free, and held while it is dropped. A database that another
    session connects to meanwhile stays.
    """
    for (name,) in session.execute(_LEFT.encode(), [SCRATCH]).fetchall():
        if not _HELD.fullmatch(name):
            continue
        keys = _lock_keys(name)
        if session.execute("SELECT pg_try_advisory_lock(%s, %s)", keys).fetchone() != (True,):
            continue
        with suppress(psycopg.errors.ObjectInUse, psycopg.errors.InvalidCatalogName):
            session.execute(f"DROP DATABASE {identifier(name)}".encode())
        session.execute("SELECT pg_advisory_unlock(%s, %s)", keys)


def _lock_keys(name: str) -> tuple[int, int]:
    """The keys of the advisory lock of a scratch database; the second is a signed integer."""
    digits = name.removeprefix(SCRATCH)[:8]
    return _IN_USE, int.from_bytes(bytes.fromhex(digits), "big", signed=True)


def drop_database(url: StoreUrl, timing: Timing, name: str) -> None:
    """Drop a scratch database with every session in it; harmless when it has gone."""
    with (
        connect(url, timing.connect_timeout_s, database=MAINTENANCE) as connection,
        errors(str(url), name),
    ):
        connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)".encode())


class _ScratchStore(PostgreSQLBootstrapper):
    """The store that brings a scratch database to its revisions.

    It compares nothing, so that a catalogue that cannot be read can be written again. The revisions
    run in our own environment, also those of a team: its `env.py` leads elsewhere.
    """

    compares = False
    #: The target's version table may be wider than Alembic makes one.
    limits_ids = False

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._sessions.work_cursor = ScratchCursor

    def _read_team(self, schema: str | None) -> TeamRun | None:
        if self._blueprint.alembic is None:
            return None
        from is_db_bootstrap.stores.postgres.team_trial import TeamTrial

        return TeamTrial(self._url, self._blueprint, self._timing, schema or USUAL_SCHEMA)

    def trial_notes(self) -> Sequence[str]:
        """In which way a team's revisions ran otherwise than on the target, a sentence each."""
        return tuple(getattr(self._team, "notes", ()))

    def apply_together(self, changes: Sequence[Change], progress: Progress) -> None:
        """Apply revisions in one run of Alembic."""
        self._widen_version_table()
        super().apply_together(changes, progress)

    def _widen_version_table(self) -> None:
        """Make the version table so that it holds every id of the chain."""
        longest = max(map(len, self._chain.order), default=0)
        if longest > WIDTH:
            from is_db_bootstrap.stores.postgres.alembic import create_version_table

            reader, history = self._sessions.reader(), self._place.history
            create_version_table(reader, self.target, history.place)
            widened = f"ALTER TABLE {history.table} ALTER version_num TYPE varchar({longest})"
            reader.execute(widened.encode())


@contextmanager
def at_head(
    url: StoreUrl,
    blueprint: Blueprint,
    timing: Timing,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[StoreUrl]:
    """The address of a scratch database that is at the blueprint's head.

    `warn` is told in which way its revisions ran otherwise than on the target.
    """
    with at_revisions(url, blueprint, None, timing, warn=warn) as scratch:
        yield scratch


@contextmanager
def at_revisions(
    url: StoreUrl,
    blueprint: Blueprint,
    done: Collection[str] | None,
    timing: Timing,
    schema: str = "public",
    *,
    begun: Callable[[PostgreSQLBootstrapper, str], None] = lambda _, __: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Iterator[StoreUrl]:
    """The address of a scratch database that has the revisions `done` in `schema`.

    With None, it has all of them. The variables of the environment that hold an address of
    PostgreSQL name it too, so that a revision that opens a connection of its own opens it here, and
    not to the target.

    `begun` is told of the store that brings it there, and of its name. Raises `ConfigurationError`
    when a revision sends a statement that acts on the whole server.
    """
    with scratch_database(url, timing) as scratch, named_by_environment(scratch, timing):
        bring(scratch, blueprint, done, timing, schema, begun=begun, warn=warn)
        yield scratch


def named_by_environment(scratch: StoreUrl, timing: Timing) -> AbstractContextManager[None]:
    """Let the variables of the environment that hold an address of PostgreSQL name `scratch`."""
    return address_elsewhere(KIND, scratch, _parts(scratch, timing))


def bring(
    scratch: StoreUrl,
    blueprint: Blueprint,
    done: Collection[str] | None,
    timing: Timing,
    schema: str = "public",
    *,
    begun: Callable[[PostgreSQLBootstrapper, str], None] = lambda _, __: None,
    warn: Callable[[str], None] = lambda _: None,
) -> None:
    """Apply to a scratch database the revisions `done` that it lacks, or all with None.

    `warn` is told in which way they ran otherwise than on the target.
    """
    blueprint = _with_fitting_baseline(blueprint, done)
    path_schema = path_schema_of(scratch, schema)
    store = _ScratchStore(scratch, blueprint, timing=timing, schema=path_schema)
    begun(store, scratch.database)
    try:
        store.ping(timing.timeout_s)
        store.apply_all(
            [
                change
                for change in store.plan().changes
                if done is None or change.kind != "revision" or change.name in done
            ]
        )
    except ChangeFailed as exc:
        if blueprint.alembic is not None:
            exc.hint = _why_not_as_the_team(blueprint.alembic)
        raise
    finally:
        store.close()
    for sentence in store.trial_notes():
        warn(sentence)


def _why_not_as_the_team(declared: AlembicEnvironment) -> str:
    from is_db_bootstrap.stores.postgres.team_driver import TeamDriver

    driver = TeamDriver.of(declared)
    unknown = "" if driver.is_known else _DRIVER_UNKNOWN
    return _NOT_AS_THE_TEAM.format(driver=driver.name) + unknown


def _with_fitting_baseline(blueprint: Blueprint, done: Collection[str] | None) -> Blueprint:
    """The blueprint without its baseline where that makes more than the revisions `done`."""
    from is_db_bootstrap.stores.postgres.named_revisions import named_revisions

    if blueprint.baseline is None or done is None:
        return blueprint
    chain = chain_of(blueprint)
    heads = named_revisions(blueprint, chain, blueprint.baseline.revision or "heads")
    fits = set(chain.until(heads)) <= {*done}
    return blueprint if fits else replace(blueprint, baseline=None)


@contextmanager
def new_database(
    url: StoreUrl, timing: Timing, template: StoreUrl | None = None
) -> Iterator[StoreUrl]:
    """The address of a scratch database that is empty, or a copy of the scratch one `template`.

    Nobody may be connected to the template meanwhile.
    """
    source = identifier(template.database) if template else "template0 ENCODING 'UTF8'"
    with scratch_database(url, timing) as scratch:
        with connect(url, timing.connect_timeout_s, database=MAINTENANCE) as connection:
            statement = f"CREATE DATABASE {identifier(scratch.database)} TEMPLATE {source}"
            with errors(str(url), scratch.database):
                try:
                    connection.execute(statement.encode())
                except psycopg.errors.InsufficientPrivilege as exc:
                    raise _may_not_create(connection.info.user) from exc
        yield scratch


def _may_not_create(user: str) -> AccessDenied:
    return AccessDenied(
        NAME,
        f"A scratch database is needed, and {user} may not create it.",
        hint=f"Let an administrator run: ALTER ROLE {identifier(user)} CREATEDB;",
    )


def _parts(scratch: StoreUrl, timing: Timing) -> dict[str, str]:
    """Server, user and password of a scratch database as libpq has found them."""
    with connect(scratch, timing.connect_timeout_s, database=MAINTENANCE) as connection:
        info = connection.info
        return {
            "host": info.host,
            "port": str(info.port),
            "database": scratch.database,
            "username": info.user,
            "password": info.password,
        }


class ScratchCursor(WorkingCursor):
    """A cursor of a scratch database. It sends nothing that acts on the whole server.

    Raises `ConfigurationError` for such a statement before it is sent. A statement that the server
    puts together itself is not recognised.
    """

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        """Execute one statement, or several without parameters."""
        self._refuse_server_wide(query, [*args, *options.values()])
        return super().execute(query, *args, **options)

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        """Execute one statement with many sets of parameters."""
        self._refuse_server_wide(query, [*args, *options.values()])
        super().executemany(query, *args, **options)

    def _refuse_server_wide(self, query: Any, values: Sequence[Any]) -> None:
        watch = getattr(self.connection, "watch", None)
        step = str(getattr(watch, "step", ""))
        if not step:
            return  # a statement of ours, or of Alembic
        text = text_of(query, self.connection)
        refuse_server_wide(text, step)
        has_values = bool(values) and values[0] is not None
        note_scratch(step, text, is_escaped=has_values)


def generate(
    url: StoreUrl,
    blueprint: Blueprint,
    timing: Timing | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Catalogue:
    """The catalogue of `blueprint` at its head, from a scratch database on the server of `url`.

    `warn` is told in which way its revisions ran otherwise than on the target.
    """
    timing = timing or Timing()
    with at_head(url, blueprint, timing, warn) as scratch:
        return read_catalogue(scratch, blueprint, timing)


def read_catalogue(scratch: StoreUrl, blueprint: Blueprint, timing: Timing) -> Catalogue:
    """The catalogue of a scratch database that is at the blueprint's head."""
    head = chain_of(blueprint).head
    settings = session_settings("public")
    with connect(scratch, timing.connect_timeout_s, settings=settings) as connection:
        record = _team_record(blueprint)
        return Catalogue.made(connection, blueprint.name, head, "public", record)


def _team_record(blueprint: Blueprint) -> str | None:
    """The quoted name of a team's version table. None for a blueprint of ours."""
    if blueprint.alembic is None:
        return None
    from is_db_bootstrap.stores.postgres.team_environment import read_environment

    return read_environment(blueprint.alembic).captured().place.quoted


def schema_sql(blueprint: Blueprint) -> str:
    """The SQL that takes an empty database to head, for psql.

    It records the revision as our own runs do. Raises `ConfigurationError` for what cannot be
    written so, such as a baseline.
    """
    from is_db_bootstrap.stores.postgres.alembic import offline_sql, refuse_unwritten_baseline

    refuse_unwritten_baseline(blueprint, "heads")
    head = (
        f"-- Blueprint {blueprint.name}: what `is-db-bootstrap migrate sql` prints for an empty "
        "schema public. Generated.\n\n"
    )
    return head + offline_sql(blueprint, "public", "heads")


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace a file that does not hold what every generated one of its name does."""
    if not path.exists():
        return
    sign = _GENERATED if path.name == SCHEMA_NAME else '"objects"'
    if not path.is_file() or sign not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigurationError(
            f"{path} was not generated by is-db-bootstrap, so it is not replaced.",
            hint="Rename it, or move it out of the folder of the revisions.",
        )


def write(
    url: StoreUrl,
    blueprint: Blueprint,
    timing: Timing | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> tuple[Path, ...]:
    """Generate both files beside the revisions, and replace them only when both could be generated.

    A revision that cannot be written as SQL is told to `warn`, and `schema.sql` stays as it is.
    """
    return replace_files(generated_files(url, blueprint, timing, warn))


def generated_files(
    url: StoreUrl,
    blueprint: Blueprint,
    timing: Timing | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[Path, str]:
    """What `write` writes, by the files in which it belongs. Nothing is written."""
    return file_texts(blueprint, generate(url, blueprint, timing, warn), warn)


def file_texts(
    blueprint: Blueprint, catalogue: Catalogue, warn: Callable[[str], None] = lambda _: None
) -> dict[Path, str]:
    """The text of both files, by their paths, with this catalogue. Nothing is written."""
    folder = folder_of(blueprint)
    if folder is None:
        raise ConfigurationError(f"{blueprint.name} has no migrations.")
    texts = {folder / FILE_NAME: catalogue.text()}
    try:
        texts[folder / SCHEMA_NAME] = schema_sql(blueprint)
    except ConfigurationError as exc:
        warn(f"{SCHEMA_NAME} was not written. {exc}")
    for path in texts:
        _refuse_foreign(path)
    return texts


def replace_files(texts: Mapping[Path, str]) -> tuple[Path, ...]:
    """Write each file, in the place of one that may be there."""
    for path, text in texts.items():
        files.replace_text(path, text)
    return tuple(texts)
