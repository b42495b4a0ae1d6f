"""The self-test in a scratch database that is at the same revisions as the target.

The target is neither locked nor written. Rows that an application holds there do not disturb.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import BootstrapError, StoreUnavailable
from is_db_bootstrap.results import Proof
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.scratch import bring, named_by_environment, new_database
from is_db_bootstrap.stores.postgres.scratch_path import path_schema_of
from is_db_bootstrap.stores.postgres.selftest import proofs_in
from is_db_bootstrap.stores.postgres.session_roles import SessionRoles

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
    from is_db_bootstrap.stores.postgres.catalogue import Objects

#: How a reader gets a self-test without a scratch database.
_HERE = "`selftest --here` tries in the database itself."


class SelfTestTrial:
    """One self-test of `schema`, on the server of `url`. `cancel` ends it from another thread."""

    def __init__(self, url: StoreUrl, blueprint: Blueprint, timing: Timing, schema: str) -> None:
        self._url = url
        self._blueprint = blueprint
        self._timing = timing
        self._schema = schema
        self._store: PostgreSQLBootstrapper | None = None
        self._session: psycopg.Connection[Any] | None = None

    def proofs(self, done: Collection[str], declared: Objects | None) -> Iterator[Proof]:
        """The checks at the revisions `done`, of the tables in `declared` or of all.

        A scratch database that cannot be made, or revisions that cannot run there, are one proof
        that nothing was tried.
        """
        with ExitStack() as opened:
            try:
                # Made before anybody connects to it: a pooler remembers that a database is missing.
                scratch = opened.enter_context(new_database(self._url, self._timing))
                self._bring(scratch, done)
            except StoreUnavailable:
                raise
            except BootstrapError as exc:
                yield Proof("a scratch database", ok=None, detail=f"{exc} {_HERE}")
                return
            path_schema = path_schema_of(scratch, self._schema)
            session = SessionRoles(scratch, path_schema, self._timing).looking()
            self._session = opened.enter_context(session)
            with errors(str(scratch)):
                yield from proofs_in(session, self._schema, declared)

    def _bring(self, scratch: StoreUrl, done: Collection[str]) -> None:
        with named_by_environment(scratch, self._timing):
            bring(scratch, self._blueprint, done, self._timing, self._schema, begun=self._begin)

    def _begin(self, store: PostgreSQLBootstrapper, _: str) -> None:
        self._store = store

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""
        if self._store is not None:
            self._store.cancel()
        session = self._session
        if session is not None and not session.closed:
            with suppress(psycopg.Error):
                session.cancel_safe(timeout=self._timing.connect_timeout_s)
