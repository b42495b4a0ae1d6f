"""Which Cypher files a server takes: those whose preconditions it meets, one of each version.

What is recorded counts as taken, whatever the server meets today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import ServerInfo
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile, same_version
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.precondition import Precondition

#: Asks the database a question of a file, and returns its answer.
Ask = Callable[[CypherFile, Precondition], bool]


@dataclass(frozen=True, slots=True)
class Chooser:
    """Chooses for `server`, called `target`. `enterprise` is the blueprint's declaration."""

    server: ServerInfo
    target: str
    enterprise: bool

    def choose(
        self, files: Sequence[CypherFile], history: History, ask: Ask | None
    ) -> tuple[list[CypherFile], list[tuple[CypherFile, Precondition]]]:
        """The files to take, and those that are passed over with the assumption that is unmet.

        Without `ask`, a file with a question counts as passed over when it is not recorded. Raises
        `StoreConflict` for an assertion that is unmet, and for two files of one version.
        """
        taken: list[CypherFile] = []
        passed_over: list[tuple[CypherFile, Precondition]] = []
        for _, group in groupby(files, key=lambda file: file.order):
            left = list(group)
            recorded = _recorded(left, history)
            if recorded is not None:
                taken.append(recorded)
                continue
            met = []
            for file in left:
                unmet = self._unmet(file, ask)
                if unmet is None:
                    met.append(file)
                elif unmet.is_assumption:
                    passed_over.append((file, unmet))
                else:
                    raise self._unmet_assertion(file, unmet)
            if len(met) > 1:
                raise self._several(met)
            taken += met
        return taken, passed_over

    @property
    def described(self) -> str:
        """Version and edition of the server, for a message."""
        off = "" if self.enterprise else ", and the blueprint's enterprise files are off"
        return f"{self.server.version} {self.server.edition}{off}"

    def notes(self, files: Iterable[CypherFile]) -> list[str]:
        """What neo4j-migrations would choose otherwise."""
        return [
            f"Warning: neo4j-migrations compares versions as text, so that it would take "
            f"{file.name} on {self.server.version} (`{precondition.text}`). Here it is passed over."
            for file in files
            for precondition in file.preconditions
            if precondition.is_read_differently(self.server.version)
        ]

    def _unmet(self, file: CypherFile, ask: Ask | None) -> Precondition | None:
        """The first precondition that is not met; assertions come first."""
        forbidden = [p for p in file.preconditions if p.edition == "enterprise" and p.is_assumption]
        if forbidden and not self.enterprise:
            return forbidden[0]
        unmet = [p for p in file.preconditions if not self._holds(p)]
        if not unmet and ask is None:
            unmet = list(file.queries)
        elif not unmet and ask is not None:
            unmet = [p for p in file.queries if not ask(file, p)]
        return min(unmet, key=lambda p: p.is_assumption, default=None)

    def _holds(self, precondition: Precondition) -> bool:
        return precondition.holds(self.server.version, self.server.edition or "")

    def _unmet_assertion(self, file: CypherFile, unmet: Precondition) -> StoreConflict:
        hint = "Use such a server, or take the file out."
        if unmet.query:
            hint = "See what the question finds, or take the file out."
        return StoreConflict(
            STORE,
            f"{file.name} asks: {unmet.text}. {self.target} is {self.described}.",
            hint=hint,
            subject=file.name,
        )

    def _several(self, met: Sequence[CypherFile]) -> StoreConflict:
        error = same_version(met)
        return StoreConflict(
            STORE,
            f"{error.message.removeprefix('neo4j: ').removesuffix('.')}, and {self.target} "
            f"({self.described}) meets the assumptions of each.",
            hint=error.hint,
            subject=met[0].name,
        )


def _recorded(group: Sequence[CypherFile], history: History) -> CypherFile | None:
    """Which of the files of one version the history has; None when it has none of them.

    Of several, the recorded text tells. Without alternatives, the version tells.
    """
    entry = history.entry(group[0].version)
    if entry is None:
        return None
    same_text = [file for file in group if entry.checksum in file.checksums]
    same_name = [file for file in group if file.name == entry.source]
    found = [file for file in same_text if file in same_name] or same_text or same_name
    return found[0] if found else group[0]
