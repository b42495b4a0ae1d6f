"""The self-test of a database, in the schema itself or in what a trial makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from is_db_bootstrap.results import Proof
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.selftest import proofs_in

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.selftest import Trial
    from is_db_bootstrap.stores.postgres.workplace import Workplace


class SelfTestRun:
    """Tries every declared table of `place`.

    With `make_trial`, that happens in what it makes, such as a scratch database, at the recorded
    revision.
    """

    def __init__(
        self,
        sessions: RunSessions,
        place: Workplace,
        make_trial: Callable[[str], Trial] | None,
    ) -> None:
        self._sessions = sessions
        self._place = place
        self._make_trial = make_trial
        #: The self-test that runs elsewhere, so that another thread can end it.
        self._trial: Trial | None = None

    def proofs(self) -> Iterator[Proof]:
        """What was tried, and what is not tried, one after the other."""
        sessions, place = self._sessions, self._place
        reader = sessions.reader()
        declared = place.declared.catalogue.objects if place.declared.catalogue else None
        if self._make_trial is None:
            with errors(sessions.target), sessions.connected() as connection:
                yield from proofs_in(connection, place.schema, declared)
        else:
            record = place.history.read(reader)
            known = [name for name in record.revisions if name in place.chain.parents]
            self._trial = self._make_trial(place.schema)
            yield from self._trial.proofs(place.chain.until(known), declared)
        for schema, names in place.declared.tables_beside().items():
            for table in names:
                detail = f"schema {schema} is another one, which is not tried"
                yield Proof(f"{schema}.{table}", ok=None, detail=detail)

    def cancel(self) -> None:
        """From another thread: end the self-test that runs elsewhere."""
        if self._trial is not None:
            self._trial.cancel()
