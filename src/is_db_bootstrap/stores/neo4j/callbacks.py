"""Callbacks of neo4j-migrations: Cypher files that run before or after the files of a run.

They are not recorded, and may change at any time. Its `apply` runs them whether anything is pending
or not. Here a run with nothing to do writes nothing, so they run with the files that are applied.
That those behind the files are due is a node, which is committed with each record and removed with
the last of them. So a run that is killed between the two leaves them to the next run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.neo4j import cypher_text
from is_db_bootstrap.stores.neo4j.begun import LABEL
from is_db_bootstrap.stores.neo4j.cypher_file import read_text, refuse_shell_commands
from is_db_bootstrap.stores.neo4j.cypher_folder import CALLBACK_NAME, callback_files
from is_db_bootstrap.stores.neo4j.cypher_text import Statement

if TYPE_CHECKING:
    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.errors import Translation
    from is_db_bootstrap.stores.neo4j.fence import Fence

KIND = "callback"
#: The phases that belong to `apply`, in their order. The files of a run stand before the last one.
_BEFORE = ("beforeFirstUse", "beforeMigrate")
_AFTER = "afterMigrate"

_DUE = f"(m:{LABEL} {{version: '{_AFTER}'}})"
#: Says that the callbacks behind the files are due.
WRITE_DUE = f"MERGE {_DUE}"
IS_DUE = f"MATCH {_DUE} RETURN m.version AS version LIMIT 1"
_REMOVE_DUE = f"MATCH {_DUE} DELETE m"


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback. `place` is its path below the folder."""

    place: str
    phase: str
    description: str
    statements: tuple[Statement, ...]

    @property
    def change(self) -> Change:
        """The step that runs it."""
        return Change(self.place, KIND, self.phase, self._nature)

    @property
    def is_transactional(self) -> bool:
        """Whether its statements share one transaction."""
        return all(statement.is_data for statement in self.statements)

    @property
    def may_change_data(self) -> bool:
        """Whether it may change nodes or relationships."""
        return any(statement.may_change_data for statement in self.statements)

    @property
    def _nature(self) -> Nature:
        """Whoever writes a callback knows that it runs often, but not that it runs in parts."""
        if self.is_transactional:
            return Nature.ATOMIC
        is_batched = any(statement.is_batched for statement in self.statements)
        return Nature.NEITHER if is_batched else Nature.REPEATABLE


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The callbacks of a folder, in the order in which they run."""

    before: tuple[Callback, ...] = ()
    after: tuple[Callback, ...] = ()
    not_run: tuple[Callback, ...] = ()

    @classmethod
    def load(cls, folder: Path, *, autocrlf: bool = False) -> Callbacks:
        """Those of a folder and of the folders below it.

        `ConfigurationError` names the file and the line.
        """
        found = [_read(path, folder, autocrlf=autocrlf) for path in callback_files(folder)]
        found.sort(key=lambda callback: (callback.description, callback.place))
        return cls(
            tuple(each for phase in _BEFORE for each in found if each.phase == phase),
            tuple(each for each in found if each.phase == _AFTER),
            tuple(each for each in found if each.phase not in {*_BEFORE, _AFTER}),
        )

    def find(self, place: str) -> Callback | None:
        """The callback that a change names."""
        return next((each for each in (*self.before, *self.after) if each.place == place), None)

    def around(self, changes: Sequence[Change], *, is_due: bool) -> list[Change]:
        """The changes of files with the callbacks before and behind them.

        With `is_due`, an earlier run has applied files and ended before those behind them.
        """
        before = [each.change for each in self.before] if changes else []
        after = [each.change for each in self.after] if changes or is_due else []
        return [*before, *changes, *after]

    def notes(self) -> Iterator[str]:
        """Which callbacks belong to other commands than `apply`."""
        if self.not_run:
            names = ", ".join(each.place for each in self.not_run)
            yield f"Not run, because they are callbacks of other commands than apply: {names}."


def _read(path: Path, folder: Path, *, autocrlf: bool) -> Callback:
    parts = CALLBACK_NAME.fullmatch(path.name)
    if parts is None:
        raise TypeError(path)
    text = read_text(path)
    place = str(path.relative_to(folder))
    try:
        statements = tuple(cypher_text.split(text.replace("\r\n", "\n") if autocrlf else text))
    except ValueError as exc:
        raise ConfigurationError(f"neo4j: {place}: {exc}.") from exc
    refuse_shell_commands(place, statements)
    return Callback(place, parts["phase"], parts["description"] or "", statements)


class CallbackRun:
    """Runs callbacks in `database`."""

    def __init__(self, database: Database, fence: Fence, errors: Translation) -> None:
        self._database = database
        self._fence = fence
        self._errors = errors

    def apply(self, callback: Callback, change: Change, *, is_last: bool) -> None:
        """Run a callback. With `is_last`, nothing behind the files is due any more.

        Its statements share one transaction, unless one of them commits by itself.
        """
        with self._errors(callback.place, change), self._database.session() as session:
            if not callback.is_transactional:
                for number, statement in enumerate(callback.statements, 1):
                    self._fence.refuse_lost(session, change)
                    with (
                        self._errors(_place_of(callback, number, statement), change),
                        self._database.sending(statement),
                    ):
                        self._database.rows(session, statement.text)
            with self._fence.transaction(session, change) as run:
                if callback.is_transactional:
                    for number, statement in enumerate(callback.statements, 1):
                        with (
                            self._errors(_place_of(callback, number, statement), change),
                            self._database.sending(statement),
                        ):
                            run(statement.text)
                if is_last:
                    run(_REMOVE_DUE)


def _place_of(callback: Callback, number: int, statement: Statement) -> str:
    return f"{callback.place}, statement {number} (line {statement.line})"
