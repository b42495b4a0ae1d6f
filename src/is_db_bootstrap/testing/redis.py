"""Redis for tests: each process has a logical database, flushed after each test.

An address with the number of a logical database gives that one and no other. Processes take turns
on it, each for a test. An address without a number gives the server, as an address of PostgreSQL
does. Then each process takes an empty logical database of its own.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError, LockTimeout
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.redis.connection import open_client
from is_db_bootstrap.testing.content import BUDGET, BUDGET_IN_A_TEST, Content, Seal, Thing, digest
from is_db_bootstrap.testing.isolation import PATIENCE_S, Isolation, Pulse, Waiting
from is_db_bootstrap.wording import counted

#: The key that marks a logical database as one for tests: a hash of the fields below.
#: Earlier versions wrote a string, the process's token.
MARK = "is-db-bootstrap:testing"
#: The field with the token of the process that the logical database belongs to.
_SESSION = "session"
#: The field with a seal of what the logical database held when it was set up.
_MADE = "made"
#: The field with a seal of what the logical database held at the process's last look.
_HELD = "held"
#: The field with the run of pytest-xdist of which a test has the logical database now.
_TEST_OF = "test_of"
#: The beginning of all keys that this package writes. The mark of an earlier version vouches for
#: these keys only.
_OWN_KEYS = b"is-db-bootstrap:"
#: The name of the connection that shows that a process lives. The process's token follows.
_CLIENT = "is-db-bootstrap-testing-"
#: The name of the connection that works in a process's logical database. The token follows.
#: While a test has deleted the mark, the connection shows others whose database this is.
_HOLDER = "is-db-bootstrap-holder-"
#: The name of the connection of a process that waits for its turn. The token follows.
_WAITING = "is-db-bootstrap-waiting-"
#: Seconds between two looks of a process that waits.
_WAIT_S = 0.05
#: Seconds that a process which has had its turn leaves to those that wait.
_YIELD_S = 0.2
#: How many logical databases a server has that does not tell.
_DATABASES = 16
#: How often a transaction is tried that another client's write to the mark has ended.
_TRIES = 10
#: Seconds between two looks at what a running test has written to a given server.
_LOOK_S = 0.5
#: The way out where the address names no logical database, and the first one is in use.
_NAME_ONE = "Name a logical database that is empty, such as /5 at the end of the address"
#: Bytes of values that are looked at, in all.
_BYTES = 32_000_000


class RedisIsolation(Isolation):
    """A logical database that holds the mark and the blueprint's record at the start of each test.

    The logical database that the address names (0 when the address names none) must be empty or
    bear the mark. So must each logical database that is taken. On a given server a process takes no
    other one than the address names, if the address names one. A mark belongs to a living process
    while a connection of that process is on the server's client list. On a given server, the mark
    of a dead process says what that process vouches for. Any other keys are named in an error and
    stay.
    """

    store = "redis"
    client_errors = (redis.RedisError,)

    def __init__(
        self,
        server: StoreUrl,
        blueprint: Blueprint,
        settings: Settings,
        *,
        patience_s: float = PATIENCE_S,
        **options: Any,
    ) -> None:
        super().__init__(server, blueprint, settings, **options)
        self._token = secrets.token_hex(8)
        self._patience_s = patience_s
        self._named = int(server.database or 0)
        #: Whether processes take turns on the logical database that the address names.
        self._in_turns = self.given and server.database != ""
        # The constructor names the connection, so that a new connection after a loss is named too.
        self._own = self._new_client(self._named, client_name=_CLIENT + self._token)
        self._own.ping()
        #: The number of the logical database that this process has.
        self._taken: int | None = None
        self._holder_id = 0
        self._lost: LockTimeout | None = None
        self._in_test = False
        self._noting = threading.Lock()
        self._kept: set[int] = set()
        #: What was made, each key with its value as `DUMP` gives it.
        self._made: dict[bytes, bytes] = {}
        self._pulse = Pulse(self._look_again, _LOOK_S, self.client_errors, name="isdb-redis-look")

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """Whether the user's access list lacks a command or a key."""
        return isinstance(exc, redis.exceptions.NoPermissionError)

    def take(self) -> StoreUrl:
        """The address of the process's logical database."""
        if self._lost:
            raise self._lost
        if self._taken is None:
            self._set_up()
        else:
            with self._noting:
                self._check_ours()
                if self.given:
                    self._check_untouched(self._taken)
        with self._noting:
            if self.run:
                self._holder.hset(MARK, _TEST_OF, self.run)
            self._in_test = True
        return self._address_of(self._taken or 0)

    @property
    def has_one_place(self) -> bool:
        """Whether the address names the logical database."""
        return self._in_turns

    def _set_up(self) -> None:
        """Claim a logical database and bring it to the blueprint."""
        number = self._wait_for_database()
        self._holder = self._new_holder(number)
        self._holder_id = self._holder.client_id()
        self._taken = number
        with self._noting:
            if self._made:
                self._change_if_ours(self._queue_restore)
        if not self._made:
            self._make_record(number)
        if self.given:
            self._pulse.start()

    def _make_record(self, number: int) -> None:
        """Bring a logical database to the blueprint. One that fails half-way is given up."""
        try:
            self.apply(self._address_of(number))
            with self._noting:
                self._made = self._note_made()
        except BaseException:
            with suppress(LockTimeout, redis.RedisError), self._noting:
                self._give_up(_queue_flush)
            raise

    def _give_up(self, change: Callable[[Any], None]) -> None:
        """Clear the logical database by `change`, and let others have it."""
        self._change_if_ours(change)
        self._taken = None
        self._holder.close()

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Flush the logical database and put the blueprint's record back, in one transaction.

        Where processes take turns, the logical database is left empty for the next one. With
        `keep`, the next test gets another logical database. Raises `LockTimeout` when another
        session has the logical database, because our connections to the server were lost.
        """
        if self._taken is None or url.database != str(self._taken):
            return
        with self._noting:
            self._in_test = False
            if not keep and self._in_turns:
                self._give_up(_queue_flush)
                return
            if not keep:
                self._change_if_ours(self._queue_restore)
                return
            self._note_held(BUDGET)
            self._holder.hdel(MARK, _TEST_OF)
            self._kept.add(self._taken)
            self._taken = None
            self._holder.close()

    def close(self) -> None:
        """Remove what was made and give the logical database up.

        Keys that somebody has written since stay.
        """
        self._pulse.close()
        try:
            if self._taken is not None and not self._lost:
                is_set_up = bool(self._made)
                is_ours_whole = self._in_test or not is_set_up or not self.given
                self._change_if_ours(_queue_flush if is_ours_whole else self._queue_removal)
            if self.run and not self._lost:
                self._remove_left_of_run()
        finally:
            if self._taken is not None:
                self._holder.close()
                self._taken = None
            self._own.close()

    # --- changing a logical database only while it is ours

    def _change_if_ours(self, change: Callable[[Any], None]) -> None:
        """Queue what `change` does to a pipeline, and run it if the logical database is ours then.

        The mark is watched from the look at its token to the end of the transaction. A test may
        have deleted the mark. Then the database is ours if our connection is still the connection
        that took it, because other sessions take no database that a living connection holds.
        Raises `LockTimeout` when the database is not ours. Then nothing was changed.
        """
        for _ in range(_TRIES):
            with self._holder.pipeline(transaction=True) as pipe:
                try:
                    pipe.watch(MARK, *self._made)
                    if not self._is_ours(pipe):
                        raise self._note_loss()
                    change(pipe)
                    pipe.execute()
                except redis.WatchError:
                    continue
                return
        raise redis.WatchError(f"the mark in logical database {self._taken} changes all the time")

    def _check_ours(self) -> None:
        """Raise `LockTimeout` unless the logical database is ours."""

        def no_change(pipe: Any) -> None:
            pass

        self._change_if_ours(no_change)

    def _is_ours(self, pipe: Any) -> bool:
        owner = _mark_owner(pipe)
        if owner is not None:
            return owner == self._token
        return bool(pipe.client_id() == self._holder_id)

    def _note_loss(self) -> LockTimeout:
        """Remember that the turn was lost, and return the error that says so."""
        self._in_test = False
        self._lost = LockTimeout(
            "redis",
            f"the turn in logical database {self._taken} at {self.server} was lost: the "
            "connections of this session were ended, and another one may have used it since.",
            hint="Was the process stopped, or the server restarted? "
            "Nothing was deleted after that. Run the tests again.",
        )
        return self._lost

    def _queue_restore(self, pipe: Any) -> None:
        """Empty the logical database, and write again what was made."""
        pipe.multi()
        pipe.flushdb()
        for key, value in self._made.items():
            pipe.restore(key, 0, value)

    def _queue_removal(self, pipe: Any) -> None:
        """Delete the mark, and each key that was made and still has its value."""
        unchanged = [key for key, value in self._made.items() if pipe.dump(key) == value]
        pipe.multi()
        pipe.delete(MARK, *unchanged)

    def _note_made(self) -> dict[bytes, bytes]:
        """Note in the mark what was made.

        Returns all keys, each with its value as `DUMP` gives it.
        """
        if self.given:
            made = Seal.of(_read_content(self._holder, BUDGET))
            self._holder.hset(MARK, _MADE, made.text())
        keys = list(self._holder.scan_iter())
        return {key: self._holder.dump(key) for key in keys}

    def _address_of(self, number: int) -> StoreUrl:
        return replace(self.server, database=str(number))

    def _new_client(self, number: int, **options: Any) -> Any:
        return open_client(self._address_of(number), redis, **options)

    def _new_holder(self, number: int) -> Any:
        """A client with a single connection.

        The server knows this connection by one number for the connection's whole life.
        """
        return self._new_client(number, client_name=_HOLDER + self._token, max_connections=1)

    # --- whose a logical database is

    def _wait_for_database(self) -> int:
        """The number of a logical database that now bears our mark.

        Waits for a turn, where processes take turns. Raises `LockTimeout` after the patience has
        run out.
        """
        if self._in_turns and self._kept:
            raise ConfigurationError(
                f"redis: {self.server} is kept as an earlier test left it, "
                "and no other logical database was given.",
                hint="Leave out --keep-stores, or the number in the address, "
                "or stop at the first failure (-x).",
            )
        if self._made and self._somebody_waits():
            time.sleep(_YIELD_S)
        number = self._claim_database()
        if number is not None:
            return number
        waiting = Waiting(
            "redis",
            f"logical database {self._named} at {self.server}",
            say=self.say,
            patience_s=self._patience_s,
            hint="Leave the number out of the address, so that each session has an empty logical "
            "database, or run with fewer workers.",
        )
        with self._new_client(self._named, client_name=_WAITING + self._token) as client:
            while number is None:
                client.ping()  # the connection's name says that somebody waits
                waiting.check()
                time.sleep(_WAIT_S)
                number = self._claim_database()
        return number

    def _somebody_waits(self) -> bool:
        """Whether another process waits for its turn in the logical database of the address."""
        return self._in_turns and any(
            client.get("name", "").startswith(_WAITING) and int(client["db"]) == self._named
            for client in self._own.client_list()
        )

    def _claim_database(self) -> int | None:
        """The number of a logical database that now bears our mark.

        The logical database was empty, or bore the mark of a dead process. None where processes
        take turns and another one is in. Raises `ConfigurationError` when no logical database is
        left.
        """
        living = self._living_tokens()
        self._refuse_used_database()
        if self.given:
            self._remove_leftovers(living)
        for number in self._candidates():
            if number not in self._kept and self._try_to_mark(number, living):
                return number
        if self._in_turns:
            return None
        raise ConfigurationError(
            f"redis: every logical database at {self.server} is in use.",
            hint="Run fewer tests at once, or empty the server.",
        )

    def _candidates(self) -> list[int]:
        """The logical databases that this process may take, the best one first."""
        if self._in_turns:
            return [self._named]
        others = [number for number in range(self._database_count()) if number != self._named]
        return [self._named, *others]

    def _living_tokens(self) -> set[str]:
        """The tokens of the processes that have a connection to the server."""
        names = [client.get("name", "") for client in self._own.client_list()]
        return {
            name.removeprefix(prefix)
            for name in names
            for prefix in (_CLIENT, _HOLDER)
            if name.startswith(prefix)
        }

    def _held_databases(self) -> set[int]:
        """The logical databases that living processes hold, whatever a test has deleted there."""
        clients = self._own.client_list()
        holders = [client for client in clients if client.get("name", "").startswith(_HOLDER)]
        return {int(holder["db"]) for holder in holders}

    def _refuse_used_database(self) -> None:
        """The logical database that the address names must not be in use by anything else."""
        with self._new_client(self._named) as client:
            with client.pipeline(transaction=True) as pipe:
                pipe.dbsize()
                pipe.exists(MARK)
                size, is_marked = pipe.execute()
            is_used = size and not is_marked
            if not is_used or self._named in self._held_databases():
                return
            found = _read_content(client, BUDGET)
            if found:  # else another process has just left
                way_out = "" if self._in_turns else _NAME_ONE
                raise self.not_ours(f"logical database {self._named}", found, way_out=way_out)

    def _database_count(self) -> int:
        try:
            return int(self._own.config_get("databases")["databases"])
        except (redis.ResponseError, KeyError):
            return _DATABASES

    def _try_to_mark(self, number: int, living: set[str]) -> bool:
        """Whether the logical database could be marked as ours.

        Of two processes that try at the same time, one gets False.
        """
        with self._new_client(number) as client, client.pipeline(transaction=True) as pipe:
            pipe.watch(MARK)
            owner = _mark_owner(pipe)
            if owner is None:
                is_used = pipe.dbsize() or number in self._held_databases()
                if is_used:
                    return False
            elif self.given or owner in living:
                # What dead processes left on a given server was removed before. So this mark has
                # come since.
                return False
            pipe.multi()
            if owner is not None:
                pipe.flushdb()
            pipe.hset(MARK, _SESSION, self._token)
            try:
                pipe.execute()
            except redis.WatchError:
                return False
            if client.dbsize() == 1:
                return True
            client.delete(MARK)  # somebody has written here in the same moment
            return False

    # --- what dead processes have left on a given server

    def _remove_leftovers(self, living: set[str]) -> None:
        """Remove what dead processes have left, from each logical database all of it or nothing.

        Nothing is removed where there is more than the dead process vouches for.
        """
        for number in self._filled_databases():
            if self._in_turns and number != self._named:
                continue
            with self._new_client(number) as client:
                self._remove_vouched(client, number, living)

    def _remove_left_of_run(self) -> None:
        """Empty the logical databases in which tests of dead workers of the same run were."""
        living = self._living_tokens()
        for number in self._filled_databases():
            with self._new_client(number) as client:
                if self._is_of_run(client):
                    self._remove_vouched(client, number, living)

    def _is_of_run(self, client: Any) -> bool:
        """Whether the mark says that a test of the same run has the logical database."""
        if not self.run or _as_text(client.type(MARK)) != "hash":
            return False
        return _as_text(client.hget(MARK, _TEST_OF)) == self.run

    def _filled_databases(self) -> Iterator[int]:
        """The logical databases that hold keys, without those that this process has kept."""
        names = self._own.info("keyspace")
        numbers = [int(name.removeprefix("db")) for name in names if name.startswith("db")]
        for number in sorted(numbers):
            if number not in self._kept:
                yield number

    def _remove_vouched(self, client: Any, number: int, living: set[str]) -> None:
        """Empty a logical database that a dead process has left.

        Raises `ConfigurationError` when there are keys that the dead process does not vouch for.
        """
        with client.pipeline(transaction=True) as pipe:
            pipe.watch(MARK)
            owner = _mark_owner(pipe)
            if owner is None or owner in living:
                return
            # From here on, a write to one of these keys ends the transaction.
            pipe.watch(*(_key_names(client, BUDGET) or [MARK.encode()]))
            found = _read_content(client, BUDGET)
            is_of_run = self._is_of_run(pipe)
            foreign = found.besides(_vouched_digests(pipe, found))
            if foreign and not is_of_run:
                raise self.written_by_others(
                    f"logical database {number}",
                    foreign,
                    way_out=f"If it may go, empty it: redis-cli -n {number} FLUSHDB. "
                    f"To keep it, delete only the mark: redis-cli -n {number} DEL {MARK}.",
                )
            pipe.multi()
            if is_of_run:
                pipe.flushdb()
            else:
                pipe.delete(MARK, *(thing.handle for thing in found.things))
            with suppress(redis.WatchError):  # another session was quicker
                pipe.execute()

    def _check_untouched(self, number: int) -> None:
        """Before a test, nothing is there but what was made.

        Somebody else may have written or changed a key since the last test.
        """
        found = _read_content(self._holder, BUDGET)
        made = frozenset(digest(key, value) for key, value in self._made.items())
        foreign = found.besides(made)
        if foreign:
            raise self.written_by_others(
                f"logical database {number}",
                foreign,
                way_out="Somebody writes there while tests run: end that.",
            )

    # --- looking at a running test

    def _look_again(self) -> None:
        """Show that this process lives, and note what a running test has written."""
        self._own.ping()
        with self._noting:
            if self._taken is None or self._lost:
                return
            self._holder.ping()
            if self._in_test:
                with suppress(LockTimeout):  # the next call of a test raises it again
                    self._note_held(BUDGET_IN_A_TEST)

    def _note_held(self, limit: int) -> None:
        """Vouch in the mark for what is there now, unless there are more than `limit` keys."""
        if not self.given or self._holder.dbsize() > limit:
            return
        text = Seal.of(_read_content(self._holder, limit)).text()
        if _as_text(self._holder.hget(MARK, _HELD)) == text:
            return

        def note(pipe: Any) -> None:
            pipe.multi()
            fields = {_SESSION: self._token, _HELD: text}
            if self.run and self._in_test:
                fields[_TEST_OF] = self.run  # the test may have deleted the mark
            pipe.hset(MARK, mapping=fields)

        self._change_if_ours(note)


def _read_content(client: Any, limit: int) -> Content:
    """At most `limit` keys, each with a digest of name and value. The mark is left out."""
    keys = _key_names(client, limit)
    unseen = f"and more: only {limit} keys were looked at" if len(keys) > limit else ""
    sizes = _answers_by_key(client, "memory_usage", keys[:limit])
    if sum(size or 0 for size in sizes) > _BYTES:
        megabytes = _BYTES // 1_000_000
        return Content(
            (), f"{counted(len(keys), 'key')} of more than {megabytes} MB, not looked at"
        )
    values = _answers_by_key(client, "dump", keys[:limit])
    things = [
        Thing("key", name=key.decode(errors="replace"), digest=digest(key, value), handle=key)
        for key, value in zip(keys, values, strict=False)
        if value is not None
    ]
    return Content(tuple(things), unseen)


def _key_names(client: Any, limit: int) -> list[bytes]:
    """The names of all keys but the mark.

    Where there are more than `limit` keys, the answer has some more names than `limit`, not all.
    """
    found: set[bytes] = set()
    for key in client.scan_iter(count=1000):  # the server may name a key twice
        found.add(key)
        if len(found) > limit + 1:
            break
    return sorted(found - {MARK.encode()})


def _queue_flush(pipe: Any) -> None:
    """Empty the logical database."""
    pipe.multi()
    pipe.flushdb()


def _mark_owner(client: Any) -> str | None:
    """The token in the mark. None where there is no mark."""
    kind = _as_text(client.type(MARK))
    if kind == "none":
        return None
    token = client.hget(MARK, _SESSION) if kind == "hash" else client.get(MARK)
    return _as_text(token)


def _vouched_digests(client: Any, found: Content) -> frozenset[str]:
    """The digests of what the mark vouches for.

    A mark without a note of what was made vouches for the records of this package.
    """
    is_hash = _as_text(client.type(MARK)) == "hash"
    fields = client.hgetall(MARK) if is_hash else {}
    made = Seal.read(fields.get(_MADE.encode()))
    held = Seal.read(fields.get(_HELD.encode()))
    digests: frozenset[str] = frozenset()
    if made:
        digests |= made.digests
    if held:
        digests |= held.digests
    if made is None:
        digests |= {thing.digest for thing in found.things if thing.handle.startswith(_OWN_KEYS)}
    return digests


def _answers_by_key(client: Any, command: str, keys: list[bytes]) -> list[Any]:
    """The server's answers to one command for each key, in one round trip."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            getattr(pipe, command)(key)
        answers: list[Any] = pipe.execute()
    return answers


def _as_text(value: Any) -> str:
    """The answer as text. Empty for an answer that is missing or empty."""
    return value.decode() if isinstance(value, bytes) else str(value or "")
