"""The `migrate` commands as functions, for every blueprint with a PostgreSQL part.

They are synchronous and may be called while an event loop is running in the same thread. Each takes
the name of a blueprint (or a `Blueprint`) and finds the address as the command does: `url`, then
POSTGRES_URL, DATABASE_URL, DB_* (of `environ`, the process's when None), the TOML file. `settings`
replaces all of these. A blueprint that is portable takes a `url` of MariaDB or SQLite too. Errors
are those of `is_db_bootstrap.errors`; what holds the lock is waited for within the timeout.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.app import bootstrapper, over
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreConflict
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres.revisions import Chain

if TYPE_CHECKING:
    from is_db_bootstrap.engine.store import DatabaseBootstrapper
    from is_db_bootstrap.events import Observer
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
    from is_db_bootstrap.stores.postgres.portable import PortableDatabase


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a move has done: the revisions in the order in which they were applied or undone, and remarks."""

    revisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seeded: int = 0


@dataclass(frozen=True, slots=True)
class Current:
    """The revision of a database; None without one."""

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
    """What answers at an address: `target` is without its password, `server_version` has the engine's name if it is no PostgreSQL, `latency_ms` that of a connection and a query.

    `extensions` says of each that the blueprint needs whether the server has it to install.
    """

    target: str
    latency_ms: float
    server_version: str
    extensions: Mapping[str, bool]
    revision: str | None
    head: str


def _portable(name: str | Blueprint, url: str | None) -> PortableDatabase | None:
    """The database at an address of MariaDB or SQLite; None for every other address."""
    scheme = (url or "").partition(":")[0].partition("+")[0]
    if scheme not in {"sqlite", "mysql", "mariadb"}:
        return None
    from is_db_bootstrap.stores.postgres.portable import PortableDatabase

    return PortableDatabase(
        name if isinstance(name, Blueprint) else load_blueprint(name), url or ""
    )


_NO_LOCK = "{} is no PostgreSQL: no lock is taken, nothing is verified."
_NO_SEED = "{} is no PostgreSQL: no demo rows were added."


class _Place:
    """A blueprint and where its database is."""

    def __init__(
        self,
        name: str | Blueprint,
        url: str | None,
        environ: Mapping[str, str] | None,
        settings: Settings | None,
    ) -> None:
        self.blueprint = name if isinstance(name, Blueprint) else load_blueprint(name)
        if self.blueprint.migrations is None:
            raise ConfigurationError(f"{self.blueprint.name} has no PostgreSQL part.")
        self.chain = Chain.read(self.blueprint.migrations)
        self.settings = settings or Settings.load(
            self.blueprint, environ=environ, flags={"postgres_url": url}
        )

    @property
    def url(self) -> StoreUrl:
        return self.settings.need("postgres")

    @property
    def how(self) -> dict[str, Any]:
        return {"timing": self.settings.timing, "schema": self.settings.schema}

    def run(self, store: DatabaseBootstrapper, observers: Sequence[Observer] = ()) -> Migrated:
        """Wait, lock, look, apply; raises the error that ended it."""
        result = over([store], self.blueprint, self.settings, observers=observers).run(Mode.APPLY)
        result.raise_for_failure()
        [found] = result.stores
        done = [c for c in found.changes if c.outcome is Outcome.CHANGED]
        return Migrated(
            tuple(c.name for c in done if c.kind in {"revision", "downgrade", "stamp"}),
            found.notes,
            sum(c.kind == "seed" for c in done),
        )


def init(
    blueprint: str | Blueprint,
    *,
    seed: bool = False,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
) -> Migrated:
    """Create database and schema if they are missing, upgrade to head, add demo rows if asked.

    Again: nothing.
    """
    if there := _portable(blueprint, url):
        there.create()
        unseeded = (_NO_SEED.format(there.target),) if seed else ()
        return Migrated(tuple(there.upgrade()), (_NO_LOCK.format(there.target), *unseeded))
    place = _Place(blueprint, url, environ, settings)
    return place.run(
        bootstrapper("postgres", place.url, place.blueprint, place.settings, seed=seed), observers
    )


def upgrade(
    blueprint: str | Blueprint,
    revision: str = "head",
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
) -> Migrated:
    """Upgrade to `revision` (`head`, an id, or `+N` steps); the database must exist."""
    if there := _portable(blueprint, url):
        return Migrated(tuple(there.upgrade(revision)), (_NO_LOCK.format(there.target),))
    from is_db_bootstrap.stores.postgres.moves import Upgrade, known

    place = _Place(blueprint, url, environ, settings)
    target = (
        revision if revision == "head" or revision.startswith("+") else known(place.chain, revision)
    )
    return place.run(Upgrade(place.url, place.blueprint, target, **place.how), observers)


def downgrade(
    blueprint: str | Blueprint,
    target: str | int = 1,
    *,
    drop_rows: bool = False,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
) -> Migrated:
    """Undo revisions down to `target`: an id, `base`, or a number of steps as `N` or `-N`.

    Raises `RowsWouldBeLost` (of `stores.postgres.moves`) when it would drop, delete or change rows,
    or when that cannot be found out, unless `drop_rows`; nothing was changed then.
    """
    from is_db_bootstrap.stores.postgres.moves import Downgrade, known, parsed_steps

    wanted = parsed_steps(target)
    if there := _portable(blueprint, url):
        return Migrated(
            tuple(there.downgrade(wanted, drop_rows=drop_rows)), (_NO_LOCK.format(there.target),)
        )
    place = _Place(blueprint, url, environ, settings)
    if wanted != "base" and not wanted.startswith("-"):
        wanted = known(place.chain, wanted)
    return place.run(
        Downgrade(place.url, place.blueprint, wanted, drop_rows=drop_rows, **place.how), observers
    )


def stamp(
    blueprint: str | Blueprint,
    revision: str,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
) -> Migrated:
    """Record `revision` (`head`, `base` or an id) as applied and change nothing else."""
    if there := _portable(blueprint, url):
        return Migrated(tuple(there.stamp(revision)), (_NO_LOCK.format(there.target),))
    from is_db_bootstrap.stores.postgres.moves import Stamp, known

    place = _Place(blueprint, url, environ, settings)
    target = revision if revision in {"head", "base"} else known(place.chain, revision)
    return place.run(Stamp(place.url, place.blueprint, target, **place.how), observers)


def current(
    blueprint: str | Blueprint,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> Current:
    """The recorded revision; the database is only read."""
    if there := _portable(blueprint, url):
        revision, head = there.current(), history(blueprint)[0].id
        return Current(revision, revision == head)
    place = _Place(blueprint, url, environ, settings)
    store = _waited(place)
    try:
        status = store.status()
    finally:
        store.close()
    return Current(
        status.recorded or None, bool(status.recorded) and status.recorded == status.head
    )


def history(blueprint: str | Blueprint) -> tuple[Revision, ...]:
    """The revisions, newest first; needs no server and no address."""
    found = blueprint if isinstance(blueprint, Blueprint) else load_blueprint(blueprint)
    if found.migrations is None:
        raise ConfigurationError(f"{found.name} has no PostgreSQL part.")
    chain = Chain.read(found.migrations)
    return tuple(
        Revision(r, chain.titles[r], r == chain.head, not chain.parents[r])
        for r in reversed(chain.order)
    )


def check(
    blueprint: str | Blueprint,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> Check:
    """Connect and say what is there; one try, nothing is changed.

    A missing database is a `StoreConflict`.
    """
    if there := _portable(blueprint, url):
        began = time.perf_counter()
        version = there.version()
        latency_ms = (time.perf_counter() - began) * 1000
        return Check(
            there.target, latency_ms, version, {}, there.current(), history(blueprint)[0].id
        )
    from is_db_bootstrap.stores.postgres.catalogue import available_extensions

    place = _Place(blueprint, url, environ, settings)
    store = _store(place)
    began = time.perf_counter()
    try:
        server = store.ping(place.settings.timing.connect_timeout_s)
        latency_ms = (time.perf_counter() - began) * 1000
        status, reader = store.status(), store.reader()
        if reader is None:
            raise StoreConflict(
                "postgres",
                f"Database {place.url.database} of {store.target} does not exist.",
                hint=f"Run: is-db-bootstrap migrate init --blueprint {place.blueprint.name}",
            )
        extensions = available_extensions(reader, place.blueprint.migrations)
    finally:
        store.close()
    return Check(
        store.target, latency_ms, server.version, extensions, status.recorded or None, status.head
    )


def sql(
    blueprint: str | Blueprint,
    span: str = "head",
    *,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> str:
    """The SQL that `upgrade` would run over `span` (`TO` or `FROM:TO`), without a server.

    For a DBA who applies it.

    It records what it did as our own runs do, so `status` and `verify` find nothing missing
    afterwards.
    """
    from is_db_bootstrap.stores.postgres.alembic import offline_sql
    from is_db_bootstrap.stores.postgres.moves import known

    place = _Place(blueprint, None, environ, settings)
    for end in filter(None, span.split(":")):
        if end not in {"head", "base"}:
            known(place.chain, end)
    return offline_sql(place.blueprint, place.settings.schema, span)


def _store(place: _Place) -> PostgreSQLBootstrapper:
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

    return PostgreSQLBootstrapper(place.url, place.blueprint, **place.how)


def _waited(place: _Place) -> PostgreSQLBootstrapper:
    """The store, once it is usable."""
    over([_store(place)], place.blueprint, place.settings).run(Mode.WAIT).raise_for_failure()
    return _store(place)
