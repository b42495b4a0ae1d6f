"""What each change of a plan would send, and what of it is dangerous.

`planned_sql` writes down the revisions, and `dangers` judges their statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap.stores.postgres.connection import NOWHERE, placeholders
from is_db_bootstrap.stores.postgres.dangers import with_dangers
from is_db_bootstrap.stores.postgres.database import schema_statement
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.planned_sql import SqlWriter

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.results import Change, Plan
    from is_db_bootstrap.stores.postgres.planned_sql import PlannedSql, StatementTrial
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.seed import DemoRows
    from is_db_bootstrap.stores.postgres.workplace import Workplace


class PlannedStatements:
    """Finds what the plans of `place` would send.

    A process of its own writes down the revisions. Nothing is run twice in this one, and a run that
    changes something finds their modules as it would without a plan. `blueprint` is what that
    process gets. With `make_trial`, revisions that run Python are tried in what that makes.
    """

    def __init__(
        self,
        sessions: RunSessions,
        place: Workplace,
        rows: DemoRows,
        blueprint: Blueprint,
        make_trial: Callable[[str], StatementTrial] | None,
    ) -> None:
        self._sessions = sessions
        self._place = place
        self._rows = rows
        self._blueprint = blueprint
        self._make_trial = make_trial
        #: What writes down pending revisions, so that another thread can end it.
        self._writer: SqlWriter | None = None
        #: What tries them, so that another thread can end it.
        self._trial: StatementTrial | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a process writes down pending revisions."""
        return self._writer is not None and self._writer.is_at_work

    def cancel(self) -> None:
        """From another thread: end what writes down revisions, and what tries them."""
        if self._writer is not None:
            self._writer.end()
        if self._trial is not None:
            self._trial.cancel()

    def of(self, plan: Plan) -> Plan:
        """The plan with the SQL of each change, and what to look at first.

        The server is asked what is in the tables, with queries that are bounded.
        """
        revisions = [change.name for change in plan.changes if change.kind == "revision"]
        written = self._written(revisions) if revisions else {}
        if self._make_trial is None or not any(each.reasons for each in written.values()):
            notes = [*_notes_on_code(written)]
        else:
            trial = self._trial = self._make_trial(self._place.schema)
            written = self._tried(trial, revisions, written)
            notes = trial.notes
        changes = [self._with_statements(change, written) for change in plan.changes]
        changes = self._with_dangers(changes)
        return replace(plan, changes=tuple(changes), notes=(*plan.notes, *notes))

    def _written(self, revisions: Sequence[str]) -> Mapping[str, PlannedSql]:
        """What a process of its own has written down of the revisions."""
        place = self._place
        self._writer = SqlWriter(self._blueprint, place.schema, place.chain)
        # The address of a run is not given away, since the code would only mean to connect to it.
        nowhere = replace(NOWHERE, database=self._sessions.url.database)
        values = placeholders(nowhere, place.schema)
        stamp = place.team.stamp() if place.team else None
        return self._writer.written(revisions, values, stamp)

    def _tried(
        self,
        trial: StatementTrial,
        revisions: Sequence[str],
        written: Mapping[str, PlannedSql],
    ) -> Mapping[str, PlannedSql]:
        """The same, with what those revisions that run Python have sent in a scratch database."""
        reader = self._sessions.reader_if_there()
        beside = reader or self._sessions.database.maintenance()
        trial.refuse_target(beside, is_there=reader is not None)
        done = [name for name in self._place.chain.order if name not in revisions]
        sent = trial.sent(done, revisions)
        return {
            name: replace(each, statements=tuple(sent[name]))
            if each.reasons and name in sent
            else each
            for name, each in written.items()
        }

    def _with_statements(self, change: Change, written: Mapping[str, PlannedSql]) -> Change:
        if change.kind == "revision":
            found = written[change.name]
            return replace(change, statements=found.statements, is_code=bool(found.reasons))
        if change.kind == "baseline" and self._place.baseline is not None:
            return self._place.baseline.with_statements(change)
        return replace(change, statements=self._own_statements(change))

    def _own_statements(self, change: Change) -> tuple[str, ...]:
        """What a step sends that no file of the blueprint says."""
        if change.kind == "database":
            return (f"{self._sessions.database.statement};",)
        if change.kind == "schema":
            return (f"{schema_statement(change.name)};",)
        return self._rows.statements(change.name)

    def _with_dangers(self, changes: list[Change]) -> list[Change]:
        """The changes with their dangers. A database that is still to be made has none."""
        reader = self._sessions.reader_if_there()
        if reader is None:
            return changes
        with errors(self._sessions.target, "the tables of the plan"):
            return with_dangers(changes, reader, self._place.schema)


def _notes_on_code(written: Mapping[str, PlannedSql]) -> Iterator[str]:
    """Which revisions run Python, each with what it does beside writing SQL."""
    found = [f"{name} {', '.join(each.reasons)}" for name, each in written.items() if each.reasons]
    if found:
        yield (
            f"Without a server, not all that these revisions send is known: {'; '.join(found)}. "
            "plan --try URL runs them in a scratch database there."
        )
