"""Keeps the copies in Redis equal to PostgreSQL's rows, and finds the copies that are not.

A copy is computed from rows and never replayed from a saved payload. Whoever refreshes a key holds
an advisory lock on it in PostgreSQL. The key is also watched in Redis from before the rows are
read. So Redis refuses a late MULTI when another refresh came first. A MULTI is late when Redis hung
or the lock was lost.
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

#: Seconds for connecting to Redis, and for each of its answers.
TIMEOUT_S = 1.0
#: How often a refresh is tried before its keys become pending.
TRIES = 2
#: How many keys a repair refreshes in one transaction.
BATCH = 50
#: How many keys a warning names.
_KEYS_IN_WARNING = 10

T = TypeVar("T")

#: A store that is away or refuses a command, and a row that is not a valid record.
_FAILURES = (RedisError, SQLAlchemyError, OSError, ValidationError)


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did to the keys. Each tuple is sorted."""

    #: Keys whose copies now equal PostgreSQL's rows.
    repaired: tuple[str, ...] = ()
    #: Keys that could not be written and stay pending.
    failed: tuple[str, ...] = ()
    #: Keys without a row, whose copies were left alone.
    orphans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """How many records were inserted into PostgreSQL, and which copies were refused."""

    tickets: int
    agents: int
    audit_entries: int
    #: The key and the reason of each copy that was refused.
    refused: tuple[tuple[str, str], ...]


class Cache:
    """The copies in Redis, and the keys whose copies are pending. Threads may share an object.

    The client `redis` must decode responses, wait at most a second for a connection and for an
    answer, and never retry by itself. `from_url` builds such a client. `sessions` is
    `get_db_session` or a callable like it.
    """

    def __init__(self, redis: Redis, sessions: Sessions) -> None:
        self._redis: Any = redis
        self._sessions = sessions
        self._lock = threading.Lock()
        #: Each pending key and the number of its mark. A later mark has a greater number.
        self._marks: dict[str, int] = {}
        self._numbers = itertools.count()
        self.copies = Copies(redis, self._marks.__contains__)

    @classmethod
    def from_url(cls, url: str, sessions: Sessions, **options: Any) -> Cache:
        """A cache for the Redis server at `url`, with `options` of redis-py.

        Opens no connection.
        """
        own: dict[str, Any] = {
            "decode_responses": True,
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
        }
        client = Redis.from_url(url, **(options | own))
        return cls(client, sessions)

    def refresh(self, *keys: str) -> bool:
        """Compute the copies of these keys again.

        Returns False when a store failed twice. Then the keys are pending, and one WARNING is
        logged. Raises `ValueError` for a key that is not a copy's key.
        """
        for key in keys:
            _copies.split_key(key)
        wanted = sorted(set(keys))
        try:
            failure, _ = self._try_writing(wanted, discard=True)
        except BaseException:
            self.mark(wanted)
            raise
        if failure:
            self._give_up(wanted, failure)
        return failure is None

    def pending(self) -> frozenset[str]:
        """The keys whose copies may be older than PostgreSQL's rows."""
        with self._lock:
            return frozenset(self._marks)

    def mark(self, keys: Collection[str]) -> None:
        """Make these keys pending."""
        with self._lock:
            self._marks.update((key, next(self._numbers)) for key in keys)

    def repair(self, *, full: bool = False, discard_orphans: bool = False) -> RepairReport:
        """Refresh the pending keys. With `full`, refresh all keys and rebuild `ticket:index`.

        All keys are those that have a row in PostgreSQL and those that Redis has. A pending key
        without a row was deleted by this process, so its copy is deleted. Any other copy without a
        row is an orphan. Orphans are deleted with `discard_orphans` only.

        A full repair that cannot scan Redis leaves `ticket:index` pending. Then the next repair is
        a full one. A full repair raises SQLAlchemy's error when PostgreSQL cannot list its keys.
        """
        pending = self.pending()
        first = self._rewrite_keys(pending - {INDEX}, discard=True)
        if not full and INDEX not in pending:
            return first

        with self._sessions() as session:
            wanted = _copies.keys_of_rows(session)
        index_mark = self._marks_of([INDEX])
        try:
            wanted |= _copies.scan_keys(self._redis)
        except RedisError as exc:
            failed = wanted | {INDEX}
            self._give_up(sorted(failed), exc)
            return RepairReport(failed=_sorted_tuple(failed | set(first.failed)))

        rest = self._rewrite_keys(wanted - set(first.failed), discard=discard_orphans)
        self._remove_marks(index_mark)
        repaired = {*first.repaired, *rest.repaired} - {*rest.failed}
        return RepairReport(
            repaired=_sorted_tuple(repaired),
            failed=_sorted_tuple({*first.failed, *rest.failed}),
            orphans=rest.orphans,
        )

    def adopt(self) -> AdoptReport:
        """Insert into PostgreSQL the record of every copy that validates and has no row.

        Redis stays as it is. Run this method before the desk is opened. It can be repeated. The
        audit entries of a ticket are adopted together or refused together. Errors of either store
        are raised, and the records that were inserted by then stay.
        """
        keys = sorted(_copies.scan_keys(self._redis) - self.pending())
        return AdoptReport(*_adoption.adopt_copies(self._redis, self._sessions, keys))

    def answer_instead(self, unavailable: Exception, read: Callable[[Copies], T]) -> T:
        """The answer of Redis while PostgreSQL is unavailable.

        Raises `unavailable`, the error of PostgreSQL, when Redis cannot answer either.
        """
        try:
            answer = read(self.copies)
        except NO_ANSWER:
            raise unavailable  # noqa: B904 - the caller asked PostgreSQL
        self.log_answer(unavailable)
        return answer

    @staticmethod
    def log_answer(unavailable: Exception) -> None:
        """Log that Redis has answered, and why PostgreSQL has not."""
        reason = _failure_reason(unavailable)
        _log.warning("PostgreSQL is unavailable, Redis answered: %s", reason)

    def _try_writing(
        self,
        keys: Sequence[str],
        *,
        discard: bool,
    ) -> tuple[Exception | None, list[str]]:
        """Write the keys, at most `TRIES` times.

        Returns the failure of the last try, or None after a success, and the orphans.
        """
        failure: Exception | None = None
        tries = TRIES if keys else 0
        for _ in range(tries):
            marks = self._marks_of(keys)
            try:
                orphans = self._write_once(keys, discard=discard)
            except _FAILURES as exc:
                failure = exc
                continue
            written = {key: mark for key, mark in marks.items() if key not in orphans}
            self._remove_marks(written)
            return None, orphans
        return failure, []

    def _write_once(self, keys: Sequence[str], *, discard: bool) -> list[str]:
        """Give the keys the values of PostgreSQL's rows, in one transaction of each store.

        Returns the orphans, which are the keys without a row that Redis has. With `discard` they
        are deleted and not returned.
        """
        with self._sessions() as session:
            _lock_keys(session, keys)
            with _watched_pipeline(self._redis, keys) as pipe:
                values = _copies.row_values(session, keys)
                without_row = [key for key, value in values.items() if value is None]
                present = {key for key in without_row if pipe.exists(key)}
                pipe.multi()
                for key, value in values.items():
                    is_present = key in present
                    if discard or not is_present:
                        _copies.queue_commands(pipe, key, value, present=is_present)
                if len(pipe):
                    # EXEC ends the watch. Without this line, redis-py would ask a server that hangs
                    # to UNWATCH, and wait again.
                    pipe.watching = False
                    pipe.execute()
        return [] if discard else sorted(present)

    def _rewrite_keys(self, keys: Collection[str], *, discard: bool) -> RepairReport:
        """Write the keys batch by batch.

        A batch that fails is tried again key by key. When a store is away, every remaining key
        fails at once.
        """
        ordered = sorted(keys)
        todo = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
        todo.reverse()
        failed: list[str] = []
        orphans: list[str] = []
        cause: Exception | None = None
        while todo:
            batch = todo.pop()
            failure, batch_orphans = self._try_writing(batch, discard=discard)
            orphans += batch_orphans
            if failure is None:
                continue
            if _is_away(failure):
                cause = failure
                failed += itertools.chain(batch, *todo)
                break
            if len(batch) > 1:
                todo += [[key] for key in reversed(batch)]
                continue
            cause = failure
            failed += batch
        if cause:
            self._give_up(sorted(failed), cause)
        repaired = set(ordered) - {*failed, *orphans}
        return RepairReport(
            repaired=_sorted_tuple(repaired),
            failed=_sorted_tuple(failed),
            orphans=_sorted_tuple(orphans),
        )

    def _give_up(self, keys: Sequence[str], cause: Exception) -> None:
        """Make the keys pending, and log one WARNING."""
        self.mark(keys)
        shown = ", ".join(keys[:_KEYS_IN_WARNING])
        more = len(keys) - _KEYS_IN_WARNING
        if more > 0:
            shown += f" and {more} more"
        reason = _failure_reason(cause)
        _log.warning("Redis copies are pending until the next repair: %s. %s", shown, reason)

    def _marks_of(self, keys: Collection[str]) -> dict[str, int]:
        """The marks that these keys have now."""
        with self._lock:
            return {key: self._marks[key] for key in keys if key in self._marks}

    def _remove_marks(self, marks: dict[str, int]) -> None:
        """Remove these marks, but no mark that a key was given later."""
        with self._lock:
            for key, mark in marks.items():
                if self._marks.get(key) == mark:
                    del self._marks[key]


def _sorted_tuple(keys: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(keys))


def _lock_keys(session: Session, keys: Sequence[str]) -> None:
    """Exclude other refreshes of these sorted keys until the transaction ends."""
    # Under REPEATABLE READ, the transaction would see the rows as they were before the wait.
    session.connection(execution_options={"isolation_level": "READ COMMITTED"})
    session.execute(text("SELECT set_config('lock_timeout', '1s', true)"))
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")
    for key in keys:
        session.execute(lock, {"key": key})


@contextmanager
def _watched_pipeline(redis: Any, keys: Sequence[str]) -> Iterator[Any]:
    """A pipeline whose MULTI fails when somebody else writes one of the keys.

    After an error, the pipeline's connection is closed.
    """
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


def _is_away(failure: Exception) -> bool:
    """Whether a store is away, so that the next key would fail in the same way after a wait."""
    if isinstance(failure, DBAPIError):
        has_sqlstate = getattr(failure.orig, "sqlstate", None) is not None
        return failure.connection_invalidated or not has_sqlstate
    return isinstance(failure, (RedisGone, RedisHangs))


def _failure_reason(failure: Exception) -> str:
    """The failure in words, without the statement and its values."""
    cause = failure
    if isinstance(failure, DBAPIError) and failure.orig:
        cause = failure.orig
    if isinstance(cause, ValidationError):
        return f"A row is no valid {cause.title}: {cause.error_count()} fields."
    return f"{type(cause).__name__}: {cause}".strip()
