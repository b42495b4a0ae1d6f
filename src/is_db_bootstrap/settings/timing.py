"""How long a run waits for what. This module is the only place where such a default is written."""

from __future__ import annotations

from dataclasses import dataclass

from is_db_bootstrap.errors import ConfigurationError

#: A lease is renewed so many times in its life, unless `heartbeat_s` says otherwise.
BEATS = 6
#: A lease is renewed at least so many times in its life, so that one late renewal does not lose it.
LEAST_BEATS = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Every deadline, delay and limit of a run. All times are seconds.

    The environment variable `IS_DB_BOOTSTRAP_<NAME>` sets each field, without the `_S` at the end.
    """

    #: The limit of waiting for stores and for locks together.
    timeout_s: float = 60.0
    #: The limit of apply. 0 means no limit, because an index build may take an hour.
    apply_timeout_s: float = 0.0
    #: The limit of each look at the stores: a plan, the plan under the lock, verify, a status, and
    #: each check of a self-test. 0 means no limit.
    phase_timeout_s: float = 120.0
    #: The limit of one attempt to open a connection, and of one answer to a ping.
    connect_timeout_s: float = 5.0
    #: First delay between two attempts. The delay doubles each time, with jitter.
    retry_initial_s: float = 0.1
    #: Longest delay between two attempts.
    retry_maximum_s: float = 2.0
    #: How long a statement of a change waits for a lock of somebody else: PostgreSQL's
    #: `lock_timeout` in revisions, and our own watch on Neo4j.
    lock_timeout_s: float = 5.0
    #: Attempts of one change that the store refuses as busy.
    busy_attempts: int = 12
    #: First and longest delay between these attempts.
    busy_initial_s: float = 0.2
    busy_maximum_s: float = 5.0
    #: Lifetime of a leased lock (Neo4j, Redis) that is not renewed.
    lease_s: float = 60.0
    #: How often held locks are confirmed and leases renewed during long changes.
    #: None means a sixth of `lease_s`.
    heartbeat_s: float | None = None
    #: Time that running changes get after a signal, before they are cancelled on the server.
    grace_s: float = 5.0
    #: The limit of waiting for Neo4j indexes to come ONLINE, and for Milvus indexes and loads.
    index_timeout_s: float = 600.0
    #: The most keys that the Redis audit looks at.
    scan_budget: int = 10_000

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a heartbeat that is too slow for the lease."""
        if self.heartbeat_s is not None and self.heartbeat_s > self.lease_s / LEAST_BEATS:
            raise ConfigurationError(
                f"heartbeat_s (IS_DB_BOOTSTRAP_HEARTBEAT) is {self.heartbeat_s:g} s, "
                f"which is above a third of lease_s (IS_DB_BOOTSTRAP_LEASE), {self.lease_s:g} s: "
                "a lock could lapse while its run goes on.",
                hint=f"Set the heartbeat to at most {self.lease_s / LEAST_BEATS:g}, "
                "give a longer lease, "
                "or leave the heartbeat out: it is a sixth of the lease.",
            )

    def heartbeat(self) -> float:
        """The interval that holds: `heartbeat_s`, or a sixth of `lease_s` where it is not set."""
        return self.lease_s / BEATS if self.heartbeat_s is None else self.heartbeat_s


#: `timeout_s` of `setup`, unless it is given: a person waits in front of the screen.
SETUP_TIMEOUT_S = 10.0

#: The defaults, for other code that offers one of these times too.
DEFAULT = Timing()
#: The least values. Below these a wait becomes a busy loop, or a lease lapses unrenewed.
LEAST = {
    "connect_timeout_s": 0.1,
    "lease_s": 1,
    "heartbeat_s": 0.1,
    "busy_attempts": 1,
    "retry_maximum_s": 0.01,
    "scan_budget": 1,
}
