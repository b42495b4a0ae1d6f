"""Redis for tests: each process has a logical database of its own, which is flushed after each test."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError, LockTimeout
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.redis.connection import client_arguments
from is_db_bootstrap.testing.content import BUDGET, BUDGET_IN_A_TEST, Content, Seal, Thing, digest
from is_db_bootstrap.testing.isolation import Isolation, Pulse

#: The key that says that a logical database is one for tests: a hash of the fields below.
#: Earlier versions wrote a string, the process's token.
MARK = "is-db-bootstrap:testing"
#: Whose it is; what its logical database held when it was set up; what it held when that process
#: last looked.
_SESSION, _MADE, _HELD = "session", "made", "held"
#: What this package writes; a mark of an earlier version does not say more.
_OWN_KEYS = b"is-db-bootstrap:"
#: The connection that shows that a process lives is called this and the process's token.
_CLIENT = "is-db-bootstrap-testing-"
#: The connection that works in a process's logical database is called this and the token. It shows
#: others whose the database is while a test has deleted the mark.
_HOLDER = "is-db-bootstrap-holder-"
#: How many logical databases a server has that does not tell.
_DATABASES = 16
#: How often a transaction is tried that another client's write to the mark has ended.
_TRIES = 10
#: Seconds between two looks at what a running test has written to a given server.
_LOOK_S = 0.5
#: Bytes of values that are looked at, in all.
_BYTES = 32_000_000


class RedisIsolation(Isolation):
    """A logical database with the mark in it, the blueprint's record, and nothing else at the start of each test.

    The one that the address names (0 when it names none) must be empty or bear the mark, and so must each one that is taken.
    A mark belongs to a living process while that one's connection is on the server's client list. On a given server, the
    mark of a dead process says what that one vouches for. Keys beyond that are named in an error and stay.
    """

    store = "redis"
    client_errors = (redis.RedisError,)

    def __init__(
        self, server: StoreUrl, blueprint: Blueprint, settings: Settings, **options: Any
    ) -> None:
        super().__init__(server, blueprint, settings, **options)
        self._token = secrets.token_hex(8)
        self._named = int(server.database or 0)
        # Named by the constructor, so that a connection that was lost bears the name again.
        self._own = self._client(self._named, client_name=_CLIENT + self._token)
        self._own.ping()
        self._taken: int | None = None
        self._holder_id = 0
        self._lost: LockTimeout | None = None
        self._in_test = False
        self._noting = threading.Lock()
        self._kept: set[int] = set()
        self._content: dict[bytes, bytes] = {}
        self._pulse = Pulse(self._look_again, _LOOK_S, self.client_errors, name="isdb-redis-look")

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """A user whose access list lacks a command or a key."""
        return isinstance(exc, redis.exceptions.NoPermissionError)

    def take(self) -> StoreUrl:
        """The process's logical database."""
        if self._lost:
            raise self._lost
        if self._taken is None:
            number = self._claim()
            self._wiping = self._holder(number)
            self._holder_id = self._wiping.client_id()
            self._taken = number
            self.apply(self._at(number))
            with self._noting:
                self._content = self._noted_as_made()
            if self.given:
                self._pulse.start()
        else:
            with self._noting:
                self._change(lambda pipe: None)  # noqa: ARG005 - only whether it is ours
                if self.given:
                    self._check_untouched(self._taken)
        self._in_test = True
        return self._at(self._taken)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Flushed, and the blueprint's record put back, in one transaction.

        When kept, the next test gets another logical database. Raises `LockTimeout` when another
        session has the database, because our connections to the server were lost.
        """
        if self._taken is None or url.database != str(self._taken):
            return
        with self._noting:
            self._in_test = False
            if not keep:
                self._change(self._empty_and_restore)
                return
            self._note_held(BUDGET)
            self._kept.add(self._taken)
            self._taken = None
            self._wiping.close()

    def close(self) -> None:
        """Remove what was made and give it up; keys that somebody has written since stay."""
        self._pulse.close()
        try:
            if self._taken is not None and not self._lost:
                is_ours_whole = self._in_test or not self.given
                self._change(_empty if is_ours_whole else self._remove_made)
        finally:
            if self._taken is not None:
                self._wiping.close()
                self._taken = None
            self._own.close()

    # --- changing a logical database only while it is ours

    def _change(self, change: Callable[[Any], None]) -> None:
        """Queue what `change` does to a pipeline, and run it if the logical database is ours then.

        The mark is watched from the look at its token to the end of the transaction. A test may
        have deleted the mark; then the database is ours if the connection that holds it is the one
        that took it, because other sessions take no database that a living connection holds.
        Raises `LockTimeout` when it is not ours; then nothing was changed.
        """
        for _ in range(_TRIES):
            with self._wiping.pipeline(transaction=True) as pipe:
                try:
                    pipe.watch(MARK, *self._content)
                    if not self._is_ours(pipe):
                        raise self._turn_lost()
                    change(pipe)
                    pipe.execute()
                except redis.WatchError:
                    continue
                return
        raise redis.WatchError(f"the mark in logical database {self._taken} changes all the time")

    def _is_ours(self, pipe: Any) -> bool:
        owner = _owner(pipe)
        if owner is not None:
            return owner == self._token
        return bool(pipe.client_id() == self._holder_id)

    def _turn_lost(self) -> LockTimeout:
        self._in_test = False
        self._lost = LockTimeout(
            "redis",
            f"the turn in logical database {self._taken} at {self.server} was lost: the "
            "connections of this session were ended, and another one may have used it since.",
            hint="Was the process stopped, or the server restarted? "
            "Nothing was deleted after that. Run the tests again.",
        )
        return self._lost

    def _empty_and_restore(self, pipe: Any) -> None:
        pipe.multi()
        pipe.flushdb()
        for key, value in self._content.items():
            pipe.restore(key, 0, value)

    def _remove_made(self, pipe: Any) -> None:
        """Delete the mark, and what was made where it still is as it was made."""
        same = [key for key, value in self._content.items() if pipe.dump(key) == value]
        pipe.multi()
        pipe.delete(MARK, *same)

    def _noted_as_made(self) -> dict[bytes, bytes]:
        """Note in the mark what was made, and return all keys with their values as `DUMP` gives them."""
        if self.given:
            made = Seal.of(self._look(self._wiping, BUDGET)).text()
            self._wiping.hset(MARK, _MADE, made)
        return {key: self._wiping.dump(key) for key in list(self._wiping.scan_iter())}

    def _at(self, number: int) -> StoreUrl:
        return replace(self.server, database=str(number))

    def _client(self, number: int, **options: Any) -> Any:
        return redis.Redis.from_url(**client_arguments(self._at(number)), **options)

    def _holder(self, number: int) -> Any:
        """A client with one connection, which keeps its number on the server as long as it lives."""
        return self._client(number, client_name=_HOLDER + self._token, max_connections=1)

    # --- whose a logical database is

    def _claim(self) -> int:
        """A logical database that is empty, or bears the mark of a process that is gone."""
        alive = self._alive()
        self._refuse_named()
        if self.given:
            self._sweep(alive)
        for number in (self._named, *(n for n in range(self._count()) if n != self._named)):
            if number not in self._kept and self._marked(number, alive):
                return number
        raise ConfigurationError(
            f"redis: every logical database at {self.server} is in use.",
            hint="Run fewer tests at once, or empty the server.",
        )

    def _alive(self) -> set[str]:
        names = [c.get("name", "") for c in self._own.client_list()]
        return {
            name.removeprefix(prefix)
            for name in names
            for prefix in (_CLIENT, _HOLDER)
            if name.startswith(prefix)
        }

    def _held(self) -> set[int]:
        """The logical databases that a living process holds, whatever a test has deleted there."""
        holders = (c for c in self._own.client_list() if c.get("name", "").startswith(_HOLDER))
        return {int(c["db"]) for c in holders}

    def _refuse_named(self) -> None:
        """The logical database that the address names must not be in use by anything else."""
        with self._client(self._named) as client:
            if self._named in self._held():
                return
            if client.dbsize() and not client.exists(MARK):
                raise self.not_ours(f"logical database {self._named}", self._look(client, BUDGET))

    def _count(self) -> int:
        try:
            return int(self._own.config_get("databases")["databases"])
        except (redis.ResponseError, KeyError):
            return _DATABASES

    def _marked(self, number: int, alive: set[str]) -> bool:
        """Whether it could be marked as ours.

        Another process that does so at the same time makes this false.
        """
        with self._client(number) as client, client.pipeline(transaction=True) as pipe:
            pipe.watch(MARK)
            owner = _owner(pipe)
            if owner is None and (pipe.dbsize() or number in self._held()):
                return False
            # What a dead process left on a given server was swept; what is here now has come since.
            if owner is not None and (self.given or owner in alive):
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

    def _sweep(self, alive: set[str]) -> None:
        """Remove what dead processes have left, all of it or, when there is more than they vouch for, nothing."""
        for number in self._in_use():
            with self._client(number) as client:
                self._clear(client, number, alive)

    def _in_use(self) -> Iterator[int]:
        """The logical databases that hold something, without those that this process has kept."""
        names = self._own.info("keyspace")
        numbers = sorted(int(name.removeprefix("db")) for name in names if name.startswith("db"))
        yield from (number for number in numbers if number not in self._kept)

    def _clear(self, client: Any, number: int, alive: set[str]) -> None:
        with client.pipeline(transaction=True) as pipe:
            pipe.watch(MARK)
            owner = _owner(pipe)
            if owner is None or owner in alive:
                return
            # What is written to these keys from here on ends the transaction.
            pipe.watch(*(_keys(client, BUDGET) or [MARK.encode()]))
            found = self._look(client, BUDGET)
            foreign = found.besides(_vouched(pipe, found))
            if foreign:
                raise self.written_by_others(
                    f"logical database {number}",
                    foreign,
                    way_out=f"If it may go, empty it: redis-cli -n {number} FLUSHDB. "
                    f"To keep it, delete only the mark: redis-cli -n {number} DEL {MARK}.",
                )
            pipe.multi()
            pipe.delete(MARK, *(thing.handle for thing in found.things))
            with suppress(redis.WatchError):  # another session was quicker
                pipe.execute()

    def _check_untouched(self, number: int) -> None:
        """Before a test, nothing is there but what was made.

        Somebody else may have written or changed a key since the last test.
        """
        found = self._look(self._wiping, BUDGET)
        made = frozenset(digest(key, value) for key, value in self._content.items())
        foreign = found.besides(made)
        if foreign:
            raise self.written_by_others(
                f"logical database {number}",
                foreign,
                way_out="Somebody writes there while tests run: end that.",
            )

    # --- looking

    def _look(self, client: Any, limit: int) -> Content:
        """All keys but the mark, with a digest of name and value each."""
        keys = _keys(client, limit)
        unseen = f"and more: only {limit} keys were looked at" if len(keys) > limit else ""
        sizes = _each(client, "memory_usage", keys[:limit])
        if sum(size or 0 for size in sizes) > _BYTES:
            return Content(
                (),
                f"{len(keys)} keys of more than {_BYTES // 1_000_000} MB, which were not looked at",
            )
        values = _each(client, "dump", keys[:limit])
        things = (
            Thing("key", name=key.decode(errors="replace"), digest=digest(key, value), handle=key)
            for key, value in zip(keys, values, strict=False)
            if value is not None
        )
        return Content(tuple(things), unseen)

    def _look_again(self) -> None:
        """Show that we live, and note what a running test has written."""
        self._own.ping()
        with self._noting:
            if self._taken is None or self._lost:
                return
            self._wiping.ping()
            if self._in_test:
                with suppress(LockTimeout):  # the next call of a test says it
                    self._note_held(BUDGET_IN_A_TEST)

    def _note_held(self, limit: int) -> None:
        """Vouch in the mark for what is there now, unless it is too much to look at."""
        if not self.given or self._wiping.dbsize() > limit:
            return
        text = Seal.of(self._look(self._wiping, limit)).text()
        if _decoded(self._wiping.hget(MARK, _HELD)) == text:
            return

        def note(pipe: Any) -> None:
            pipe.multi()
            pipe.hset(MARK, mapping={_SESSION: self._token, _HELD: text})

        self._change(note)


def _keys(client: Any, limit: int) -> list[bytes]:
    """The names of all keys but the mark.

    When there are more than `limit`, of more than `limit`.
    """
    found: set[bytes] = set()
    for key in client.scan_iter(count=1000):  # one key may come twice
        found.add(key)
        if len(found) > limit + 1:
            break
    return sorted(found - {MARK.encode()})


def _empty(pipe: Any) -> None:
    pipe.multi()
    pipe.flushdb()


def _owner(client: Any) -> str | None:
    """The token in the mark; None where there is none."""
    kind = _decoded(client.type(MARK))
    if kind == "none":
        return None
    return _decoded(client.hget(MARK, _SESSION) if kind == "hash" else client.get(MARK)) or ""


def _vouched(client: Any, found: Content) -> frozenset[str]:
    """The digests of what the mark vouches for.

    Without a note of what was made, our own records are.
    """
    fields = client.hgetall(MARK) if _decoded(client.type(MARK)) == "hash" else {}
    made, held = (Seal.read(fields.get(name.encode())) for name in (_MADE, _HELD))
    digests = (made.digests if made else frozenset()) | (held.digests if held else frozenset())
    if made is None:
        digests |= {thing.digest for thing in found.things if thing.handle.startswith(_OWN_KEYS)}
    return digests


def _each(client: Any, command: str, keys: list[bytes]) -> list[Any]:
    """One command for each key, in one round trip."""
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            getattr(pipe, command)(key)
        answers: list[Any] = pipe.execute()
    return answers


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
