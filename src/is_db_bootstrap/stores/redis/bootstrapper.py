"""Redis: key conventions recorded in the store, a probe that leaves nothing behind, a leased lock, a bounded audit.

Only single-key commands are sent, so that a cluster is served like one server; never KEYS, never CONFIG, and
`notify-keyspace-events` is left as it is, because others set it (spring-data-redis#2894).
"""

from __future__ import annotations

import codecs
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import Change, Drift, LockHolder, Plan, Proof, ServerInfo, Status
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.foreign_server import recognised
from is_db_bootstrap.stores.redis.connection import client_arguments
from is_db_bootstrap.stores.redis.convention_record import TOGETHER_S, Record, Standing
from is_db_bootstrap.stores.redis.errors import as_text, translated
from is_db_bootstrap.stores.redis.guarded import GuardedWrites
from is_db_bootstrap.stores.redis.key_audit import Audit
from is_db_bootstrap.stores.redis.rights import check_missing_key

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import Lock

PREFIX = "is-db-bootstrap"
#: Lifetime of the probe key, should its deletion not be reached: seconds.
PROBE_TTL_S = 5
OLDEST_MAJOR = 6
#: What a run sends for the key of its lock, the key of its record, and a probe key.
_LOCK_COMMANDS = ("GET", "SET", "PEXPIRE", "DEL")
_RECORD_COMMANDS = ("GET", "SET")
_PROBE_COMMANDS = ("DEL", "EXISTS", "PTTL", "GET", "SET")


class RedisBootstrapper:
    """The Redis part of a blueprint, on one server or a cluster.

    `url` is `redis://`, `rediss://` or `unix://`; a number in the path is the database, a query may
    hold options of redis-py such as `ssl_cert_reqs`. Of `timing`, `connect_timeout_s` bounds every
    connection and answer, `lease_s` the lock, `scan_budget` the audit. Raises `ConfigurationError`
    for an address that cannot be one.
    """

    name: StoreName = "redis"

    def __init__(
        self, url: StoreUrl | str, blueprint: Blueprint, *, timing: Timing | None = None
    ) -> None:
        self._url = StoreUrl.parse("redis", url) if isinstance(url, str) else url
        self._blueprint = blueprint
        self._timing = timing or Timing()
        self._declared = Record.declared(blueprint)
        self._record_key = f"{PREFIX}:conventions:{blueprint.name}"
        self._client: Any = None
        self._info: Mapping[str, Any] = {}
        self._audit: Audit | None = None
        self._cancelled = False
        self._lease: _Lease | None = None
        self._planned = False
        self._is_pending = False
        self._planned_on: bytes | None = None
        self._first_seen: bytes | None = None
        self._guarded: GuardedWrites | None = None
        self._clock_s = 0.0
        self.target = str(self._url)
        if self._url.database and not self._url.database.isdecimal():
            raise ConfigurationError(
                f"redis: the database in {self.target} is not a number.",
                hint="Write redis://host:6379/0, or leave it out.",
            )

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections (the name is resolved again, and after a fail-over it may lead elsewhere).

        Judges by PING, INFO and ROLE. Raises `StoreUnavailable` while the server loads, is a replica, or refuses
        writes; `AccessDenied`; `ConfigurationError` when something else answers; `StoreConflict` below Redis 6.
        """
        self.close()
        self._cancelled = self._planned = self._is_pending = False
        client = self._open(redis.Redis, min(timeout_s, self._timing.connect_timeout_s))
        try:
            info = self._asked(client)
        except StoreUnavailable as exc:
            client.close()
            self._check_stranger(exc, timeout_s)
            raise
        except BaseException:
            client.close()
            raise
        self._info = info
        server_s = float(info.get("server_time_usec", time.time() * 1e6)) / 1e6
        self._clock_s = server_s - time.monotonic()
        clustered = bool(int(info.get("cluster_enabled", 0)))
        self._client = self._clustered(client) if clustered else client
        return ServerInfo(str(info["redis_version"]), "cluster" if clustered else None)

    def _check_stranger(self, exc: StoreUnavailable, timeout_s: float) -> None:
        """An HTTP server resets the connection so fast that its answer is lost.

        A closed one may be a Redis going down.
        """
        if "Connection closed" not in exc.message and "reset by peer" not in exc.message:
            return
        wait_s = min(timeout_s, self._timing.connect_timeout_s) / 2
        if kind := recognised(self._url.host, self._url.port(6379), wait_s, own="Redis"):
            raise ConfigurationError(
                f"redis: {kind} answers at {self.target}.",
                hint="Give the address of a Redis server (default port 6379).",
            ) from exc

    def _asked(self, client: Any) -> Mapping[str, Any]:
        with self._errors():
            try:
                pong, info, role = (
                    client.pipeline(transaction=False)
                    .ping()
                    .info()
                    .role()
                    .execute(raise_on_error=False)
                )
            except redis.BusyLoadingError as exc:
                # Caught before ConnectionError, which it is: PING is refused, INFO is not, and
                # knows how long (redis#11714).
                eta = client.info("persistence").get("loading_eta_seconds", "?")
                raise StoreUnavailable(
                    self.name,
                    f"{self.target} is loading its data set, "
                    f"about {eta} s to go (loading_eta_seconds).",
                    hint="Give a longer --timeout, or wait.",
                ) from exc
            if isinstance(info, Exception):
                raise info
            self._check_kind(info)
            self._check_role(info, role)
            if isinstance(pong, Exception):
                raise pong
        return dict(info)

    def _check_kind(self, info: Mapping[str, Any]) -> None:
        if info.get("redis_mode") == "sentinel":
            raise ConfigurationError(
                f"redis: {self.target} is a Sentinel, which holds no data.",
                hint="Give the address of the master it watches.",
            )
        version = str(info.get("redis_version", ""))
        major = version.partition(".")[0]
        if not major.isdecimal() or int(major) < OLDEST_MAJOR:
            raise StoreConflict(
                self.name,
                f"{self.target} is Redis {version or 'of unknown version'}; "
                f"{OLDEST_MAJOR} or newer is needed.",
                hint="Upgrade the server.",
            )

    def _check_role(self, info: Mapping[str, Any], role: Any) -> None:
        """ROLE is asked first and INFO believed where ROLE is not allowed.

        In a cluster the client finds the masters.
        """
        told = role[0] if isinstance(role, list) else info.get("role", "master")
        if as_text(told) in {"slave", "replica"} and not int(info.get("cluster_enabled", 0)):
            raise StoreUnavailable(
                self.name,
                f"{self.target} is a read-only replica (ROLE); its master is "
                f"{info.get('master_host', '?')}:{info.get('master_port', '?')}.",
                hint="A fail-over may be going on; else give the address of the master, or a Service that follows it.",
            )

    def _clustered(self, client: Any) -> Any:
        with self._errors():
            try:
                state = client.execute_command("CLUSTER INFO").get("cluster_state", "?")
            finally:
                client.close()
            if state != "ok":
                raise StoreUnavailable(
                    self.name,
                    f"{self.target} is in a cluster whose state is {state} (CLUSTER INFO).",
                    hint="Wait for its fail-over, or see which slots have no master.",
                )
            return self._open(redis.RedisCluster, self._timing.connect_timeout_s)

    def _open(self, kind: Any, timeout_s: float) -> Any:
        """A client without retries of its own, which would add to our deadline."""
        arguments = client_arguments(self._url)
        try:
            client = kind.from_url(
                **arguments,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
            )
            if kind is redis.Redis:
                _check_options(client)
        except (TypeError, ValueError, LookupError, AttributeError) as exc:
            error = ConfigurationError(
                f"redis: the address {self.target} is refused by redis-py: {exc}."
            )
            raise self._url.masking(error, exc) from exc
        return client

    @property
    def _commands(self) -> Any:
        """The client; connects when nobody has pinged before."""
        if self._client is None:
            self.ping(self._timing.connect_timeout_s)
        return self._client

    def plan(self) -> Plan:
        """Compare the record with the declaration: at most one change, kind `conventions`.

        Notes speak of eviction.

        Raises `StoreConflict` when the record and the declaration go on from one earlier version in
        two directions.
        """
        text = self._recorded_text()
        recorded = self._read(text)
        if not self._planned:
            self._first_seen = text
        self._planned, self._planned_on = True, text
        plan = self._planned_from(recorded)
        self._is_pending = bool(plan.changes)
        return plan

    def _planned_from(self, recorded: Record | None) -> Plan:
        notes = tuple(self._eviction())
        if recorded is None:
            return Plan((self._change(f"record {self._declared.summary()}"),), notes=notes)
        standing = self._standing(recorded)
        if standing is Standing.SAME:
            return Plan(notes=notes)
        if standing is Standing.AHEAD:
            return Plan(notes=(*notes, self._ahead()), ahead=True)
        if standing is Standing.OLDER:
            is_known = self._declared.digest in recorded.undecided
            remember = f"remember {self._declared.summary()} as the other of two versions"
            changes = () if is_known else (self._change(remember),)
            return Plan(changes, notes=(*notes, self._older_for_now(recorded)), ahead=True)
        if standing is Standing.DIVERGED:
            raise self._diverged(recorded)
        if standing is Standing.UNDECIDED:
            notes += (self._undecided(recorded),)
        return Plan((self._change(self._declared.difference(recorded)),), notes=notes)

    def _change(self, detail: str) -> Change:
        return Change(self._record_key, "conventions", detail)

    def _standing(self, recorded: Record) -> Standing:
        return recorded.compare(self._declared, together=self._began_together(recorded))

    def _began_together(self, recorded: Record) -> bool:
        """Whether the run that recorded began at about the same time as this one.

        That it was the first tells nothing then. Its record has just been written, or was written
        since this run looked first, which may have waited for the lock meanwhile.
        """
        is_recent = recorded.age_s(self._now_s()) < TOGETHER_S
        first_seen = self._read(self._first_seen)
        was_seen = first_seen is not None and first_seen.digest == recorded.digest
        return is_recent or not was_seen

    def _ahead(self) -> str:
        return (
            f"The conventions in {self._record_key} were recorded after this version's. They are "
            "taken for newer and are left alone. To go back to this version's for good, "
            "delete that key."
        )

    def _older_for_now(self, recorded: Record) -> str:
        return (
            f"Another version has just recorded its conventions ({recorded.digest}), which have "
            f"all of this version's ({self._declared.digest}) and more: this version is taken for "
            f"the older one for now. If it is the newer one, run it again after {TOGETHER_S:g} s."
        )

    def _undecided(self, recorded: Record) -> str:
        return (
            f"Nothing tells whether this version's conventions ({self._declared.digest}) are newer "
            f"than the recorded ones ({recorded.digest}), because the two versions started "
            "together: the one that runs last is recorded."
        )

    def _diverged(self, recorded: Record) -> StoreConflict:
        return StoreConflict(
            self.name,
            f"{self._record_key} holds {recorded.summary()}, and this version declares {self._declared.summary()}, which goes on "
            f"from an earlier version: it would {self._declared.difference(recorded)}. Nothing was changed.",
            hint="Bring both lines together in one version, or delete that key to have this version's conventions recorded.",
            subject=self._record_key,
        )

    def _now_s(self) -> float:
        """Seconds since 1970 by the server's clock, as INFO told it when the connection was made."""
        return self._clock_s + time.monotonic()

    def _recorded(self) -> Record | None:
        return self._read(self._recorded_text())

    def _recorded_text(self) -> bytes | None:
        with self._errors(self._record_key):
            found: bytes | None = self._commands.get(self._record_key)
            return found

    def _read(self, text: bytes | None) -> Record | None:
        if text is None:
            return None
        try:
            return Record.read(text)
        except ValueError as exc:
            raise StoreConflict(
                self.name,
                f"{self._record_key} holds something that is not a record of this tool: {exc}.",
                hint="See who wrote it; delete it to have it written again.",
                subject=self._record_key,
            ) from exc

    def _eviction(self) -> Iterator[str]:
        """What maxmemory_policy means for the patterns.

        INFO memory has it where CONFIG is blocked (spring-data-redis#2894).
        """
        policy = str(self._info.get("maxmemory_policy", ""))
        unlimited = (
            " No maxmemory is set, so nothing is evicted yet."
            if not int(self._info.get("maxmemory", 0))
            else ""
        )
        mortal = [k.name for k in self._blueprint.keys if k.longest_ttl is not None]
        eternal = [k.name for k in self._blueprint.keys if k.longest_ttl is None]
        if policy.startswith("allkeys-") and self._blueprint.keys:  # juicefs#1991
            yield (
                f"Warning: maxmemory_policy {policy} may evict any key before its time, locks and revoked tokens too: "
                f"{_some(mortal or eternal)}. Use noeviction, or a Redis of their own.{unlimited}"
            )
        if (
            policy.startswith("volatile-") and eternal
        ):  # OpenCollective met the OOM: opencollective PR#10005
            yield (
                f"Warning: maxmemory_policy {policy} never evicts keys without lifetime, so writes fail when they fill "
                f"the memory: {_some(eternal)}. Give them a lifetime, or use another policy.{unlimited}"
            )

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Write the record if it is still the one that was planned on and the lock is still ours, in one step; read it back.

        In a cluster the lock has a server of its own, so it is asked right before. Raises `StoreConflict` when another run
        has written the record meanwhile, `StoreUnavailable` when the lock was lost. Nothing was written then.
        """
        if not self._planned and not self.plan().changes:
            return f"{self._record_key} holds no older conventions any more; nothing was written."
        text = self._next_record().text().encode()
        with self._errors(self._record_key, change):
            expected: dict[str, bytes | None] = {self._record_key: self._planned_on}
            if self._lease is not None and self._is_cluster(self._commands):
                self._check_lease(self._lease)
            elif self._lease is not None:
                expected[self._lease.key] = self._lease.value
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
        self._planned_on = text
        return None

    def _next_record(self) -> Record:
        """The record that is to follow the one that was planned on."""
        before = self._read(self._planned_on)
        if before is None:
            return self._declared.after(None, self._now_s())
        if self._standing(before) is Standing.OLDER:
            return before.remembering(self._declared)
        return self._declared.after(before, self._now_s(), together=self._began_together(before))

    def _not_written(self) -> str:
        """Why the record was not written; a remark when that does no harm."""
        if self._lease is not None:
            self._check_lease(self._lease)
        now = self._recorded()
        if now is not None and now.conventions == self._declared.conventions:
            return f"Another run recorded the same in {self._record_key} meanwhile."
        raise StoreConflict(
            self.name,
            f"{self._record_key} was changed by another run after it was looked at; "
            "nothing was written.",
            hint="Run again; the record is compared anew.",
            subject=self._record_key,
        )

    def _check_lease(self, lease: _Lease) -> None:
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
        commands = self._commands
        if self._guarded is None:
            guarded = GuardedWrites(lambda key: self._node_of(commands, key))
            guarded.check({self._lock_key: _LOCK_COMMANDS, self._record_key: _RECORD_COMMANDS})
            self._guarded = guarded
        return self._guarded

    def _node_of(self, client: Any, key: str) -> Any:
        if not self._is_cluster(client):
            return client
        return client.get_redis_connection(client.get_node_from_key(key))

    def check_rights(self) -> None:
        """See that the user may do what is planned; nothing is changed. Raises `AccessDenied`."""
        with self._errors("a probe key"):
            check_missing_key(self._commands, _probe_key(), _PROBE_COMMANDS)
        if self._is_pending:
            with self._errors(self._record_key):
                _ = self._writes

    def prove(self) -> None:
        """Set, read back and delete one key with a lifetime of five seconds.

        Nothing is set where the user may not delete it again.

        Interrupted, the key vanishes by its lifetime. Raises `StoreUnavailable` when the server
        does not keep it.
        """
        key, value = _probe_key(), self._blueprint.name
        with self._errors(key):
            check_missing_key(self._commands, key, _PROBE_COMMANDS)
            pipeline = self._commands.pipeline(transaction=False)
            pipeline.set(key, value, px=PROBE_TTL_S * 1000)
            for command in (
                "GET",
                "PTTL",
                "DEL",
                "EXISTS",
            ):  # by name: a cluster's pipeline has no chain over delete()
                pipeline.execute_command(command, key)
            answers = pipeline.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        _, read, ttl_ms, deleted, left = answers
        if as_text(read) != value or not 0 < ttl_ms <= PROBE_TTL_S * 1000 or deleted != 1 or left:
            raise StoreUnavailable(
                self.name,
                f"{self.target} did not keep the key {key}: "
                f"read {'nothing' if read is None else 'another value'}, "
                f"lifetime {ttl_ms} ms, deleted {deleted}, left {left}.",
                hint="See whether it evicts keys at once (maxmemory), or a proxy answers in its place.",
                subject=key,
            )

    def selftest(self) -> Iterator[Proof]:
        """Set, read and expire a probe key of each convention; see `selftest.py`."""
        from is_db_bootstrap.stores.redis.selftest import proofs

        with self._errors("a probe key"):
            yield from proofs(self._commands, self._blueprint)

    def verify(self) -> Sequence[Drift]:
        """The record equals the declaration, or one drift that says what differs."""
        recorded = self._recorded()
        if recorded is not None and recorded.conventions == self._declared.conventions:
            return []
        message = (
            "is missing" if recorded is None else f"differs: {self._declared.difference(recorded)}"
        )
        actual = None if recorded is None else recorded.summary()
        return [Drift(self._record_key, "conventions", message, self._declared.summary(), actual)]

    def audit(self) -> Sequence[Drift]:
        """Look at no more than `scan_budget` keys: wrong type, no lifetime, a longer lifetime than declared.

        That the user may not look is a finding too: what was not seen is not known to be right.
        """
        self._audit = Audit(
            self._blueprint.keys, self._timing.scan_budget, redis.exceptions.AskError
        )
        try:
            with self._errors():
                return self._audit.findings(list(self._masters()))
        except AccessDenied as exc:
            return [Drift("keyspace", "audit", f"was not looked at: {exc}", finding=True)]

    def _masters(self) -> Iterator[Any]:
        client = self._commands
        if self._is_cluster(client):
            yield from (client.get_redis_connection(node) for node in client.get_primaries())
        else:
            yield client

    @staticmethod
    def _is_cluster(client: Any) -> bool:
        return isinstance(client, redis.RedisCluster)

    def status(self) -> Status:
        """Digests of the recorded and the declared conventions, and who holds the lock."""
        recorded = self._recorded()
        with self._errors(self._lock_key):
            held = self._commands.get(self._lock_key)
        return Status(
            recorded.summary() if recorded else "",
            self._declared.summary(),
            _holder(held) if held else None,
        )

    # --- the lock

    @property
    def _lock_key(self) -> str:
        return f"{PREFIX}:lock:{self._blueprint.name}"

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """A lease of `timing.lease_s` on one key that holds token, owner and since.

        Redis forgets it when we die.
        """
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        value = json.dumps({"token": uuid.uuid4().hex, "owner": owner, "since": since}).encode()
        lock = _Lease(self, self._lock_key, value, max(1, int(self._timing.lease_s * 1000)))
        with self._errors(self._lock_key):
            _ = self._writes  # what records and releases must be allowed before the lock is taken
            if self._commands.set(self._lock_key, value, nx=True, px=lock.lease_ms):
                self._lease = lock
                return lock
            return _holder(self._commands.get(self._lock_key))

    # --- ending

    def cancel(self) -> None:
        """From another thread: break the connections, since Redis runs nothing that outlives its command."""
        self._cancelled = True
        if self._audit is not None:
            self._audit.stopped = True
        client: Any = self._client
        nodes = client.get_nodes() if self._is_cluster(client) else [client] if client else []
        for node in nodes:
            connection = getattr(node, "redis_connection", node)
            if connection is not None:
                connection.connection_pool.disconnect(inuse_connections=True)

    def close(self) -> None:
        """Release every connection."""
        client, self._client = self._client, None
        self._guarded = None
        if client is not None:
            client.close()

    @contextmanager
    def _errors(self, subject: str = "", change: Change | None = None) -> Iterator[None]:
        """Translate what redis-py raises, once for all calls."""
        try:
            yield
        except (redis.RedisError, redis.exceptions.RedisClusterException) as exc:
            raise self._url.masking(translated(exc, self.target, subject, change), exc) from exc
        except (ValueError, AttributeError) as exc:
            if not self._cancelled:
                raise
            # What redis-py stumbles over when its connection is closed by another thread.
            raise StoreUnavailable(self.name, "The call was cancelled.", subject=subject) from exc


@dataclass(frozen=True, slots=True)
class _Lease:
    """A held lock: it is renewed and deleted only while its key holds our token, so that a lapsed one touches no other run's."""

    store: RedisBootstrapper
    key: str
    value: bytes
    lease_ms: int

    @property
    def lease_s(self) -> float:
        """Seconds from a renewal to the moment when another run may take the lock."""
        return self.lease_ms / 1000

    def confirm(self) -> bool:
        """Whether the key still holds our token; gives it the full lease again."""
        return self._write("PEXPIRE", self.key, self.lease_ms)

    def release(self) -> bool:
        """Delete the key if it still holds our token."""
        self.store._lease = None  # noqa: SLF001 - one class in two parts
        return self._write("DEL", self.key)

    def _write(self, *command: str | int) -> bool:
        store = self.store
        with store._errors(self.key):  # noqa: SLF001 - one class in two parts
            return store._writes.write({self.key: self.value}, command)  # noqa: SLF001 - the same


def _probe_key() -> str:
    return f"{PREFIX}:probe:{uuid.uuid4().hex}"


def _holder(value: Any) -> LockHolder:
    if value is None:
        return LockHolder("a run that has ended this moment")
    try:
        told = json.loads(value)
        return LockHolder(str(told["owner"]), datetime.fromisoformat(told["since"]))
    except (ValueError, KeyError, TypeError):
        return LockHolder(
            f"someone else, who wrote {len(value)} bytes that are no lock of this tool"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004 - as many as one reads
    return ", ".join(names[:3]) + more


def _check_options(client: redis.Redis) -> None:
    """Make a connection's object once: redis-py takes any option and looks at it only then.

    Nothing is connected. Raises what redis-py raises for an option that it does not take
    (redis-py#3217).
    """
    pool = client.connection_pool
    codecs.lookup(pool.connection_kwargs.get("encoding", "utf-8"))
    pool.make_connection()
