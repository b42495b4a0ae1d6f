"""Recording Cypher files as applied, without running them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError, StoreConflict
from is_db_bootstrap.results import Change, Drift, Nature, Plan, RecordChange
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.version import number

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.blueprint import Blueprint

KIND = "stamp"
#: No file, and all files.
BASE, HEAD = "base", "head"


class Stamp(Neo4jBootstrapper):
    """Record the files up to `target` as applied, and those behind it as not applied.

    `target` is `head`, `base`, the name of a file, or its version. Nothing else is changed. Raises
    `ConfigurationError` for a target that the blueprint does not have.
    """

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        target: str,
        *,
        timing: Timing | None = None,
    ) -> None:
        super().__init__(url, blueprint, timing=timing)
        self._last = find_file(self._files, target, blueprint.name)
        self._is_base = target == BASE
        self._recorder.is_followed = False  # callbacks belong to files that run
        #: What the last plan has found to change, or what was changed.
        self.record_change = RecordChange()

    def plan(self) -> Plan:
        """One change when the record is another one.

        Raises `StoreConflict` for the history of another blueprint, and for one with a file that
        this blueprint does not have.
        """
        with self._errors(), self._database.session() as session:
            live = self._leasing.look(session)
            if self._fence.held is not None:
                self._leasing.refuse_unlockable(live)
            history = self._read_history(session)
            history.refuse_other_target(self._database.name)
            history.check(self._files, self._blueprint.name)
            self._refuse_unknown(history)
            wanted = self._wanted(history, session)
            used = self._used_labels(session, live)
            marks = self._recorder.marks(session) if neo4j_begun.LABEL in used else {}
            self.record_change = self._change_of(wanted, history, marks)
        if self.record_change == RecordChange():
            return Plan()
        name = wanted[-1].name if wanted else BASE
        return Plan((Change(name, KIND, "recorded, nothing else", Nature.ATOMIC),))

    def apply(self, change: Change) -> None:
        """Write the record, in one transaction."""
        with self._errors(change.name, change), self._database.session() as session:
            history = self._read_history(session)
            wanted = self._wanted(history, session)
            self._own.get_ready_to_record(session, change)
            began = time.monotonic()
            with self._fence.transaction(session, change) as run:
                for surplus in _behind(wanted, history):
                    run(neo4j_history.REMOVE, version=surplus.version)
                for file in _missing(wanted, history):
                    entry = history.entry(file.version)
                    if entry is not None and not file.repeatable:
                        facts = neo4j_history.recorded_facts(file)
                        run(neo4j_history.CORRECT, previous=entry.version, facts=facts)
                    else:
                        now = History.read(run(neo4j_history.READ))
                        self._recorder.record(run, file, now, began)
                for file in self._files:
                    run(neo4j_begun.REMOVE, **neo4j_begun.key(file))
            self._confirm(change, session)

    def _change_of(
        self,
        wanted: Sequence[CypherFile],
        history: History,
        marks: Mapping[tuple[int, ...], neo4j_begun.Begun],
    ) -> RecordChange:
        missing = _missing(wanted, history)
        recorded = {file.name for file in missing if history.entry(file.version) is not None}
        return RecordChange(
            added=tuple(file.name for file in missing if file.name not in recorded),
            removed=tuple(entry.source for entry in _behind(wanted, history)),
            renewed=tuple(file.name for file in missing if file.name in recorded),
            lifted=tuple(file.name for file in self._files if file.order in marks),
        )

    def _confirm(self, change: Change, session: neo4j.Session) -> None:
        """Read back that the record is the wanted one."""
        history = self._read_history(session)
        wanted = self._wanted(history, session)
        if _missing(wanted, history) or _behind(wanted, history):
            raise StoreConflict(
                STORE,
                f"{change.name} was stamped, and the record is another one now.",
                hint="Another tool writes the history. See `migrate current --cypher`, and repeat.",
                subject=change.name,
            )

    def verify(self) -> Sequence[Drift]:
        """Nothing: only the record is concerned, which `plan` compares."""
        return ()

    def _wanted(self, history: History, session: neo4j.Session) -> list[CypherFile]:
        if self._is_base:
            return []
        taken, _ = self._choose(history, session)
        if self._last is None:
            return taken
        return [file for file in taken if file.order <= self._last.order]

    def _refuse_unknown(self, history: History) -> None:
        known = {file.order for file in self._files}
        unknown = [entry for entry in history.entries if entry.order not in known]
        if unknown:
            raise StoreConflict(
                STORE,
                f"The history has {', '.join(map(str, unknown))}, which {self._blueprint.name} "
                "does not know.",
                hint="Stamp with the version of the blueprint that has the file.",
                subject=unknown[0].source,
            )


def find_file(files: Sequence[CypherFile], target: str, blueprint: str) -> CypherFile | None:
    """The last file that `target` names. None for `base` and `head`.

    Raises `ConfigurationError` when there is none.
    """
    if target in {BASE, HEAD}:
        return None
    named = [file for file in files if file.name == target]
    is_version = target.replace(".", "").replace("_", "").isdecimal()
    same = [file for file in files if is_version and file.order == number(target)]
    found = named or same
    if not found:
        raise ConfigurationError(
            f"neo4j: {blueprint} has no Cypher file {target}.",
            hint="Name one of `migrate history --cypher`, its version, head or base.",
        )
    return found[-1]


def _missing(wanted: Sequence[CypherFile], history: History) -> list[CypherFile]:
    """Files that are not recorded with their text."""
    entries = [(file, history.entry(file.version)) for file in wanted]
    return [
        file for file, entry in entries if entry is None or entry.checksum not in file.checksums
    ]


def _behind(wanted: Sequence[CypherFile], history: History) -> list[neo4j_history.Entry]:
    """What is recorded and not wanted."""
    orders = {file.order for file in wanted}
    return [entry for entry in history.entries if entry.order not in orders]
