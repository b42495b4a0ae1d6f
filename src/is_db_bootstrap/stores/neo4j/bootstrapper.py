"""Neo4j: Cypher files once each, their history in the format of neo4j-migrations, schema compared.

`database` is the connection and what is seen on it, `history` what is recorded, `schema_forecast`
goes through pending files on paper, and `compare` sets declared objects beside live ones.
`file_run` runs a file and records it, in transactions of `fence`, which end with a look at the
lease: a run that lost its lock commits nothing that another run has begun.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import AccessDenied, ChangeFailed, StoreBusy, StoreConflict
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import (
    Change,
    Drift,
    LockHolder,
    Nature,
    Plan,
    Proof,
    ServerInfo,
    Status,
)
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j import begun as neo4j_begun
from is_db_bootstrap.stores.neo4j import compare, cypher_file, own_schema
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.database import Database
from is_db_bootstrap.stores.neo4j.duplicates import USED_LABELS, refuse_duplicates
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.fence import Fence
from is_db_bootstrap.stores.neo4j.file_run import OWN_SCHEMA, FileRun
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import KIND
from is_db_bootstrap.stores.neo4j.lock import Claim, Lease
from is_db_bootstrap.stores.neo4j.schema_forecast import declared, forecast
from is_db_bootstrap.stores.neo4j.seed import Seed

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import Anchor, LeftLease, Lock
    from is_db_bootstrap.stores.neo4j.begun import Begun
    from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject


#: A plan's look at the schema serves the try for the lock for so many seconds.
_LOOK_SERVES_S = 5.0


class Neo4jBootstrapper:
    """The Neo4j part of a blueprint, in one database of a server or cluster.

    A path of `url` names the database; none is the user's home database. Of `timing`,
    `connect_timeout_s` bounds connections, `lease_s` the lock, `index_timeout_s` the wait for
    indexes after a file. The blueprint's demo data is planned, written and verified with `seed`
    only. Raises `ConfigurationError` for files that are not understood.
    """

    name: StoreName = "neo4j"

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        *,
        timing: Timing | None = None,
        seed: bool = False,
    ) -> None:
        self._url = StoreUrl.parse("neo4j", url) if isinstance(url, str) else url
        self._blueprint = blueprint if seed else blueprint.without_seed()
        self._timing = timing or Timing()
        folder = blueprint.cypher
        self._files = cypher_file.load(folder) if folder else ()
        self._seed = Seed(self._blueprint.seed_nodes, self._blueprint.seed_relationships)
        self._errors = Translation(self._url)
        self._database = Database(self._url, self._timing.connect_timeout_s, self._errors)
        self._fence = Fence(self._database)
        self._file_run = FileRun(
            self._database,
            self._fence,
            self._errors,
            blueprint=blueprint.name,
            username=self._url.username,
            index_timeout_s=self._timing.index_timeout_s,
        )
        self._anchor: Anchor | None = None
        self._claim: Claim | None = None
        #: The schema that the last plan has seen, and when, on the monotonic clock.
        self._planned_on: tuple[float, LiveSchema] | None = None
        self.target = str(self._url)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections, with the credentials once.

        The target database reads, is online and has a writer. Raises `StoreUnavailable`,
        `AccessDenied`, `ConfigurationError` when something else answers, `StoreConflict` below
        Neo4j 5 or for a database that does not exist.
        """
        self.close()
        return self._database.open(timeout_s)

    # --- planning

    def plan(self) -> Plan:
        """Compare history and files, and forecast what pending files will meet.

        Seeds that are missing are looked for. Three queries when nothing is pending. Raises
        `StoreConflict` as `History.is_ahead`, `forecast` and `assert` say.
        """
        with self._errors(), self._database.session() as session:
            looked_at = time.monotonic()
            live = self._database.live = self._database.look(session)
            self._planned_on = (looked_at, live)
            used = self._used_labels(session, live)
            history = History()
            if neo4j_history.LABEL in used:
                history = self._read_history(session)
            is_held = self._fence.held is not None
            if is_held and own_schema.absent(neo4j_lock.SCHEMA, live):
                raise StoreBusy(
                    self.name,
                    "The constraints that the lock needs are gone: another run is at work.",
                    hint="See who drops them.",
                )
            self._file_run.forget_records()
            self._file_run.history = history if is_held else None
            history.check(self._files, self._blueprint.name)
            skipped = tuple(self._skipped(history))
            usable = self._without(skipped)
            if history.is_ahead(self._files, usable, self._blueprint.name):
                note = (
                    f"The history goes on to {history.entries[-1].source}, beyond "
                    f"{self._files[-1].name}; nothing is changed."
                )
                return Plan(skipped=skipped, notes=(note,), ahead=True)
            changes = history.pending(usable)
            names = {change.name for change in changes}
            pending = [file for file in usable if file.name in names]
            marks: dict[tuple[int, ...], Begun] = {}
            if pending and neo4j_begun.LABEL in used:
                marks = self._file_run.marks(session)
            self._file_run.known_marks = marks if is_held and pending else None
            begun = self._refuse_half_done(pending, marks)
            changes = [_with_mark(change, begun) for change in changes]
            new = forecast(pending, live)
            refuse_duplicates(lambda text: self._database.rows(session, text), new)
            changes += self._missing_seeds(session)
        notes = tuple(self._notes(usable, pending))
        return Plan(tuple(changes), skipped, notes, begun=begun)

    def _read_history(self, session: neo4j.Session) -> History:
        return History.read(self._database.rows(session, neo4j_history.READ))

    def _missing_seeds(self, session: neo4j.Session) -> list[Change]:
        def run(text: str, **parameters: Any) -> list[dict[str, Any]]:
            return self._database.rows(session, text, **parameters)

        return self._seed.missing(run)

    def _skipped(self, history: History) -> Iterator[Change]:
        for file in self._files:
            unmet = None if history.entry(file.version) else self._unmet(file)
            if unmet is not None and not unmet.is_assumption:
                raise StoreConflict(
                    self.name,
                    f"{file.name} asks: {unmet.text}. {self.target} is {self._described_server()}.",
                    hint="Use such a server, or take the file out.",
                    subject=file.name,
                )
            if unmet is not None:
                detail = f"{unmet.text}; the server is {self._described_server()}"
                yield neo4j_history.change_of(file, detail)

    def _unmet(self, file: CypherFile) -> cypher_file.Precondition | None:
        server = self._database.server or ServerInfo("0", "")
        forbidden = [p for p in file.preconditions if p.edition == "enterprise" and p.is_assumption]
        if forbidden and not self._blueprint.enterprise:
            return forbidden[0]
        return file.unmet(server.version, server.edition or "")

    def _described_server(self) -> str:
        server = self._database.server or ServerInfo("?", "?")
        off = "" if self._blueprint.enterprise else ", and the blueprint's enterprise files are off"
        return f"{server.version} {server.edition}{off}"

    def _without(self, skipped: Sequence[Change]) -> list[CypherFile]:
        names = {c.name for c in skipped}
        return [f for f in self._files if f.name not in names]

    def _notes(self, usable: Sequence[CypherFile], pending: Sequence[CypherFile]) -> Iterator[str]:
        unverified = [f"{f.name} ({f.unrecognised})" for f in usable if f.unrecognised]
        if unverified:
            yield (
                "Not verified, because they declare no constraint or index: statements of "
                f"{', '.join(unverified)}."
            )
        if pending and (warning := cypher_file.order_warning(self._files)):
            yield warning
        for file in pending:
            yield from file.lint()
        if self._database.live is not None:
            yield from compare.twins(declared(usable).values(), self._database.live)

    def _used_labels(self, session: neo4j.Session, live: LiveSchema) -> Collection[str]:
        """Which labels of ours nodes may have.

        The server is asked where there seems to be no history. It compiles this question in a
        fraction of the time that it needs for those about the history and the marks.
        """
        if neo4j_history.SCHEMA.keys() <= live.objects.keys():
            return (neo4j_history.LABEL, neo4j_begun.LABEL)
        return {row["n"] for row in self._database.rows(session, USED_LABELS)}

    def _refuse_half_done(
        self, pending: Sequence[CypherFile], marks: Mapping[tuple[int, ...], Begun]
    ) -> tuple[str, ...]:
        """Raise for a file that an earlier run has begun and that nobody may go on with unasked.

        Returns the names of those that this run goes on with. A run that still holds its lease is
        at work: this one will wait for the lock, and plan again.
        """
        begun = []
        for file in pending:
            mark = marks.get(file.order)
            if mark is not None and not mark.at_work:
                self._file_run.next_statement(file, mark)
                begun.append(file.name)
        return tuple(begun)

    def allow_retry(self, changes: Collection[str]) -> None:
        """Let these files run again although they have begun and are not recorded."""
        self._file_run.consent.give(changes)

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Run one file and record it, or create one seed.

        A crash before the record runs the file again, from where that is harmless (see `begun.py`).
        Raises `ChangeFailed` with file, statement and line; `StoreConflict` for duplicates and
        other definitions; `StoreUnavailable` when the lease was lost: then nothing of a file of
        data, and no record, is committed.
        """
        if change.kind == "seed":
            self._apply_seed(change)
            return None
        file = next((f for f in self._files if f.name == change.name), None)
        if file is None:
            raise ChangeFailed(
                self.name, f"{change.name} is not a file of {self._blueprint.name}.", change=change
            )
        return self._file_run.apply(file, change)

    def _apply_seed(self, change: Change) -> None:
        with (
            self._errors(change.name, change),
            self._database.session() as session,
            self._fence.transaction(session, change) as run,
        ):
            self._seed.create(change, run)

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Each object that the files leave behind against the live one.

        Compared are name, label, properties and kind, and whether it is ONLINE.
        """
        if self._database.server is None:
            self.ping(self._timing.connect_timeout_s)
        with self._errors(), self._database.session() as session:
            live = self._database.live = self._database.look(session)
            drifts = list(compare.drifts(self._declared_here(), live))
            missing = self._missing_seeds(session)
        return drifts + [Drift(seed.name, seed.kind, "is missing") for seed in missing]

    def _declared_here(self) -> list[SchemaObject]:
        """What the files that this server takes leave behind."""
        return list(declared(f for f in self._files if self._unmet(f) is None).values())

    def selftest(self) -> Iterator[Proof]:
        """Try each declared constraint and index in transactions that are rolled back.

        See `selftest.py`.
        """
        from is_db_bootstrap.stores.neo4j.selftest import SelfTest

        with self._errors("a probe"), self._database.session() as session:
            yield from SelfTest(session, self._declared_here()).proofs()

    def audit(self) -> Sequence[Drift]:
        """Constraints and indexes that no file declares.

        What both tools need for themselves, and the server's own token lookups, are none.
        """
        if self._database.live is None:
            with self._errors(), self._database.session() as session:
                self._database.live = self._database.look(session)
        live = self._database.live
        return list(compare.findings(declared(self._files), OWN_SCHEMA, live))

    def status(self) -> Status:
        """The last recorded file, the last file that this server takes, and who holds the lock."""
        with self._errors(), self._database.session() as session:
            history = self._read_history(session)
            held = self._database.rows(session, neo4j_lock.HOLDER)
        usable = self._without(tuple(self._skipped(history)))
        recorded = history.entries[-1].source if history.entries else ""
        head = usable[-1].name if usable else ""
        return Status(recorded, head, neo4j_lock.present_holder(held))

    # --- the lock

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """A lease of `timing.lease_s` on the node that neo4j-migrations locks with.

        A lapsed one of ours is taken over.
        """
        held = self._ready_to_lock()
        if held is not None:
            return held
        taken = neo4j_lock.take(
            self._database.write, self._claim_for(owner), self._timing.lease_s, self._end_runs
        )
        self._file_run.forget_records()
        self._fence.lease = taken if isinstance(taken, Lease) else None
        if isinstance(taken, Lease):
            self._claim = None  # the next lock of this store gets a token of its own
        return taken

    def know_anchor(self, anchor: Anchor | None) -> None:
        """Note the anchor of this run, which the lease records."""
        self._anchor = anchor

    def _claim_for(self, owner: str) -> Claim:
        """The claim of this run, with the same token for each try."""
        claim = Claim(
            owner,
            self._database.tag,
            self._url.username,
            self._database.is_alone,
            self._anchor,
        )
        if self._claim is not None and self._claim.owner == owner:
            claim = replace(claim, token=self._claim.token)
        self._claim = claim
        return claim

    def _end_runs(self, runs: Sequence[str]) -> bool:
        """End the transactions and connections of `runs`. Returns whether none of them is left.

        False when this user may not look or end them: then their lease has to lapse.
        """
        try:
            return self._database.end_runs(runs)
        except AccessDenied:
            return False

    def _ready_to_lock(self) -> LockHolder | None:
        """Make the constraints of the lease where they are absent.

        Returns the holder when a run that has a lease forbids that: its transactions would wait for
        the schema statement, or be the victim of a deadlock with it. These constraints are the only
        thing that is changed without a lease.
        """
        with self._errors("the lock"), self._database.session() as session:
            self._database.live = self._seen_by_plan() or self._database.look(session)
            if own_schema.absent(neo4j_lock.SCHEMA, self._database.live):
                present = self._present_holder(session)
                if present is not None:
                    return present
                self._file_run.make_own(session, neo4j_lock.SCHEMA)
        return None

    def _seen_by_plan(self) -> LiveSchema | None:
        """The schema that the plan before this try has seen. None when that is not so lately.

        It serves one try only. Whether the constraints are still there is seen under the lock, by
        the next plan.
        """
        planned_on, self._planned_on = self._planned_on, None
        if planned_on is None or time.monotonic() - planned_on[0] > _LOOK_SERVES_S:
            return None
        return planned_on[1]

    def _present_holder(self, session: neo4j.Session) -> LockHolder | None:
        """Who holds the lock. The lock is only read where there is one."""
        used = {row["n"] for row in self._database.rows(session, USED_LABELS)}
        if neo4j_lock.LABEL not in used:
            return None
        return neo4j_lock.present_holder(self._database.rows(session, neo4j_lock.HOLDER))

    def left_lease(self) -> LeftLease | None:
        """The lease that is there now.

        This only reads, so that a user who may not write meets no refusal.
        """
        with self._errors("the lock"), self._database.session() as session:
            rows = self._database.rows(session, neo4j_lock.HOLDER)
        who = self._url.username if self._database.is_alone else None
        return neo4j_lock.left_lease(rows, who)

    def release_lapsed(self) -> str | None:
        """Delete the lock of a run that is over.

        The command line of neo4j-migrations knows no lease, so it would refuse to run for ever.
        """
        owner = neo4j_lock.lapsed_owner(self._database.write)
        return None if owner is None else f"The lock of a run that is over was removed: {owner}."

    # --- ending

    def cancel(self) -> None:
        """From another thread: terminate our transactions on the server.

        Where that is refused, the connections are broken.
        """
        self._database.terminate()

    def disconnect(self) -> str:
        """From another thread: break the connections.

        The server rolls back what they had begun and not committed, when it notices.
        """
        self._database.hang_up()
        return (
            "Neo4j gave no answer, so its transactions of this run were not seen to end. It rolls"
            " them back when it notices that their connection has gone."
        )

    # --- waiting

    def waits_for(self) -> str:
        """From another thread: which transactions of others block ours, as far as can be told."""
        return self._database.waits_for()

    def end_wait(self) -> bool:
        """From another thread: end our statement if others block it and nothing of it is left then.

        What commits while it runs is left to wait: some of it is committed already.
        """
        return self._database.end_wait()

    def what_goes_on(self) -> str:
        """What the server goes on with after `cancel`, as a sentence for the report."""
        return KIND.unended

    def close(self) -> None:
        """Release every connection."""
        self._fence.lease = None
        self._planned_on = None
        self._file_run.forget()
        self._database.close()


def _with_mark(change: Change, begun: Collection[str]) -> Change:
    """The change of a file. One that has begun is not atomic any more, whatever it has by now."""
    if change.name in begun and change.nature is Nature.ATOMIC:
        return replace(change, nature=Nature.NEITHER)
    return change
