"""One run of Alembic over all pending revisions, followed from outside of its `env.py`.

Alembic asks for one step after the other, so it is followed where it asks: before a step begins, it
is told, and the version table is locked and read in the transaction that the step begins. When
Alembic asks for the next step, the transaction of the last one is over, or it is still open because
`env.py` uses one for all. What is over is read back from another session. What is open is read back
when the run is over.

So nothing here depends on what `env.py` says of its transactions. Imported only when there is
something to apply.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep

from is_db_bootstrap.engine.store import MadeByOther
from is_db_bootstrap.guests import host
from is_db_bootstrap.stores.postgres.alembic import watch_of, watched
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.begun import SEPARATOR
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.half_done import (
    StepWatch,
    Watch,
    WorkingConnection,
    commits_each,
)
from is_db_bootstrap.stores.postgres.kept_scripts import renew_module

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from is_db_bootstrap.engine.store import Progress
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.postgres.revisions import Chain


class MovedOn(Exception):
    """Another session has changed the version table since Alembic read it. Nothing was begun."""


class UpgradeRun:
    """Follows one run of Alembic that applies `changes`, in their order.

    `plan` is called before the first change with all the revisions to which the changes lead, in
    order. `before` is called before each change begins, after `progress` was told. `confirm` is
    called with changes whose transaction is over and with the heads that they left. It raises when
    they are not recorded.
    """

    def __init__(
        self,
        chain: Chain,
        changes: Sequence[Change],
        progress: Progress,
        *,
        plan: Callable[[Sequence[str]], None],
        before: Callable[[Change], None],
        confirm: Callable[[Sequence[Change], Collection[str]], None],
    ) -> None:
        self._chain = chain
        self._changes = {change.name: change for change in changes}
        self._names = tuple(self._changes)
        self._progress = progress
        self._plan = plan
        self._before = before
        self._confirm = confirm
        self._heads: frozenset[str] = frozenset()
        self._is_fresh = True
        self._watch: StepWatch = Watch()
        self._own_watch: StepWatch | None = None
        #: Whether Alembic has asked for steps, after it has made its version table.
        self.has_started = False
        #: The change that runs. None between two changes.
        self.current: Change | None = None
        #: What ran in a transaction that is still open.
        self.uncommitted: list[Change] = []

    def run(
        self,
        wanted: Config,
        script: ScriptDirectory,
        *,
        watch: StepWatch | None = None,
        prepare: Callable[[EnvironmentContext], None] = lambda _: None,
    ) -> None:
        """Run the environment of `wanted` once, over all changes.

        `watch` sees the steps, in the place of that of the connection. `prepare` is called with the
        environment before `env.py` runs.
        """
        self._own_watch = watch
        wanted.attributes["is_followed"] = True

        def steps(heads: Any, ctx: MigrationContext) -> Iterator[RevisionStep]:
            return self._steps(heads, ctx, script)

        environment = EnvironmentContext(
            wanted, script, fn=steps, destination_rev=self._destination
        )
        prepare(environment)
        with running_alembic(), environment:
            script.run_env()
            with host():
                self.confirm_committed()

    @property
    def _destination(self) -> str:
        """What `env.py` is told as the revision to go to."""
        heads = self._chain.heads(self._chain.until(self._names))
        return heads[0] if len(heads) == 1 else "heads"

    # --- what Alembic asks for

    def _steps(
        self, heads: Collection[str], ctx: MigrationContext, script: ScriptDirectory
    ) -> Iterator[RevisionStep]:
        """Alembic's `fn`: the steps from `heads` on, one after the other."""
        self._start(heads, ctx, script)
        before = self._chain.until(heads)
        done = set(before)
        left = [name for name in self._chain.until(self._names) if name not in done]
        with host():
            self._recognise(done)
            if left:
                self._plan((*before, *left))
        for revision in left:
            self._begin(revision)
            found = script.get_revision(revision)
            renew_module(found)
            step = RevisionStep(script.revision_map, found, is_upgrade=True)
            step.migration_fn = self._locked(watched(step, ctx, self._watch), ctx)
            yield step
            self._after(ctx)

    def _start(
        self, heads: Collection[str], ctx: MigrationContext, script: ScriptDirectory
    ) -> None:
        """Alembic asks for steps from `heads` on: look once more, and listen to it."""
        self.has_started = True
        script.get_revisions(tuple(heads))  # Alembic's own error for a revision that is not there
        self._heads = frozenset(heads)
        self._is_fresh = True
        self._watch = self._own_watch or _watch_of(ctx)
        self._lock_version_table(ctx)
        ctx.on_version_apply_callbacks = (*ctx.on_version_apply_callbacks, self._applied)

    def _recognise(self, done: Collection[str]) -> None:
        """Tell of the changes that another session has made since they were planned."""
        for change in [*self._changes.values()]:
            if change.name in done:
                self._progress.begin(change)
                remark = f"Revision {change.name} was applied by another session meanwhile."
                self._progress.done(change, MadeByOther(remark))
                del self._changes[change.name]

    def _begin(self, revision: str) -> None:
        self.current = self._changes.get(revision)
        self._watch.left = False
        if self.current is None:
            return
        with host():
            self._progress.begin(self.current)
            self._before(self.current)

    def _locked(self, act: Callable[..., Any], ctx: MigrationContext) -> Callable[..., Any]:
        """What a step runs, after its transaction has locked and read the version table."""

        def run(**given: Any) -> Any:
            self._lock_version_table(ctx)
            return act(**given)

        run.__name__ = getattr(act, "__name__", "upgrade")  # Alembic logs it
        return run

    def _lock_version_table(self, ctx: MigrationContext) -> None:
        """Lock the version table in a new transaction, and read it again.

        A backend that outlived its killed client, or a second run, is waited for. Raises `MovedOn`
        when that one has changed what is recorded.
        """
        connection = ctx.connection
        if connection is None or not self._is_fresh:
            return
        if commits_each(connection):
            return  # without a transaction there is nothing that a lock could outlast
        place = identifier(*filter(None, (ctx.version_table_schema, ctx.version_table)))
        lock = f"LOCK TABLE {place} IN SHARE ROW EXCLUSIVE MODE"
        read = f"SELECT string_agg(version_num, '{SEPARATOR}') FROM {place}"  # noqa: S608 - quoted
        driver = connection.connection.driver_connection
        if isinstance(driver, WorkingConnection):
            connection.get_transaction() or connection.begin()
            found = driver.lock_and_ask(lock, read)
        else:
            connection.exec_driver_sql(lock.replace("%", "%%"))
            ask = f"SELECT pg_current_xact_id()::text, ({read})".replace("%", "%%")
            number, answer = connection.exec_driver_sql(ask).one()
            self._watch.name_ahead(connection.get_transaction(), int(number))
            found = answer or ""
        self._is_fresh = False
        if frozenset(filter(None, found.split(SEPARATOR))) != self._heads:
            raise MovedOn

    # --- what became of a step

    def _applied(self, ctx: MigrationContext, heads: Collection[str], **_: Any) -> None:
        """Alembic's `on_version_apply`, called last: a step has run, and its row is written.

        A step that has left its transaction is committed here, together with its row: Alembic would
        commit a transaction that is over, and lose the row.
        """
        self._heads = frozenset(heads)
        if self.current is not None:
            self.uncommitted.append(self.current)
        if not self._watch.left or ctx.connection is None:
            return
        ctx.connection.commit()
        with host():
            self.confirm_committed()
        if not ctx._transaction_per_migration:  # noqa: SLF001 - Alembic would commit the old one
            ctx._transaction = ctx.connection.begin()  # noqa: SLF001 - the same

    def _after(self, ctx: MigrationContext) -> None:
        """Alembic asks for the next step: confirm what is committed, and tell of what is not."""
        is_open = ctx.connection is not None and ctx.connection.in_transaction()
        with host():
            if not is_open:
                self.confirm_committed()
            elif self.uncommitted[-1:] == [self.current]:
                self._progress.ran(self.uncommitted[-1])

    def confirm_committed(self) -> None:
        """Read back what is committed by now, and tell of it as done."""
        self._is_fresh = True
        if self.uncommitted:
            self._confirm(self.uncommitted, self._heads)
        for change in self.uncommitted:
            self._progress.done(change)
            self._changes.pop(change.name, None)
        self.uncommitted = []
        self.current = None

    def tell_recorded(self, recorded: Collection[str]) -> bool:
        """Tell of each revision before the current one that was read back as `recorded`.

        They are those of its transaction. Returns whether there was one.
        """
        before = [change for change in self.uncommitted if change != self.current]
        done = [change for change in before if change.name in recorded]
        for change in done:
            self._progress.done(change)
            self._changes.pop(change.name, None)
            self.uncommitted.remove(change)
        return bool(done)


def _watch_of(ctx: MigrationContext) -> StepWatch:
    return watch_of(ctx.connection) if ctx.connection is not None else Watch()
