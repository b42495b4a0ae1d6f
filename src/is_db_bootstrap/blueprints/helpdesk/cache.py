"""Keeps the copies in Redis equal to what PostgreSQL says, and finds what is not.

A copy is computed from rows, never replayed from a saved payload. Whoever refreshes a key holds its advisory lock and
watches it in Redis from before the rows are read: a MULTI that is late, because Redis hung or the lock was lost, is
refused by Redis when another refresh came first.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from redis import ConnectionError as RedisGone
from redis import Redis, RedisError
from redis import TimeoutError as RedisHangs
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from is_db_bootstrap.blueprints.helpdesk import _adoption, _copies
from is_db_bootstrap.blueprints.helpdesk._copies import INDEX, NO_ANSWER, Copies
from is_db_bootstrap.blueprints.helpdesk._transactions import Sessions

_log = logging.getLogger(__name__)

#: Of connecting to Redis and of each answer.
TIMEOUT_S = 1.0
TRIES = 2
#: Keys that a repair refreshes in one transaction.
BATCH = 50

T = TypeVar("T")

#: A store that is away or refuses, and a row that is no valid record.
_FAILURES = (RedisError, SQLAlchemyError, OSError, ValidationError)


@dataclass(frozen=True, slots=True)
class RepairReport:
    """Keys, sorted. `repaired` now equal PostgreSQL, `failed` stay pending, `orphans` have no row and were left alone."""

    repaired: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """How many records were inserted; `refused` has a key and a reason for each copy that does not validate."""

    tickets: int
    agents: int
    audit_entries: int
    refused: tuple[tuple[str, str], ...]


class Cache:
    """The copies in Redis, and the marks of those that could not be written. Safe to share between threads.

    `redis` decodes responses, waits at most a second for a connection and for an answer, and never retries by itself;
    `from_url` builds such a client. `sessions` is `get_db_session` or a callable like it.
    """

    def __init__(self, redis: Redis, sessions: Sessions) -> None:
        self._redis: Any = redis
        self._sessions = sessions
        self._lock = threading.Lock()
        self._marks: dict[str, int] = {}
        self._numbers = itertools.count()
        self.copies = Copies(redis, self._marks.__contains__)

    @classmethod
    def from_url(cls, url: str, sessions: Sessions) -> Cache:
        """Opens no connection."""
        client = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        return cls(client, sessions)

    def refresh(self, *keys: str) -> bool:
        """Compute these keys again. False when a store failed twice: then they are pending, and one WARNING is logged.

        `ValueError` for a key that is no copy.
        """
        for key in keys:
            _copies.split(key)
        wanted = sorted(set(keys))
        try:
            failure, _ = self._try(wanted, discard=True)
        except BaseException:
            self.mark(wanted)
            raise
        if failure:
            self._give_up(wanted, failure)
        return failure is None

    def pending(self) -> frozenset[str]:
        """Keys whose copies may be older than what PostgreSQL says."""
        with self._lock:
            return frozenset(self._marks)

    def mark(self, keys: Collection[str]) -> None:
        """Make keys pending."""
        with self._lock:
            self._marks.update((key, next(self._numbers)) for key in keys)

    def repair(self, *, full: bool = False, discard_orphans: bool = False) -> RepairReport:
        """Refresh the pending keys; with `full` all keys that rows call for or that Redis has, and `ticket:index`.

        A pending key without a row was deleted here and disappears. Any other copy without a row is an orphan: it goes
        only with `discard_orphans`. A full repair that cannot look through Redis leaves `ticket:index` pending, and the next
        repair is a full one. It raises when PostgreSQL cannot be asked which keys there are.
        """
        due = self.pending()
        first = self._rewrite(due - {INDEX}, discard=True)
        if not full and INDEX not in due:
            return first
        with self._sessions() as session:
            wanted = _copies.called_for(session)
        marks = self._marks_of([INDEX])
        try:
            wanted |= _copies.scan(self._redis)
        except RedisError as exc:
            failed = wanted | {INDEX}
            self._give_up(sorted(failed), exc)
            return RepairReport(failed=tuple(sorted(failed | set(first.failed))))
        rest = self._rewrite(wanted - set(first.failed), discard=discard_orphans)
        self._unmark(marks)
        repaired = (set(first.repaired) | set(rest.repaired)) - set(rest.failed)
        return RepairReport(tuple(sorted(repaired)), tuple(sorted({*first.failed, *rest.failed})), rest.orphans)

    def adopt(self) -> AdoptReport:
        """Insert into PostgreSQL every copy that validates and has no row; Redis stays as it is.

        Run it before the desk is opened; it can be repeated. A list of audit entries is taken as a whole or refused as a whole.
        Errors of either store are raised; what was inserted until then stays.
        """
        keys = sorted(_copies.scan(self._redis) - self.pending())
        return AdoptReport(*_adoption.adopt(self._redis, self._sessions, keys))

    def instead(self, unavailable: Exception, read: Callable[[Copies], T]) -> T:
        """What Redis says while PostgreSQL is `unavailable`; that is raised when Redis cannot say either."""
        try:
            answer = read(self.copies)
        except NO_ANSWER:
            raise unavailable  # noqa: B904 - the caller asked PostgreSQL
        self.answered(unavailable)
        return answer

    @staticmethod
    def answered(unavailable: Exception) -> None:
        """Log that an answer is Redis's."""
        _log.warning("PostgreSQL is unavailable, Redis answered: %s", _reason(unavailable))

    def _try(self, keys: Sequence[str], *, discard: bool) -> tuple[Exception | None, list[str]]:
        """What made the second try fail, if it did, and the orphans."""
        failure: Exception | None = None
        for _ in range(TRIES if keys else 0):
            marks = self._marks_of(keys)
            try:
                orphans = self._write(keys, discard=discard)
            except _FAILURES as exc:
                failure = exc
                continue
            self._unmark({key: mark for key, mark in marks.items() if key not in orphans})
            return None, orphans
        return failure, []

    def _write(self, keys: Sequence[str], *, discard: bool) -> list[str]:
        """Once; the keys without a row that were left alone."""
        with self._sessions() as session:
            _lock(session, keys)
            with _watching(self._redis, keys) as pipe:
                values = _copies.values(session, keys)
                present = {key for key, value in values.items() if value is None and pipe.exists(key)}
                pipe.multi()
                for key, value in values.items():
                    if discard or key not in present:
                        _copies.queue(pipe, key, value, present=key in present)
                if len(pipe):
                    # EXEC ends the watch; without this, redis-py asks a server that hangs to UNWATCH, and waits again.
                    pipe.watching = False
                    pipe.execute()
        return [] if discard else sorted(present)

    def _rewrite(self, keys: Collection[str], *, discard: bool) -> RepairReport:
        """Batch by batch; a batch that fails is tried again key by key, unless a store is away."""
        ordered = sorted(keys)
        todo = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)][::-1]
        failed: list[str] = []
        orphans: list[str] = []
        cause: Exception | None = None
        while todo:
            batch = todo.pop()
            failure, left = self._try(batch, discard=discard)
            orphans += left
            if failure and len(batch) > 1 and not _away(failure):
                todo += [[key] for key in reversed(batch)]
            elif failure:
                cause = failure
                failed += batch
                if _away(failure):
                    failed += itertools.chain.from_iterable(todo)
                    break
        if cause:
            self._give_up(sorted(failed), cause)
        return RepairReport(tuple(sorted(set(ordered) - {*failed, *orphans})), tuple(sorted(failed)), tuple(sorted(orphans)))

    def _give_up(self, keys: Sequence[str], cause: Exception) -> None:
        self.mark(keys)
        shown = ", ".join(keys[:10]) + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")  # noqa: PLR2004
        _log.warning("Redis copies are pending until the next repair: %s. %s", shown, _reason(cause))

    def _marks_of(self, keys: Collection[str]) -> dict[str, int]:
        with self._lock:
            return {key: self._marks[key] for key in keys if key in self._marks}

    def _unmark(self, marks: dict[str, int]) -> None:
        """Remove these marks, but none that was set since."""
        with self._lock:
            for key, mark in marks.items():
                if self._marks.get(key) == mark:
                    del self._marks[key]


def _lock(session: Session, keys: Sequence[str]) -> None:
    """Exclude other refreshes of these keys, which are sorted, until the transaction ends."""
    # Under REPEATABLE READ the rows would be those of before the wait.
    session.connection(execution_options={"isolation_level": "READ COMMITTED"})
    session.execute(text("SELECT set_config('lock_timeout', '1s', true)"))
    for key in keys:
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})


@contextmanager
def _watching(redis: Any, keys: Sequence[str]) -> Iterator[Any]:
    """A pipeline whose MULTI fails when somebody else writes one of the keys. On an error its connection is closed."""
    pipe = redis.pipeline()
    try:
        pipe.watch(*keys)
        yield pipe
    except BaseException:
        if pipe.connection:
            pipe.connection.disconnect()
        pipe.watching = False
        raise
    finally:
        pipe.reset()


def _away(failure: Exception) -> bool:
    """Whether the next key would fail the same way, after the same wait."""
    if isinstance(failure, DBAPIError):
        return failure.connection_invalidated or getattr(failure.orig, "sqlstate", None) is None
    return isinstance(failure, (RedisGone, RedisHangs))


def _reason(failure: Exception) -> str:
    """Without the statement and its values."""
    cause = failure.orig if isinstance(failure, DBAPIError) and failure.orig else failure
    if isinstance(cause, ValidationError):
        return f"A row is no valid {cause.title}: {cause.error_count()} fields."
    return f"{type(cause).__name__}: {cause}".strip()
