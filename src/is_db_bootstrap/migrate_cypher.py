"""`current`, `history` and `stamp` of `migrate`, for the Cypher files of a blueprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.app import over
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.migrate import REMAKES_NOTHING, Current, Migrated, Revision
from is_db_bootstrap.results import Mode, Outcome, RecordChange
from is_db_bootstrap.settings import Settings

if TYPE_CHECKING:
    from is_db_bootstrap.events import Observer


def history(blueprint: str | Blueprint) -> tuple[Revision, ...]:
    """The Cypher files, newest first. This needs no server and no address.

    Of two files of one version, a server takes one.
    """
    from is_db_bootstrap.stores.neo4j import cypher_file

    files = cypher_file.load(_with_cypher(blueprint)[1])
    last = len(files) - 1
    return tuple(
        Revision(
            id=file.name,
            title=file.description,
            is_head=file.order == files[last].order,
            is_base=file.order == files[0].order,
        )
        for file in reversed(files)
    )


def current(
    blueprint: str | Blueprint,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> Current:
    """The last Cypher file that is recorded. The database is only read."""
    from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper

    found = _with_cypher(blueprint)[0]
    settings = settings or _settings(found, url, environ)
    store = Neo4jBootstrapper(settings.need("neo4j"), found, timing=settings.timing)
    try:
        store.ping(settings.timing.connect_timeout_s)
        status = store.status()
    finally:
        store.close()
    return Current(status.recorded or None, is_head=status.recorded == status.head)


def stamp(
    blueprint: str | Blueprint,
    target: str,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    observers: Sequence[Observer] = (),
    run_id: str = "",
) -> Migrated:
    """Record the Cypher files up to `target` as applied, and change nothing else.

    `target` is `head`, `base`, the name of a file, or its version. Files behind it count as not
    applied from then on. Raises the error that ended the run.
    """
    from is_db_bootstrap.stores.neo4j.stamp import KIND, Stamp

    found = _with_cypher(blueprint)[0]
    settings = settings or _settings(found, url, environ)
    store = Stamp(settings.need("neo4j"), found, target, timing=settings.timing)
    options = replace(REMAKES_NOTHING, run_id=run_id)
    result = over([store], found, settings, options, observers=observers).run(Mode.APPLY)
    result.raise_for_failure()
    [report] = result.stores
    done = [change for change in report.changes if change.outcome is Outcome.CHANGED]
    names = tuple(change.name for change in done if change.kind == KIND)
    record = store.record_change if names else RecordChange()
    return Migrated(names, report.notes, record=record)


def foresee_stamp(
    blueprint: str | Blueprint,
    target: str,
    *,
    url: str | None = None,
    environ: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> RecordChange:
    """What `stamp` would change now. The database is only read.

    Raises what `stamp` would refuse with.
    """
    from is_db_bootstrap.stores.neo4j.stamp import Stamp

    found = _with_cypher(blueprint)[0]
    settings = settings or _settings(found, url, environ)
    store = Stamp(settings.need("neo4j"), found, target, timing=settings.timing)
    over([store], found, settings, REMAKES_NOTHING).run(Mode.PLAN).raise_for_failure()
    return store.record_change


def _with_cypher(name: str | Blueprint) -> tuple[Blueprint, Path]:
    """The blueprint and its folder. `ConfigurationError` when it has none."""
    blueprint = name if isinstance(name, Blueprint) else load_blueprint(name)
    if blueprint.cypher is None:
        raise ConfigurationError(f"{blueprint.name} has no Cypher files.")
    return blueprint, blueprint.cypher


def _settings(blueprint: Blueprint, url: str | None, environ: Mapping[str, str] | None) -> Settings:
    return Settings.load(blueprint, environ=environ, flags={"neo4j_url": url})
