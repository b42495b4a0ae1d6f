"""The `migrate` commands as functions, for every blueprint with a PostgreSQL part.

The functions are synchronous, and also work while an event loop is running in the same thread.
Each function takes the name of a blueprint, or a `Blueprint`, and finds the address as the command
does: `url`, then the variables POSTGRES_URL, DATABASE_URL and DB_*, then the TOML file. The
variables are those of `environ`, and those of the process when `environ` is None. `settings`
replaces all of these. A portable blueprint takes a `url` of MariaDB or SQLite too. The functions
raise the errors of `is_db_bootstrap.errors`, and wait for a lock within the timeout.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.app import bootstrapper, bystanders_of, over
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreConflict
from is_db_bootstrap.results import Mode, Outcome, RecordChange
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl, ignored_version_tables
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of, folder_of
from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.engine.store import DatabaseBootstrapper
    from is_db_bootstrap.events import Observer
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
    from is_db_bootstrap.stores.postgres.portable import PortableDatabase


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a move has done.

    `revisions` stand in the order in which they were applied or undone. `notes` are sentences.
    `seeded` counts the demo rows that were added. `record` says what a stamp has changed.
    `baseline` names what has filled an empty database before the revisions. It is empty when
    nothing has.
    """

    revisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seeded: int = 0
    record: RecordChange = field(default_factory=RecordChange)
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class Current:
    """The revision of a database. None when no revision is recorded."""

    revision: str | None
    is_head: bool


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of the chain."""

    id: str
    title: str
    is_head: bool
    is_base: bool


@dataclass(frozen=True, slots=True)
class Check:
    """What answers at an address.

    `target` is the address without its password. `latency_ms` is that of a connection and a query.
    `server_version` begins with the name of the engine when the engine is not PostgreSQL.
    `extensions` names each extension that the blueprint needs, and says whether the server has that
    extension to install. `conflict` is why an upgrade would refuse what is recorded, with the way
    out; None when it would not.
    """

    target: str
    latency_ms: float
    server_version: str
    extensions: Mapping[str, bool]
    revision: str | None
    head: str
    conflict: str | None = None


_NO_LOCK = "{} is no PostgreSQL: no lock is taken, nothing is verified."
_NO_SEED = "{} is no PostgreSQL: no demo rows were added."
#: The kinds of changes that move a database from one revision to another.
_MOVES = {"revision", "downgrade", "stamp", "accept"}
#: A run that makes nothing anew, and so reads no record of what was there.
REMAKES_NOTHING = RunOptions(remembers=False)


def _blueprint_of(name: str | Blueprint) -> Blueprint:
    return name if isinstance(name, Blueprint) else load_blueprint(name)


def _portable_database(name: str | Blueprint, url: str | None) -> PortableDatabase | None:
    """The database at an address of MariaDB or SQLite. None for every other address."""
    if url is None:
        return None
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in KINDS["postgres"].other_engines:
        return None
    from is_db_bootstrap.stores.postgres.portable import PortableDatabase

    return PortableDatabase(_blueprint_of(name), url)


def _ignored_tables(
    environ: Mapping[str, str] | None, settings: Settings | None
) -> tuple[str, ...]:
    """The version tables that are not ours, for a database that is no PostgreSQL."""
    return settings.ignored_version_tables if settings else ignored_version_tables(environ)


def _portable_move(database: PortableDatabase, revisions: Sequence[str], *notes: str) -> Migrated:
    """What a move has done on a database that is no PostgreSQL."""
    return Migrated(tuple(revisions), (_NO_LOCK.format(database.target), *notes))


class _Place:
    """A blueprint and where its database is."""

    def __init__(
        self,
        name: str | Blueprint,
        url: str | None,
        environ: Mapping[str, str] | None,
        settings: Settings | None,
    ) -> None:
        self.blueprint = _blueprint_of(name)
        self.chain = _chain_of(self.blueprint)
        self.settings = settings or Settings.load(
            self.blueprint, environ=environ, flags={"postgres_url": url}
        )

    @property
    def url(self) -> StoreUrl:
        return self.settings.need("postgres")

    @property
    def store_options(self) -> dict[str, Any]:
        """What a bootstrapper of PostgreSQL takes besides address and blueprint."""
        return {
            "timing": self.settings.timing,
            "schema": self.settings.named_schema,
            "ignored_version_tables": self.settings.ignored_version_tables,
            "unknown_is_ahead": self.settings.unknown_is_ahead,
        }

    @property
    def _settings_of_moves(self) -> Settings:
        """The settings of a run whose plan may try a downgrade, which takes up to `timeout_s`."""
        timing = self.settings.timing
        if not timing.phase_timeout_s:
            return self.settings
        longer = replace(timing, phase_timeout_s=timing.phase_timeout_s + timing.timeout_s)
        return replace(self.settings, timing=longer)

    def known_revision(self, revision: str) -> str:
        """The full id of a revision of the chain, which `revision` may be the beginning of."""
        from is_db_bootstrap.stores.postgres.named_revisions import known

        return known(self.chain, revision)

    def resolved(self, target: str) -> str:
        """A target with a full id where it names a revision by its beginning.

        What only Alembic resolves, such as `branch@head`, stays as it is.
        """
        from is_db_bootstrap.stores.postgres.named_revisions import is_simple
        from is_db_bootstrap.stores.postgres.revision_syntax import RevisionSyntax

        if target in {"head", "heads", "base"} or target[:1] in {"+", "-"}:
            return target
        if is_simple(self.chain, target):
            return self.known_revision(target)
        if not set("@+-").intersection(target):
            RevisionSyntax(self.blueprint, self.chain).named(target)  # a label, or nothing
        return target

    def fill(
        self, store: DatabaseBootstrapper, observers: Sequence[Observer], run_id: str
    ) -> Migrated:
        """Run a store that may make the schema anew. Raises the error that ended the run.

        A database that others remember and that is blank raises `StoreReset`. The stores that this
        run leaves out are asked for that.
        """
        resolved = self.blueprint.resolve(self.settings.values)
        run = over(
            [store],
            self.blueprint,
            self._settings_of_moves,
            RunOptions(run_id=run_id),
            observers=observers,
            bystanders=bystanders_of(resolved, self.settings, ("postgres",)),
        )
        return self._migrated(run)

    def run(
        self, store: DatabaseBootstrapper, observers: Sequence[Observer], run_id: str
    ) -> Migrated:
        """Wait, lock, look and apply. Raises the error that ended the run."""
        settings = self._settings_of_moves
        return self._migrated(
            over(
                [store],
                self.blueprint,
                settings,
                replace(REMAKES_NOTHING, run_id=run_id),
                observers=observers,
            )
        )

    def _migrated(self, run: BootstrapOrchestrator) -> Migrated:
        """What a run has done. Raises the error that ended it."""
        result = run.run(Mode.APPLY)
        result.raise_for_failure()
        [found] = result.stores
        done = [change for change in found.changes if change.outcome is Outcome.CHANGED]
        return Migrated(
            revisions=tuple(change.name for change in done if change.kind in _MOVES),
            notes=found.notes,
            seeded=sum(change.kind == "seed" for change in done),
            baseline="".join(change.name for change in done if change.kind == "baseline"),
        )


def _chain_of(blueprint: Blueprint) -> Chain:
    """The revisions of a blueprint.

    Raises `ConfigurationError` for a blueprint without a PostgreSQL part.
    """
    if blueprint.migrations is None and blueprint.alembic is None:
        raise ConfigurationError(f"{blueprint.name} has no PostgreSQL part.")
    return chain_of(blueprint)


def init(
    blueprint: str | Blueprint,
    *,
    seed: bool = False,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
    run_id: str = "",
) -> Migrated:
    """Create a missing database and a missing schema, and upgrade to head.

    `seed` adds the demo rows too. A second call changes nothing. Raises `StoreReset` for a database
    that is blank although the stores of the blueprint remember it, as `upgrade` does.
    """
    portable = _portable_database(blueprint, url)
    if portable is not None:
        portable.create()
        notes = [_NO_SEED.format(portable.target)] if seed else []
        done = portable.upgrade(ignored_version_tables=_ignored_tables(environ, settings))
        return _portable_move(portable, done, *notes)
    place = _Place(blueprint, url, environ, settings)
    store = bootstrapper("postgres", place.url, place.blueprint, place.settings, seed=seed)
    return place.fill(store, observers, run_id)


def upgrade(
    blueprint: str | Blueprint,
    revision: str = "head",
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
    run_id: str = "",
) -> Migrated:
    """Upgrade to `revision`, which is `head`, an id or `+N` steps. The database must exist.

    On PostgreSQL it may be all that Alembic's command takes, such as `branch@head`. An empty
    database is filled by the declared baseline first. Raises `StoreReset` for a database that is
    blank although the stores of the blueprint remember it.
    """
    portable = _portable_database(blueprint, url)
    if portable is not None:
        ignored = _ignored_tables(environ, settings)
        return _portable_move(portable, portable.upgrade(revision, ignored_version_tables=ignored))
    from is_db_bootstrap.stores.postgres.moves import Upgrade

    place = _Place(blueprint, url, environ, settings)
    store = Upgrade(place.url, place.blueprint, place.resolved(revision), **place.store_options)
    return place.fill(store, observers, run_id)


def downgrade(
    blueprint: str | Blueprint,
    target: str | int = 1,
    *,
    drop_rows: bool = False,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
    run_id: str = "",
) -> Migrated:
    """Undo revisions down to `target`: an id, `base`, or a number of steps as `N` or `-N`.

    Digits in a string are an id first, and a number of steps where the chain has no such id.

    Raises `RowsWouldBeLost` of `stores.postgres.moves` when the downgrade would drop, delete or
    change rows, or when nobody can find that out. Nothing is changed then. With `drop_rows`, the
    downgrade goes on all the same.
    """
    from is_db_bootstrap.stores.postgres.downgrade import Downgrade
    from is_db_bootstrap.stores.postgres.moves import parsed_steps

    blueprint = _blueprint_of(blueprint)
    wanted = parsed_steps(target, _chain_of(blueprint))
    portable = _portable_database(blueprint, url)
    if portable is not None:
        return _portable_move(portable, portable.downgrade(wanted, drop_rows=drop_rows))
    place = _Place(blueprint, url, environ, settings)
    end = place.resolved(wanted)
    store = Downgrade(place.url, place.blueprint, end, drop_rows=drop_rows, **place.store_options)
    return place.run(store, observers, run_id)


def stamp(
    blueprint: str | Blueprint,
    revision: str,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
    run_id: str = "",
) -> Migrated:
    """Record `revision`, which is `head`, `base` or an id, as applied, and change nothing else.

    On PostgreSQL it may be all that Alembic's command takes, such as `branch@head`.
    """
    portable = _portable_database(blueprint, url)
    if portable is not None:
        record = portable.foresee_stamp(revision)
        return replace(_portable_move(portable, portable.stamp(revision)), record=record)
    from is_db_bootstrap.stores.postgres.moves import Stamp

    place = _Place(blueprint, url, environ, settings)
    store = Stamp(place.url, place.blueprint, place.resolved(revision), **place.store_options)
    moved = place.run(store, observers, run_id)
    return replace(moved, record=store.record_change) if moved.revisions else moved


def foresee_stamp(
    blueprint: str | Blueprint,
    revision: str,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> RecordChange:
    """What `stamp` would change now. The database is only read.

    Raises what `stamp` would refuse with.
    """
    portable = _portable_database(blueprint, url)
    if portable is not None:
        return portable.foresee_stamp(revision)
    from is_db_bootstrap.stores.postgres.moves import Stamp

    place = _Place(blueprint, url, environ, settings)
    store = Stamp(place.url, place.blueprint, place.resolved(revision), **place.store_options)
    look = over([store], place.blueprint, place.settings, REMAKES_NOTHING)
    look.run(Mode.PLAN).raise_for_failure()
    return store.record_change


def accept(
    blueprint: str | Blueprint,
    *revisions: str,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
    run_id: str = "",
) -> Migrated:
    """Record the files of applied `revisions` as they are now, and change nothing else.

    Without `revisions`: of all applied ones. Returns those whose file was edited, or of which
    nothing was recorded. Raises `StoreConflict` for a revision that is not applied, and
    `ConfigurationError` for a database that is no PostgreSQL, where no digests are kept.
    """
    portable = _portable_database(blueprint, url)
    if portable is not None:
        raise ConfigurationError(
            f"{portable.target} is no PostgreSQL, so nothing is recorded of the files there."
        )
    from is_db_bootstrap.stores.postgres.accepted import Accept

    place = _Place(blueprint, url, environ, settings)
    store = Accept(place.url, place.blueprint, revisions, **place.store_options)
    return place.run(store, observers, run_id)


def current(
    blueprint: str | Blueprint,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> Current:
    """The recorded revision. The database is only read."""
    portable = _portable_database(blueprint, url)
    if portable is not None:
        revision = portable.current()
        head = history(blueprint)[0].id
        return Current(revision, is_head=revision == head)
    place = _Place(blueprint, url, environ, settings)
    store = _ready_store(place)
    try:
        return Current(store.status().recorded or None, is_head=store.is_at_head())
    finally:
        store.close()


def history(blueprint: str | Blueprint) -> tuple[Revision, ...]:
    """The revisions, newest first. This needs no server and no address."""
    chain = _chain_of(_blueprint_of(blueprint))
    return tuple(
        Revision(
            id=revision,
            title=chain.titles[revision],
            is_head=revision == chain.head,
            is_base=not chain.parents[revision],
        )
        for revision in reversed(chain.order)
    )


def check(
    blueprint: str | Blueprint,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> Check:
    """Connect once and say what is there. Nothing is changed.

    Raises `StoreConflict` when the database is missing.
    """
    portable = _portable_database(blueprint, url)
    if portable is not None:
        return _check_portable(portable, blueprint)
    from is_db_bootstrap.stores.postgres.catalogue import available_extensions

    place = _Place(blueprint, url, environ, settings)
    store = _postgres_store(place)
    began = time.perf_counter()
    try:
        server = store.ping(place.settings.timing.connect_timeout_s)
        latency_ms = _milliseconds_since(began)
        status = store.status()
        reader = store.reader()
        if reader is None:
            raise StoreConflict(
                "postgres",
                f"Database {place.url.database} of {store.target} does not exist.",
                hint=f"Run: is-db-bootstrap migrate init --blueprint {place.blueprint.name}",
            )
        extensions = available_extensions(reader, folder_of(place.blueprint))
        conflict = store.conflict()
    finally:
        store.close()
    return Check(
        target=store.target,
        latency_ms=latency_ms,
        server_version=server.version,
        extensions=extensions,
        revision=status.recorded or None,
        head=status.head,
        conflict=str(conflict) if conflict else None,
    )


def _check_portable(database: PortableDatabase, blueprint: str | Blueprint) -> Check:
    began = time.perf_counter()
    version = database.version()
    latency_ms = _milliseconds_since(began)
    conflict = database.conflict()
    return Check(
        target=database.target,
        latency_ms=latency_ms,
        server_version=version,
        extensions={},
        revision=database.current(),
        head=history(blueprint)[0].id,
        conflict=str(conflict) if conflict else None,
    )


def _milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def sql(
    blueprint: str | Blueprint,
    span: str = "head",
    *,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> str:
    """The SQL that `upgrade` would run over `span` (`TO` or `FROM:TO`), without a server.

    A DBA applies this SQL. The SQL records what it did as our own runs do, so `status` and `verify`
    find nothing missing afterwards. Raises `ConfigurationError` for a `span` without `FROM` where a
    baseline fills an empty database.
    """
    from is_db_bootstrap.stores.postgres.alembic import offline_sql, refuse_unwritten_baseline

    place = _Place(blueprint, None, environ, settings)
    refuse_unwritten_baseline(place.blueprint, span)
    for end in span.split(":"):
        if end and end not in {"head", "heads", "base"}:
            place.known_revision(end)
    if span.endswith("head"):
        span += "s"  # a team may have several
    return offline_sql(place.blueprint, place.settings.schema, span)


def _postgres_store(place: _Place) -> PostgreSQLBootstrapper:
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

    return PostgreSQLBootstrapper(place.url, place.blueprint, **place.store_options)


def _ready_store(place: _Place) -> PostgreSQLBootstrapper:
    """The store, once a run has found it usable."""
    run = over([_postgres_store(place)], place.blueprint, place.settings)
    run.run(Mode.WAIT).raise_for_failure()
    return _postgres_store(place)
