"""The catalogue of revisions that have none beside them, from a scratch database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.stores.postgres.scratch import (
    bring,
    named_by_environment,
    new_database,
    read_catalogue,
)

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
    from is_db_bootstrap.stores.postgres.catalogue import Catalogue


class CatalogueTrial:
    """Runs all revisions of a blueprint on the server of `url`, in a database that goes again.

    `cancel` ends it from another thread. A second call of `catalogue` runs nothing.
    """

    def __init__(self, url: StoreUrl, blueprint: Blueprint, timing: Timing) -> None:
        self._url = url
        self._blueprint = blueprint
        self._timing = timing
        self._store: PostgreSQLBootstrapper | None = None
        self._catalogue: Catalogue | None = None

    def catalogue(self) -> Catalogue:
        """What the revisions make. Raises the error of the revision that does not run there."""
        if self._catalogue is None:
            # Made before anybody connects to it: a pooler remembers that a database is missing.
            with new_database(self._url, self._timing) as scratch:
                with named_by_environment(scratch, self._timing):
                    bring(scratch, self._blueprint, None, self._timing, begun=self._begin)
                self._catalogue = read_catalogue(scratch, self._blueprint, self._timing)
        return self._catalogue

    def _begin(self, store: PostgreSQLBootstrapper, _: str) -> None:
        self._store = store

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""
        if self._store is not None:
            self._store.cancel()
