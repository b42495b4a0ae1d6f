"""Redis: key conventions recorded in the store, a probe that leaves nothing behind, a leased lock.

Only single-key commands are sent, so that a cluster is served like one server; never KEYS, never
CONFIG, and `notify-keyspace-events` is left as it is, because others set it
(spring-data-redis#2894). `server` opens and judges a server, `compare` sets the record beside the
declaration, `guarded` writes, `lock` is the lease, and `key_audit` looks at keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import redis

from is_db_bootstrap.engine.memory import Memory, Recall
from is_db_bootstrap.engine.store import MadeByOther
from is_db_bootstrap.errors import AccessDenied, StoreBusy, StoreConflict, StoreUnavailable
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import (
    Change,
    Drift,
    LockHolder,
    Plan,
    Proof,
    RepairPlan,
    ServerInfo,
    Status,
)
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis import lock as redis_lock
from is_db_bootstrap.stores.redis import memory_record, planned_commands, probe
from is_db_bootstrap.stores.redis.compare import Comparison
from is_db_bootstrap.stores.redis.connection import command_line
from is_db_bootstrap.stores.redis.errors import SELFTEST_KEY, Translation
from is_db_bootstrap.stores.redis.guarded import GuardedWrites
from is_db_bootstrap.stores.redis.key_audit import Audit
from is_db_bootstrap.stores.redis.key_reader import KeyReader, names_after
from is_db_bootstrap.stores.redis.lock import Lease
from is_db_bootstrap.stores.redis.probe import PREFIX
from is_db_bootstrap.stores.redis.server import (
    Server,
    check_address,
    open_server,
    refuse_other_master,
)
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import Adoption, Anchor, LeftLease, Lock, Place, PresentLock
    from is_db_bootstrap.grant_list import GrantWish, RoleGrants
    from is_db_bootstrap.results import Diagnosis
    from is_db_bootstrap.rungs import RungResult
    from is_db_bootstrap.stores.recalled import Recalled
    from is_db_bootstrap.stores.redis.convention_record import Record
    from is_db_bootstrap.stores.redis.lifetimes import MissingLifetimes

#: What a run sends for the key of its record.
_RECORD_COMMANDS = ("GET", "SET")


class RedisBootstrapper:
    """The Redis part of a blueprint, on one server or a cluster.

    `url` is `redis://`, `rediss://` or `unix://`, or one of the first two with `+sentinel` or
    `+cluster`. A number in the path is the database. A query may hold options of redis-py, such as
    `ssl_cert_reqs`. Of `timing`, `connect_timeout_s` bounds every connection and answer, `lease_s`
    the lock, `scan_budget` the audit. Raises `ConfigurationError` for an address that cannot be
    one.
    """

    name: StoreName = "redis"
    compares_pending = True
    drift_advice = (
        "A program that writes such keys writes them again: see which one it is "
        "(`is-db-bootstrap redis audit`)."
    )

    def __init__(
        self, url: StoreUrl | str, blueprint: Blueprint, *, timing: Timing | None = None
    ) -> None:
        self._url = StoreUrl.parse("redis", url) if isinstance(url, str) else url
        self._blueprint = blueprint
        self._timing = timing or Timing()
        self._record_key = f"{PREFIX}:conventions:{blueprint.name}"
        self._lock_key = f"{PREFIX}:lock:{blueprint.name}"
        self._memory_key = f"{PREFIX}:memory:{blueprint.name}"
        #: What the key of the memory held when the last plan looked, or how that look was refused.
        self._seen_memory: bytes | Exception | None = None
        #: Whether the blueprint can live with an empty Redis.
        self.is_cache = not blueprint.durable_keys
        self._errors = Translation(self._url)
        self._command_line = command_line(self._url)
        self._comparison = Comparison(blueprint, self._record_key, self._command_line)
        self._server: Server | None = None
        self._guarded: GuardedWrites | None = None
        self._audit: Audit | None = None
        #: Whether the user could look at the lifetime of the probe key.
        self._has_seen_lifetime = True
        self._lease: Lease | None = None
        #: Leases that were asked for. The answer to one of these may have been lost.
        self._asked: set[bytes] = set()
        self._anchor: Anchor | None = None
        self._planned = False
        self._is_pending = False
        self._planned_on: bytes | None = None
        self.target = str(self._url)
        check_address(self._url)

    def grants(self, wish: GrantWish) -> RoleGrants:
        """The smallest rights of a user; see `grants.py`. No server is asked."""
        from is_db_bootstrap.stores.redis.grants import role_grants

        has_database = self._url.database not in {"", "0"}
        return role_grants(self._blueprint, wish, has_database=has_database)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections, which judges by PING, INFO and ROLE.

        The name is resolved again, and after a fail-over it may lead elsewhere. Raises
        `StoreUnavailable` while the server loads, is a replica, or refuses writes; `AccessDenied`;
        `ConfigurationError` when something else answers; `StoreConflict` below Redis 6.
        """
        self.close()
        self._errors.is_cancelled = self._planned = self._is_pending = False
        limit_s = self._timing.connect_timeout_s
        self._server = open_server(self._url, timeout_s, limit_s, self._errors)
        return self._server.facts

    def places(self) -> Sequence[Place]:
        """Where the client connects to first."""
        from is_db_bootstrap.stores.redis import ladder

        return ladder.places_of(self._url, self._timing.connect_timeout_s)

    def rungs(self) -> Sequence[RungResult]:
        """What the last ping has seen, after a look at what the user may do.

        A user for verify may read what was recorded, and write nothing. Raises `AccessDenied` when
        another user may not write our records.
        """
        from is_db_bootstrap.stores.redis import ladder

        try:
            self._check_all_rights()
        except AccessDenied as exc:
            from is_db_bootstrap.stores.redis.diagnosis import rung_of_reader

            found = rung_of_reader(exc, self._check_reading, self._is_recorded)
            if found is None:
                raise
            return [*ladder.rungs_of(self._url, self._opened)[:-1], found]
        return ladder.rungs_of(self._url, self._opened)

    def server_age_s(self) -> float | None:
        """Seconds between the start of the server and the last ping."""
        age_s = self._opened.info.get("uptime_in_seconds")
        return None if age_s is None else float(age_s)

    def diagnose(self) -> Diagnosis:
        """What the server of the last ping tells, for `doctor`."""
        from is_db_bootstrap.stores.redis.diagnosis import diagnosis

        with self._errors():
            return diagnosis(self._url, self._opened, self._check_all_rights, self._check_reading)

    @property
    def _opened(self) -> Server:
        """The server; connects when nobody has pinged before."""
        if self._server is None:
            self.ping(self._timing.connect_timeout_s)
        if self._server is None:
            raise StoreUnavailable(self.name, "The store was closed meanwhile.")
        return self._server

    @property
    def _commands(self) -> Any:
        return self._opened.client

    def plan(self) -> Plan:
        """Compare the record with the declaration: at most one change, kind `conventions`.

        Notes speak of eviction.

        Raises `StoreConflict` when the record and the declaration go on from one earlier version in
        two directions.
        """
        text, self._seen_memory = self._both_records()
        recorded = self._comparison.read(text)
        if not self._planned:
            self._comparison.first_seen = text
        self._planned, self._planned_on = True, text
        server = self._opened
        plan = self._comparison.plan(recorded, server.now_s(), server.info)
        self._is_pending = bool(plan.changes)
        return plan

    def with_statements(self, plan: Plan) -> Plan:
        """The plan with the command that records the conventions, a line for each of these."""
        before = self._comparison.read(self._planned_on)
        after = self._comparison.next_record(before, self._opened.now_s())
        shown = planned_commands.shown_record(self._record_key, before, after)
        changes = [replace(each, statements=(shown,)) for each in plan.changes]
        return replace(plan, changes=tuple(changes))

    def _recorded(self) -> Record | None:
        return self._comparison.read(self._recorded_text())

    def _recorded_text(self) -> bytes | None:
        with self._errors(self._record_key):
            found: bytes | None = self._commands.get(self._record_key)
            return found

    def _both_records(self) -> tuple[bytes | None, bytes | Exception | None]:
        """The text of the conventions, and that of the memory or the refusal to read it.

        They are asked for together. In a cluster each has a server of its own.
        """
        if self._opened.is_cluster:
            try:
                return self._recorded_text(), self._commands.get(self._memory_key)
            except redis.RedisError as exc:
                return self._recorded_text(), exc
        with self._errors(self._record_key):
            pipeline = self._commands.pipeline(transaction=False)
            answers = pipeline.get(self._record_key).get(self._memory_key)
            text, memory = answers.execute(raise_on_error=False)
            if isinstance(text, Exception):
                raise text
        return text, memory

    # --- remembering

    def recall(self) -> Recall:
        """What this Redis is, and what the last plan has seen of its memory.

        Raises `StoreConflict` for a record that is broken.
        """
        has_conventions = self._planned_on is not None
        unable, seen = "", self._seen_memory
        if isinstance(seen, Exception):
            try:
                with self._errors(self._memory_key):
                    raise seen
            except AccessDenied as exc:
                unable = self._not_remembered(exc)
            seen = None
        recalled = self._read_memory(seen)
        is_blank = not has_conventions and seen is None and not unable
        return Recall(
            place=f"database {int(self._url.database or 0)}",
            is_blank=is_blank,
            memories=recalled.memories,
            unable=unable,
            is_unread=bool(unable),
            full=memory_record.full(self._memory_key, seen),
            newer_keys=recalled.newer_keys,
            remarks=recalled.remarks,
        )

    def _read_memory(self, value: bytes | None) -> Recalled:
        """The records in a value of our key. Raises `StoreConflict` for a record that is broken."""
        name = self._blueprint.name
        return memory_record.read(self._memory_key, name, value, self._command_line)

    def memory_refusal(self) -> str:
        """Why this user may not write the record. Nothing is changed."""
        guarded = GuardedWrites(self._opened.node_of)
        needed = {self._lock_key: redis_lock.COMMANDS, self._memory_key: _RECORD_COMMANDS}
        try:
            guarded.check(needed, self._errors)
        except AccessDenied as exc:
            return self._not_remembered(exc)
        return ""

    def _not_remembered(self, refusal: AccessDenied) -> str:
        return (
            f"What this run finds is not remembered here: {refusal.message}"
            f" Let an administrator allow this user the key {self._memory_key}."
        )

    def remember(self, memory: Memory) -> str | None:
        """Write the record in one step, if the key holds what was read and the lock is ours.

        Returns a remark when the user may not write it, or the key takes no more. Raises
        `StoreUnavailable` when the lock was lost, and `StoreBusy` when another deployment has
        written its record meanwhile.
        """
        self._refuse_other_master()
        try:
            return self._write_memory(memory)
        except AccessDenied as exc:
            return self._not_remembered(exc)

    def _write_memory(self, memory: Memory) -> str | None:
        with self._errors(self._memory_key):
            found = self._commands.get(self._memory_key)
        self._read_memory(found)
        value = memory_record.written(found, memory)
        if value is None:
            return memory_record.full(self._memory_key, found)
        with self._errors(self._memory_key):
            expected = self._expected(self._memory_key, found)
            is_written = self._writes.write(expected, ("SET", self._memory_key, value))
            is_kept = is_written and self._commands.get(self._memory_key) == value
        if is_kept:
            self._refuse_other_master()
            return None
        if self._held_lease is not None:
            self._check_lease(self._held_lease)
        raise StoreBusy(
            self.name,
            f"{self._memory_key} was written by another run at this moment.",
            hint="Run again.",
            subject=self._memory_key,
        )

    def recorded_blueprints(self) -> Collection[str]:
        """The blueprints whose record was found among the first `scan_budget` keys of each server.

        Empty where this user may not look for keys.
        """
        found: set[str] = set()
        prefix = f"{PREFIX}:conventions:"
        if self._recorded_text() is not None:
            return {self._blueprint.name}
        try:
            with self._errors(f"{prefix}*"):
                for master in self._opened.masters():
                    found.update(names_after(prefix, master, self._timing.scan_budget))
        except AccessDenied:
            return ()
        return found

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Write the record in one step, and read it back.

        It is written if it is still the one that was planned on and the lock is still ours. In a
        cluster the lock has a server of its own, so it is asked right before. Raises
        `StoreConflict` when another run has written the record meanwhile, `StoreUnavailable` when
        the lock was lost. Nothing was written then.
        """
        if not self._planned and not self.plan().changes:
            return f"{self._record_key} holds no older conventions any more; nothing was written."
        before = self._comparison.read(self._planned_on)
        text = self._comparison.next_record(before, self._opened.now_s()).text().encode()
        with self._errors(self._record_key, change):
            expected = self._expected(self._record_key, self._planned_on)
            written = self._writes.write(expected, ("SET", self._record_key, text))
        if not written:
            return self._not_written()
        if self._recorded_text() != text:
            raise StoreUnavailable(
                self.name,
                f"{self.target} did not keep {self._record_key} as it was written.",
                subject=self._record_key,
                hint="A fail-over may be going on. Run again; what is recorded is read anew.",
            )
        self._refuse_other_master()
        self._planned_on = text
        return None

    def _refuse_other_master(self) -> None:
        """Raise `StoreUnavailable` when the Sentinels have chosen another master since."""
        limit_s = self._timing.connect_timeout_s
        refuse_other_master(self._url, self._opened, limit_s, self._errors)

    def _not_written(self) -> str:
        """Why the record was not written; a remark when that does no harm."""
        if self._held_lease is not None:
            self._check_lease(self._held_lease)
        if self._comparison.is_recorded(self._recorded()):
            return MadeByOther(f"Another run recorded the same in {self._record_key} meanwhile.")
        raise StoreConflict(
            self.name,
            f"{self._record_key} was changed by another run after it was looked at; "
            "nothing was written.",
            hint="Run again; the record is compared anew.",
            subject=self._record_key,
        )

    @property
    def _held_lease(self) -> Lease | None:
        """The lease of this run, unless it has none or has given it back."""
        return None if self._lease is None or self._lease.ended else self._lease

    def _expected(self, key: str, value: bytes | None) -> dict[str, bytes | None]:
        """What has to hold while we write: a key has its value, and the lock is ours.

        In a cluster the lock has a server of its own, so it is asked now. Raises `StoreUnavailable`
        when it was lost.
        """
        lease = self._held_lease
        if lease is None:
            return {key: value}
        if self._opened.is_cluster:
            self._check_lease(lease)
            return {key: value}
        return {key: value, lease.key: lease.value}

    def _check_lease(self, lease: Lease) -> None:
        if not lease.confirm():
            raise StoreUnavailable(
                self.name,
                f"The lock {lease.key} of this run was lost, so another run may have begun; "
                "nothing was written.",
                hint="Run again; what is recorded is read anew.",
                subject=lease.key,
            )

    @property
    def _writes(self) -> GuardedWrites:
        """Writes under a condition, in the way that this user is allowed."""
        if self._guarded is None:
            guarded = GuardedWrites(self._opened.node_of)
            needed = {self._lock_key: redis_lock.COMMANDS, self._record_key: _RECORD_COMMANDS}
            guarded.check(needed, self._errors)
            self._guarded = guarded
        return self._guarded

    def check_rights(self) -> None:
        """See that the user may do what is planned; nothing is changed. Raises `AccessDenied`."""
        key = probe.new_key()
        with self._errors(key):
            probe.check_rights(self._commands, key)
        if self._is_pending:
            self._check_record()

    def _check_all_rights(self) -> None:
        """See that the user may do what any run does; nothing is changed."""
        with self._errors("a probe key"):
            probe.check_rights(self._commands, probe.new_key())
        self._check_record()

    def _is_recorded(self) -> bool:
        """Whether conventions of this blueprint are recorded, so that there is what to verify."""
        return self._recorded_text() is not None

    def _check_reading(self) -> None:
        """See that the user may read our records and the lock."""
        for key in (self._record_key, self._memory_key, self._lock_key):
            with self._errors(key):
                self._commands.get(key)

    def _check_record(self) -> None:
        """See that the user may lock, and write our record; nothing is changed."""
        with self._errors(self._record_key):
            _ = self._writes

    # --- adopting

    def adoption(self) -> Adoption:
        """The conventions that are not recorded, and what an audit of keys has found.

        Raises `StoreConflict` as `plan` does, and for conventions that are newer than ours.
        """
        from is_db_bootstrap.stores.redis import adoption

        plan = self.plan()
        if plan.ahead:
            raise StoreConflict(
                self.name,
                " ".join(plan.notes),
                hint="Adopt with the version of the blueprint that recorded them.",
                subject=self._record_key,
            )
        with self._errors():
            count = sum(KeyReader(master).count_keys() for master in self._opened.masters())
        findings = self.audit() if count else ()
        is_blank = not count and self._planned_on is None
        return adoption.adoption(plan, findings, is_blank=is_blank)

    # --- proving

    def prove(self) -> None:
        """Set, read back and delete one key with a lifetime of five seconds.

        Nothing is set where the user may not delete it again. Raises `StoreUnavailable` when the
        server does not keep it, or when the Sentinels have chosen another master since.
        """
        self._refuse_other_master()
        key = probe.new_key()
        with self._errors(key):
            probe.check_rights(self._commands, key)
            is_seen = probe.prove(self._commands, key, self._blueprint.name, self.target)
        self._has_seen_lifetime = is_seen

    def selftest(self) -> Iterator[Proof]:
        """Set, read and expire a probe key of each convention; see `selftest.py`."""
        from is_db_bootstrap.stores.redis.selftest import proofs

        with self._errors(SELFTEST_KEY):
            yield from proofs(self._commands, self._blueprint)

    def verify(self) -> Sequence[Drift]:
        """The record equals the declaration, or one drift that says what differs."""
        return self._comparison.drifts(self._recorded())

    def repair_plan(self) -> RepairPlan:
        """Each pattern of which keys lack the lifetime that it declares, and the rest.

        All keys are looked at. The record itself is left to `apply`.
        """
        with self._errors("the keys"):
            missing = self._lifetimes(()).count(list(self._opened.masters()))
        lifetimes = {key.name: key for key in self._blueprint.keys}
        changes = [
            planned_commands.lifetime_change(lifetimes[name], count)
            for name, count in missing.items()
            if count
        ]
        return RepairPlan(tuple(changes), tuple(self.verify()))

    def repair(self, change: Change) -> str | None:
        """Give the keys of one pattern that have no lifetime the longest declared one.

        A key that got a lifetime or another type meanwhile keeps that. Raises `StoreUnavailable`,
        which says how many keys were set, when the server is lost or is not the master any more.
        """
        from is_db_bootstrap.stores.redis.lifetimes import mend_and_confirm

        mended = mend_and_confirm(
            self._lifetimes((change.name,)),
            self._url,
            self._opened,
            self._timing.connect_timeout_s,
            self._errors,
            command="repair",
        )
        done = mended.done.total()
        return f"{counted(done, 'key')} of {change.name} got a lifetime."

    def _lifetimes(self, names: Sequence[str]) -> MissingLifetimes:
        from is_db_bootstrap.stores.redis.lifetimes import MissingLifetimes

        return MissingLifetimes(self._blueprint.keys, names)

    def audit(self) -> Sequence[Drift]:
        """Look at no more than `scan_budget` keys.

        Found are a wrong type, no lifetime, a longer lifetime than declared, and any lifetime of a
        key that is declared as persistent. Keys that fit no pattern are counted by their prefix.
        That the user may not look is a finding too: what was not seen is not known to be right.
        """
        self._audit = Audit(self._blueprint.keys, self._timing.scan_budget)
        unseen = []
        if not self._has_seen_lifetime:
            message = (
                "that a key gets its lifetime was not seen: this user may not use PTTL (+pttl)"
            )
            unseen.append(Drift("probe key", "audit", message, finding=True))
        try:
            with self._errors():
                return [*self._audit.findings(list(self._opened.masters())), *unseen]
        except AccessDenied as exc:
            return [Drift("keyspace", "audit", f"was not looked at: {exc}", finding=True), *unseen]

    def status(self) -> Status:
        """Digests of the recorded and the declared conventions, and who holds the lock."""
        recorded = self._recorded()
        with self._errors(self._lock_key):
            held = self._commands.get(self._lock_key)
        left_ms = self._left_ms() if held else None
        return Status(
            recorded.summary() if recorded else "",
            self._comparison.declared.summary(),
            redis_lock.holder(held, left_ms) if held else None,
        )

    # --- the lock

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """One try for a lease of `timing.lease_s`, which Redis forgets when we die.

        A lease of an earlier try is ours, although the connection was lost before we heard of it.
        """
        lease = Lease.new(
            self._write_while, self._lock_key, owner, self._timing.lease_s, self._anchor
        )
        with self._errors(self._lock_key):
            _ = self._writes  # what records and releases must be allowed before the lock is taken
            self._asked.add(lease.value)
            if self._commands.set(self._lock_key, lease.value, nx=True, px=lease.lease_ms):
                self._lease = lease
                return lease
            value = self._commands.get(self._lock_key)
            is_free = value in self._asked or self._may_take_over(value)
            if is_free and lease.take_from(value):
                self._lease = lease
                return lease
            return redis_lock.holder(value)

    def present_lock(self) -> PresentLock | None:
        """The lock that the key holds now, and whether its process runs."""
        with self._errors(self._lock_key):
            value = self._commands.get(self._lock_key)
        return redis_lock.present(value, self._left_ms()) if value else None

    def _left_ms(self) -> int | None:
        """Milliseconds until the lock lapses, less than 0 for never. None: it may not be asked."""
        try:
            with self._errors(self._lock_key):
                return int(self._commands.pttl(self._lock_key))
        except AccessDenied:
            return None

    def remove_lock(self, seen: PresentLock) -> bool:
        """Delete the key if it still holds what was seen."""
        value = seen.token
        if not isinstance(value, bytes):
            raise TypeError(value)
        return self._write_while(self._lock_key, value, ("DEL", self._lock_key))

    def know_anchor(self, anchor: Anchor | None) -> None:
        """Note the anchor of this run, which the lease records."""
        self._anchor = anchor

    def left_lease(self) -> LeftLease | None:
        """The lease that is there now.

        In a cluster it cannot be taken over (`_may_take_over`), so it has no anchor.
        """
        with self._errors(self._lock_key):
            lease = redis_lock.left_lease(self._commands.get(self._lock_key))
        if lease is not None and self._opened.is_cluster:
            return replace(lease, anchor=None)
        return lease

    def _may_take_over(self, value: bytes | None) -> bool:
        """Whether the lease `value` is that of a run which lost its lock, and can do no more.

        Such a run writes its record only while the key holds its lease, in one step with the look
        at the key. So nothing of it has to be ended. In a cluster that is no single step, and its
        lease has to lapse.
        """
        lease = redis_lock.left_lease(value)
        if lease is None or self._anchor is None or self._opened.is_cluster:
            return False
        return lease.has_lost(self._anchor)

    def _write_while(self, key: str, value: bytes, command: Sequence[str | int]) -> bool:
        """Send `command` while `key` holds `value`."""
        with self._errors(key):
            return self._writes.write({key: value}, command)

    # --- ending

    def cancel(self) -> None:
        """From another thread: break the connections.

        Redis runs nothing that outlives its command.
        """
        self._errors.is_cancelled = True
        if self._audit is not None:
            self._audit.stop()
        server = self._server
        if server is not None:
            server.break_connections()

    def close(self) -> None:
        """Release every connection."""
        server, self._server = self._server, None
        self._guarded = None
        if server is not None:
            server.client.close()
