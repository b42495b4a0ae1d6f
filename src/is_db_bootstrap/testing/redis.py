"""Redis for tests: each process has a logical database of its own, which is flushed after each test."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import redis

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.testing.isolation import Isolation

#: The key that says that a logical database is one for tests, and of which process.
MARK = "is-db-bootstrap:testing"
#: The connection that shows that a process lives is called this and the process's token.
_CLIENT = "is-db-bootstrap-testing-"
#: How many logical databases a server has that does not tell.
_DATABASES = 16


class RedisIsolation(Isolation):
    """A logical database with the mark in it, the blueprint's record, and nothing else at the start of each test.

    The one that the address names (0 when it names none) must be empty or bear the mark, and so must each one that is taken.
    A mark belongs to a living process while that one's connection is on the server's client list.
    """

    store = "redis"
    client_errors = (redis.RedisError,)

    def __init__(self, server: StoreUrl, blueprint: Blueprint, settings: Settings) -> None:
        super().__init__(server, blueprint, settings)
        self._token = secrets.token_hex(8)
        self._named = int(server.database or 0)
        self._own = self._client(self._named)
        self._own.client_setname(_CLIENT + self._token)
        self._taken: int | None = None
        self._kept: set[int] = set()
        self._content: dict[bytes, bytes] = {}

    def take(self) -> StoreUrl:
        """The process's logical database."""
        if self._taken is None:
            self._taken = self._claim()
            self.apply(self._at(self._taken))
            self._content = self._dumped(self._taken)
            self._wiping = self._client(self._taken)
        return self._at(self._taken)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Flushed, and the blueprint's record put back, in one transaction; when kept, the next test gets another one."""
        if self._taken is None or url.database != str(self._taken):
            return
        if keep:
            self._kept.add(self._taken)
            self._taken = None
            return
        with self._wiping.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            for key, value in self._content.items():
                pipe.restore(key, 0, value)
            pipe.execute()

    def close(self) -> None:
        """Flush it and give it up."""
        if self._taken is not None:
            self._wiping.flushdb()
            self._wiping.close()
            self._taken = None
        self._own.close()

    def _at(self, number: int) -> StoreUrl:
        return replace(self.server, database=str(number))

    def _client(self, number: int) -> Any:
        options: dict[str, Any] = {"ssl_ca_certs": self.server.ca_file} if self.server.ca_file else {}
        return redis.Redis.from_url(self._at(number).reveal(), **options)

    def _dumped(self, number: int) -> dict[bytes, bytes]:
        with self._client(number) as client:
            return {key: client.dump(key) for key in client.scan_iter()}

    def _claim(self) -> int:
        """A logical database that is empty, or bears the mark of a process that is gone."""
        alive = {name.removeprefix(_CLIENT) for name in (c.get("name", "") for c in self._own.client_list())}
        if self._in_use(self._named):
            raise self.not_ours(f"logical database {self._named}")
        for number in (self._named, *(n for n in range(self._count()) if n != self._named)):
            if number not in self._kept and self._marked(number, alive):
                return number
        raise ConfigurationError(
            f"redis: every logical database at {self.server} is in use.", hint="Run fewer tests at once, or empty the server."
        )

    def _in_use(self, number: int) -> bool:
        with self._client(number) as client:
            return bool(client.dbsize()) and not client.exists(MARK)

    def _count(self) -> int:
        try:
            return int(self._own.config_get("databases")["databases"])
        except (redis.ResponseError, KeyError):
            return _DATABASES

    def _marked(self, number: int, alive: set[str]) -> bool:
        """Whether it could be marked as ours; another process that does so at the same time makes this false."""
        with self._client(number) as client, client.pipeline(transaction=True) as pipe:
            pipe.watch(MARK)
            mark = pipe.get(MARK)
            if (mark is None and pipe.dbsize()) or (mark is not None and mark.decode() in alive):
                return False
            pipe.multi()
            pipe.flushdb()
            pipe.set(MARK, self._token)
            try:
                pipe.execute()
            except redis.WatchError:
                return False
            return True
