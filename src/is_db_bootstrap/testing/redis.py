"""Redis for tests: each process has a logical database of its own, which is flushed after each test."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.redis.connection import client_arguments
from is_db_bootstrap.testing.content import BUDGET, BUDGET_IN_A_TEST, Content, Seal, Thing, digest
from is_db_bootstrap.testing.isolation import Isolation, Pulse

#: The key that says that a logical database is one for tests: a hash of the fields below.
#: Earlier versions wrote a string, the process's token.
MARK = "is-db-bootstrap:testing"
#: Whose it is; what its logical database held when it was set up; what it held when that process last looked.
_SESSION, _MADE, _HELD = "session", "made", "held"
#: What this package writes; a mark of an earlier version does not say more.
_OWN_KEYS = b"is-db-bootstrap:"
#: The connection that shows that a process lives is called this and the process's token.
_CLIENT = "is-db-bootstrap-testing-"
#: How many logical databases a server has that does not tell.
_DATABASES = 16
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
        if self._taken is None:
            self._taken = self._claim()
            self.apply(self._at(self._taken))
            self._wiping = self._client(self._taken)
            if self.given:
                self._wiping.hset(MARK, _MADE, Seal.of(self._look(self._wiping, BUDGET)).text())
                self._pulse.start()
            self._content = self._dumped(self._taken)
        elif self.given:
            self._check_untouched(self._taken)
        self._in_test = True
        return self._at(self._taken)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Flushed, and the blueprint's record put back, in one transaction; when kept, the next test gets another one."""
        if self._taken is None or url.database != str(self._taken):
            return
        self._in_test = False
        if keep:
            with self._noting:
                self._note_held(self._wiping, BUDGET)
            self._kept.add(self._taken)
            self._taken = None
            return
        with self._wiping.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            for key, value in self._content.items():
                pipe.restore(key, 0, value)
            pipe.execute()

    def close(self) -> None:
        """Remove what was made and give it up; keys that somebody has written since the last test stay."""
        self._pulse.close()
        if self._taken is not None:
            if self._in_test or not self.given:
                self._wiping.flushdb()
            else:
                self._wiping.delete(MARK, *self._content)
            self._wiping.close()
            self._taken = None
        self._own.close()

    def _at(self, number: int) -> StoreUrl:
        return replace(self.server, database=str(number))

    def _client(self, number: int, **options: Any) -> Any:
        return redis.Redis.from_url(**client_arguments(self._at(number)), **options)

    def _dumped(self, number: int) -> dict[bytes, bytes]:
        with self._client(number) as client:
            return {key: client.dump(key) for key in client.scan_iter()}

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
        names = (c.get("name", "") for c in self._own.client_list())
        return {name.removeprefix(_CLIENT) for name in names if name.startswith(_CLIENT)}

    def _refuse_named(self) -> None:
        """The logical database that the address names must not be in use by anything else."""
        with self._client(self._named) as client:
            if client.dbsize() and not client.exists(MARK):
                raise self.not_ours(f"logical database {self._named}", self._look(client, BUDGET))

    def _count(self) -> int:
        try:
            return int(self._own.config_get("databases")["databases"])
        except (redis.ResponseError, KeyError):
            return _DATABASES

    def _marked(self, number: int, alive: set[str]) -> bool:
        """Whether it could be marked as ours; another process that does so at the same time makes this false."""
        with self._client(number) as client, client.pipeline(transaction=True) as pipe:
            pipe.watch(MARK)
            owner = _owner(pipe)
            if owner is None and pipe.dbsize():
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
        """Before a test, nothing is there but what was made: somebody else may have written since the last one."""
        if self._wiping.dbsize() <= len(self._content):
            return
        found = self._look(self._wiping, BUDGET)
        made = (thing for thing in found.things if thing.handle not in self._content)
        foreign = Content(tuple(made), found.unseen)
        if foreign:
            raise self.written_by_others(
                f"logical database {number}",
                foreign,
                way_out="Somebody writes there while tests run: end that.",
            )

    # --- looking

    def _look(self, client: Any, limit: int) -> Content:
        """All keys but the mark, with a digest of name and value each."""
        found: set[bytes] = set()
        for key in client.scan_iter(count=1000):  # one key may come twice
            found.add(key)
            if len(found) > limit + 1:
                break
        keys = sorted(found - {MARK.encode()})
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
            if self._in_test:
                self._note_held(self._wiping, BUDGET_IN_A_TEST)

    def _note_held(self, client: Any, limit: int) -> None:
        """Vouch in the mark for what is there now, unless it is too much to look at."""
        if not self.given or client.dbsize() > limit:
            return
        text = Seal.of(self._look(client, limit)).text()
        if _decoded(client.hget(MARK, _HELD)) != text:
            client.hset(MARK, mapping={_SESSION: self._token, _HELD: text})


def _owner(client: Any) -> str | None:
    """The token in the mark; None where there is none."""
    kind = _decoded(client.type(MARK))
    if kind == "none":
        return None
    return _decoded(client.hget(MARK, _SESSION) if kind == "hash" else client.get(MARK)) or ""


def _vouched(client: Any, found: Content) -> frozenset[str]:
    """The digests of what the mark vouches for; without a note of what was made, our own records are."""
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
