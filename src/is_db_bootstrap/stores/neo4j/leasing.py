"""Taking the lock of a database, and looking at the lock of others."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from is_db_bootstrap.errors import AccessDenied, StoreBusy
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j import own_schema
from is_db_bootstrap.stores.neo4j.duplicates import USED_LABELS
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.lock import Claim, Lease

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.engine.store import Anchor, LeftLease, Lock, PresentLock
    from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema
    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.fence import Fence
    from is_db_bootstrap.stores.neo4j.own_schema import OwnSchema

#: A plan's look at the schema serves the try for the lock for so many seconds.
_LOOK_SERVES_S = 5.0


class Leasing:
    """Takes the lock of `database` for `lease_s` seconds, for the user called `username`."""

    def __init__(
        self,
        database: Database,
        fence: Fence,
        errors: Translation,
        own: OwnSchema,
        *,
        username: str,
        lease_s: float,
    ) -> None:
        self._database = database
        self._fence = fence
        self._errors = errors
        self._own = own
        self._username = username
        self._lease_s = lease_s
        #: The lock of another store that the run holds besides, which the lease records.
        self.anchor: Anchor | None = None
        self._claim: Claim | None = None
        #: The schema that the last plan has seen, and when, on the monotonic clock.
        self._planned_on: tuple[float, LiveSchema] | None = None

    def forget(self) -> None:
        """Take what a plan has seen for known no more."""
        self._planned_on = None

    def look(self, session: neo4j.Session) -> LiveSchema:
        """The schema, for a plan and for the try for the lock behind it."""
        looked_at = time.monotonic()
        live = self._database.live = self._database.look(session)
        self._planned_on = (looked_at, live)
        return live

    def refuse_unlockable(self, live: LiveSchema) -> None:
        """Raise `StoreBusy` when what the lock needs is gone while it is held."""
        if own_schema.absent(neo4j_lock.SCHEMA, live):
            raise StoreBusy(
                STORE,
                "The constraints that the lock needs are gone: another run is at work.",
                hint="See who drops them.",
            )

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """One try. A lapsed lease of ours is taken over."""
        held = self._ready_to_lock()
        if held is not None:
            return held
        taken = neo4j_lock.take(
            self._database.write,
            self._claim_for(owner),
            self._lease_s,
            self._end_runs,
            database=self._database.name,
        )
        self._fence.lease = taken if isinstance(taken, Lease) else None
        if isinstance(taken, Lease):
            self._claim = None  # the next lock of this store gets a token of its own
        return taken

    def left_lease(self) -> LeftLease | None:
        """The lease that is there now. This only reads."""
        with self._errors("the lock"), self._database.session() as session:
            rows = self._database.rows(session, neo4j_lock.HOLDER)
        who = self._username if self._database.is_alone else None
        return neo4j_lock.left_lease(rows, who)

    def present_lock(self) -> PresentLock | None:
        """The lock that is there now, and whether its holder is at work. This only reads."""
        with self._errors("the lock"), self._database.session() as session:
            rows = self._database.rows(session, neo4j_lock.HOLDER)
        return neo4j_lock.present(rows[0], self._other_agents()) if rows else None

    def remove_lock(self, seen: PresentLock) -> bool:
        """Delete the lock that was seen, unless it has changed since."""
        token = cast("Mapping[str, Any]", seen.token)
        return bool(self._database.write(neo4j_lock.REMOVE_SEEN, token)[0]["removed"])

    def _other_agents(self) -> list[str] | None:
        """What the other connections call themselves. None when not all of them can be seen."""
        if not self._database.is_alone:
            return None
        try:
            with self._errors("the connections"), self._database.session() as session:
                if not self._sees_all(session):
                    return None
                rows = self._database.rows(session, neo4j_lock.OTHERS, tag=self._database.tag)
        except AccessDenied:
            return None
        return [str(row["agent"]) for row in rows]

    def _sees_all(self, session: neo4j.Session) -> bool:
        """Whether this user sees the connections of other users."""
        server = self._database.server
        if server is not None and server.edition == "community":
            return True
        [row] = self._database.rows(session, neo4j_lock.ROLES)
        return "admin" in (row["roles"] or ())

    def release_lapsed(self) -> str | None:
        """Delete the lock of a run that is over. Returns what is told of it."""
        owner = neo4j_lock.lapsed_owner(self._database.write)
        return None if owner is None else f"The lock of a run that is over was removed: {owner}."

    def _claim_for(self, owner: str) -> Claim:
        """The claim of this run, with the same token for each try."""
        claim = Claim(
            owner,
            self._database.tag,
            self._username,
            self._database.is_alone,
            self.anchor,
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
                self._own.make(session, neo4j_lock.SCHEMA)
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
