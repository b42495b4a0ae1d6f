"""One run of a team's `env.py` that undoes one revision, followed as an upgrade is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.util import CommandError

from is_db_bootstrap.guests import host
from is_db_bootstrap.stores.postgres.alembic import watched
from is_db_bootstrap.stores.postgres.any_session import AnySession
from is_db_bootstrap.stores.postgres.upgrade_run import UpgradeRun

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from is_db_bootstrap.engine.store import Progress
    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.postgres.revisions import Chain


class StepGuard(Protocol):
    """Looks at a step inside of its transaction (`downgrade_guard`)."""

    def began(self, session: AnySession) -> None:
        """The transaction has begun, and the step has not."""

    def ends(self, session: AnySession) -> None:
        """The step has run, and nothing is committed."""


class DowngradeRun(UpgradeRun):
    """Follows one run of Alembic that undoes `change`.

    `guard` looks at the step inside of its transaction. Without one, rows may go.
    """

    def __init__(
        self, chain: Chain, change: Change, progress: Progress, guard: StepGuard | None
    ) -> None:
        super().__init__(
            chain,
            [change],
            progress,
            plan=lambda _: None,
            before=lambda _: None,
            confirm=lambda *_: None,
        )
        self._guard = guard
        self._change = change

    @property
    def _destination(self) -> str:
        """What `env.py` is told as the revision to go to."""
        parents = self._chain.parents[self._change.name]
        return parents[0] if len(parents) == 1 else "base" if not parents else "-1"

    def _steps(
        self, heads: Collection[str], ctx: MigrationContext, script: ScriptDirectory
    ) -> Iterator[RevisionStep]:
        self._start(heads, ctx, script)
        name = self._change.name
        done = self._chain.until(heads)
        if name not in done:
            with host():
                remark = f"Revision {name} was undone by another session meanwhile."
                self._progress.done(self._change, remark)
            return
        if later := [each for each in done if name in self._chain.parents[each]]:
            raise CommandError(f"{', '.join(later)} goes on from {name}")
        self._begin(name)
        found = script.get_revision(name)
        step = RevisionStep(script.revision_map, found, is_upgrade=False)
        act = self._guarded(watched(step, ctx, self._watch), ctx)
        step.migration_fn = self._locked(act, ctx)
        yield step
        self._after(ctx)

    def _guarded(self, act: Callable[..., Any], ctx: MigrationContext) -> Callable[..., Any]:
        """What the step runs, after the guard has looked."""

        def run(**given: Any) -> Any:
            if self._guard is not None and ctx.connection is not None:
                with host():
                    self._guard.began(AnySession(ctx.connection))
            return act(**given)

        run.__name__ = "downgrade"  # Alembic logs it
        return run

    def _applied(self, ctx: MigrationContext, heads: Collection[str], **given: Any) -> None:
        """The step has run: the guard looks again, before anything is committed."""
        if self._guard is not None and ctx.connection is not None and not self._watch.left:
            with host():
                self._guard.ends(AnySession(ctx.connection))
        super()._applied(ctx, heads, **given)
