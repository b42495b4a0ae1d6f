"""What is committed about a file: its mark while it runs, and its record in the history."""

from __future__ import annotations

import os
import pwd
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import BootstrapError, StoreBusy, StoreConflict
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import callbacks
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j.begun import Begun
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.seed import Run
from is_db_bootstrap.stores.neo4j.version import number

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.fence import Fence


class Recorder:
    """Writes marks and records of the blueprint called `blueprint` into `database`.

    `username` is who is recorded as connected. `is_followed` says that callbacks follow the files
    of a run, which are due from the first record on.
    """

    def __init__(
        self,
        database: Database,
        fence: Fence,
        errors: Translation,
        *,
        blueprint: str,
        username: str,
        is_followed: bool = False,
    ) -> None:
        self._database = database
        self._fence = fence
        self._errors = errors
        self.blueprint = blueprint
        self._username = username
        self.is_followed = is_followed

    def marks(self, session: neo4j.Session) -> dict[tuple[int, ...], Begun]:
        """The marks of begun files, by the place of the file."""
        if not self._database.rows(session, neo4j_begun.ANY):
            return {}
        rows = self._database.rows(session, neo4j_begun.READ)
        return {mark.order: mark for mark in neo4j_begun.read_marks(rows)}

    def mark_begun(
        self,
        session: neo4j.Session,
        file: CypherFile,
        change: Change,
        count: int,
        *,
        running: bool,
        building: str = "",
    ) -> None:
        """Commit the mark, if the lease is still ours."""
        with self._fence.transaction(session, change) as run:
            self.write_mark(run, file, count, running=running, building=building)

    def write_mark(
        self, run: Run, file: CypherFile, count: int, *, running: bool, building: str = ""
    ) -> None:
        """Write the mark in a transaction of the caller."""
        lease = self._fence.lease
        owner = lease.owner if lease is not None else f"{_system_user()}, without a lock"
        facts = neo4j_begun.facts(file, count, running=running, building=building)
        run(neo4j_begun.WRITE, token=self._fence.token, owner=owner, **facts)

    def take_back(
        self, session: neo4j.Session, file: CypherFile, change: Change, number: int
    ) -> None:
        """Mark a statement that the server refused as not begun.

        A mark that cannot be written stays as it is.
        """
        with suppress(BootstrapError), self._errors(file.name, change):
            self.mark_ended(session, file, change, number - 1)

    def mark_ended(
        self, session: neo4j.Session, file: CypherFile, change: Change, count: int
    ) -> None:
        """Commit that the first `count` statements have ended.

        Where all of them may be sent again, the mark is removed instead.
        """
        if count and needs_mark(file):
            self.mark_begun(session, file, change, count, running=False)
            return
        with self._fence.transaction(session, change) as run:
            run(neo4j_begun.REMOVE, **neo4j_begun.key(file))

    def record(self, run: Run, file: CypherFile, history: History, began: float) -> None:
        """Write the history node, or the REPEATED of a file that ran before, into `history`.

        Writers wait for each other from here to the end of their transactions, so the second one
        sees what the first has recorded. Raises `StoreBusy` when that is this very file: tried
        again, it is found to be applied already.
        """
        run(neo4j_history.WAIT_FOR_WRITERS)
        orders = self._begin_chain(run)
        # Without a lock, others may have recorded something in front of this file.
        if file.order in orders or self._fence.held is None:
            history = History.read(run(neo4j_history.READ))
        entry = history.entry(file.version)
        if entry is not None:
            neo4j_history.compare(entry, file)
            if entry.checksum in file.checksums:
                raise StoreBusy(
                    STORE,
                    f"{file.name} was recorded by another run meanwhile.",
                    subject=file.name,
                )
        run_facts = {
            "ms": int((time.monotonic() - began) * 1000),
            "by": _system_user(),
            "user": self._username,
        }
        if entry is not None:
            version = entry.version
            rows = run(neo4j_history.REPEAT, **run_facts, version=version, checksum=file.checksum)
        else:
            is_last = all(order < file.order for order in orders)
            text = neo4j_history.RECORD_LAST if is_last else neo4j_history.RECORD
            facts = neo4j_history.recorded_facts(file)
            rows = run(text, **run_facts, facts=facts, previous=history.before(file))
        if not rows or rows[0]["recorded"] != 1:
            raise StoreConflict(
                STORE,
                f"{file.name} could not be recorded: "
                f"version {history.before(file)} is not in the history once.",
                hint="See MATCH (m:__Neo4jMigration) RETURN m.",
                subject=file.name,
            )
        if self.is_followed:
            run(callbacks.WRITE_DUE)

    def _begin_chain(self, run: Run) -> set[tuple[int, ...]]:
        """See that the chain of the history begins, and that it is this blueprint's.

        Returns the places of the files that are recorded. Raises `StoreConflict` for the history of
        another blueprint.
        """
        recorded = {row["version"]: row["blueprint"] for row in run(neo4j_history.VERSIONS)}
        is_begun = neo4j_history.BASELINE in recorded
        blueprint = recorded.pop(neo4j_history.BASELINE, None)
        History(blueprint=blueprint or "").refuse_other_blueprint(self.blueprint)
        if not is_begun:
            run(neo4j_history.BEGIN_CHAIN, blueprint=self.blueprint)
        elif blueprint is None:
            run(neo4j_history.ADOPT, blueprint=self.blueprint)
        return {number(version) for version in recorded}


def needs_mark(file: CypherFile) -> bool:
    """Whether half of it may stay without a record, and running that half again is not harmless."""
    return neo4j_begun.nature(file) is Nature.NEITHER


def _system_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's uid without an entry in passwd
        return str(os.getuid())
