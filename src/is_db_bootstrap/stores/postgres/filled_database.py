"""An empty database that is filled by the declared baseline, without the revisions after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.stores.postgres.begun import BASELINE
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing


class _FilledStore(PostgreSQLBootstrapper):
    """Takes the baseline of a blueprint and nothing else of it."""

    compares = False
    runs_team = False


def fill_by_baseline(
    url: StoreUrl, blueprint: Blueprint, timing: Timing, schema: str = "public"
) -> tuple[str, ...]:
    """Fill the database at `url`, which is empty, and record the revision of the baseline.

    Returns the recorded heads. Empty: the blueprint declares no baseline, or a revision is recorded
    already. Raises `StoreConflict` for a database that is not empty, and what the baseline raises.
    """
    store = _FilledStore(url, blueprint, timing=timing, schema=schema)
    try:
        store.ping(timing.connect_timeout_s)
        due = [change for change in store.plan().changes if change.kind == BASELINE]
        for change in due:
            store.apply(change)
        recorded = store.status().recorded
    finally:
        store.close()
    return tuple(recorded.split(", ")) if due else ()
