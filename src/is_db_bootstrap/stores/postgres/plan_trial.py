"""Running pending revisions in a scratch database, to see what those that run Python send.

The server is one that the user names. The target is only asked which database it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreUnavailable,
)
from is_db_bootstrap.stores.postgres.connection import MAINTENANCE, connect
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors
from is_db_bootstrap.stores.postgres.planned_sql import ended
from is_db_bootstrap.stores.postgres.scratch import bring, named_by_environment, new_database
from is_db_bootstrap.stores.postgres.scratch_record import ScratchRecord, recording
from is_db_bootstrap.stores.postgres.team_connections import identity_of
from is_db_bootstrap.stores.statement_secrets import without_secrets

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

_STEP = "upgrade "


@dataclass(slots=True)
class PlanTrial:
    """One trial of `schema`, on the server of `url`. `cancel` ends it from another thread."""

    url: StoreUrl
    blueprint: Blueprint
    timing: Timing
    schema: str
    #: What is worth knowing of the trial, a sentence each.
    notes: list[str] = field(default_factory=list)
    _store: PostgreSQLBootstrapper | None = field(default=None, init=False)

    def refuse_target(self, target: psycopg.Connection[Any], *, is_there: bool) -> None:
        """Raise `ConfigurationError` when `url` leads to the database that is planned.

        `target` is a session of that database. If not `is_there`, the database is still to be made,
        and `target` is a session beside it. Raises `StoreUnavailable` and `AccessDenied` for a
        server that cannot be used.
        """
        planned = identity_of(target)
        with self._session() as session, errors(str(self.url)):
            found = identity_of(session)
        if not found.is_same_server(planned):
            return
        if is_there and found.is_same(planned):
            raise ConfigurationError(
                f"--try names {self.url}, which is the database that is planned.",
                hint="Name another server, best one that nobody else uses. Another database of "
                "this server is taken too.",
            )
        self.notes.append(f"--try names another database of the planned server: {self.url}.")

    def _session(self) -> psycopg.Connection[Any]:
        """A session of the server, in the database of the address if that is there."""
        limit_s = self.timing.connect_timeout_s
        if self.url.database:
            with suppress(DatabaseMissing):
                return connect(self.url, limit_s)
        return connect(self.url, limit_s, database=MAINTENANCE)

    def sent(self, done: Collection[str], pending: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """What each of the `pending` revisions has sent, in a database that had those `done`.

        A revision that fails there is told in `notes`, and has what it sent until then. Those after
        it are missing. Raises `StoreUnavailable` and `AccessDenied` for a server that cannot be
        used.
        """
        with (
            new_database(self.url, self.timing) as scratch,
            named_by_environment(scratch, self.timing),
            recording() as record,
        ):
            try:
                self._bring(scratch, done, record)
                self._bring(scratch, {*done, *pending}, record)
            except (StoreUnavailable, AccessDenied):
                raise
            except BootstrapError as exc:
                self.notes.append(f"The trial on {self.url} did not end: {exc}")
        if record.sent:
            self.notes.append(
                f"What runs Python ran in a scratch database on {self.url}, which held no rows but "
                "those that revisions made. The values of parameters are not shown."
            )
        return {
            step.removeprefix(_STEP): [without_secrets(ended(text)) for text in texts]
            for step, texts in record.sent.items()
        }

    def _bring(self, scratch: StoreUrl, done: Collection[str], record: ScratchRecord) -> None:
        """Apply the revisions `done` that are missing. `record` then has nothing but theirs."""
        record.sent.clear()
        bring(
            scratch,
            self.blueprint,
            done,
            self.timing,
            self.schema,
            begun=self._begin,
            warn=self.notes.append,
        )

    def _begin(self, store: PostgreSQLBootstrapper, _: str) -> None:
        self._store = store

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""
        if self._store is not None:
            self._store.cancel()
