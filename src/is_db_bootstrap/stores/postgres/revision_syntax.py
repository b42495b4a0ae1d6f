"""Alembic's revision syntax (`branch@head`, `ae10+2`, a label), resolved by Alembic itself.

What needs no Alembic is not asked here: `head`, `base`, an id or its beginning, a number of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from is_db_bootstrap.errors import BootstrapError, StoreConflict
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.stores.postgres import alembic as postgres_alembic
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.team_environment import read_environment

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.revisions import Chain


class RevisionSyntax:
    """Finds revisions of a blueprint by what Alembic's own commands take.

    Each method raises `StoreConflict`, with Alembic's words, for what names nothing here.
    """

    def __init__(self, blueprint: Blueprint, chain: Chain) -> None:
        self._blueprint = blueprint
        self._chain = chain

    def named(self, target: str) -> tuple[str, ...]:
        """The revisions that `target` names by itself, such as `billing@head`."""
        with self._resolving(target) as script:
            return tuple(each.revision for each in script.get_revisions(target) if each)

    def above(self, target: str, recorded: Sequence[str]) -> frozenset[str]:
        """What an upgrade from the `recorded` revisions to `target` applies."""
        with self._resolving(target) as script:
            found = script.iterate_revisions(target, tuple(recorded), implicit_base=True)
            return frozenset(each.revision for each in found)

    def below(self, target: str, recorded: Sequence[str]) -> frozenset[str]:
        """What a downgrade from the `recorded` revisions to `target` undoes."""
        with self._resolving(target) as script:
            found = script.iterate_revisions(
                tuple(recorded), target, select_for_downgrade=True, implicit_base=False
            )
            return frozenset(each.revision for each in found)

    @contextmanager
    def _resolving(self, target: str) -> Iterator[ScriptDirectory]:
        """The scripts, whose modules are user code."""
        try:
            with running_alembic(), strict_guest():
                yield self._script()
        except BootstrapError:
            raise
        except GuestFailed as exc:
            cause = exc.__cause__
            said = cause if isinstance(cause, CommandError | RevisionError) else exc
            raise StoreConflict(
                "postgres",
                f"There is no revision {target!r}: {said}.",
                hint=f"Known: {', '.join(self._chain.order)}.",
            ) from exc

    def _script(self) -> ScriptDirectory:
        declared = self._blueprint.alembic
        if declared is not None:
            environment = read_environment(declared)
            return environment.script(environment.config())
        return ScriptDirectory.from_config(postgres_alembic.config(self._blueprint, "public"))
