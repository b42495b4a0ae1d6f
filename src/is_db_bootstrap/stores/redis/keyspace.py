"""The keys of one store, for commands that look at all of them or mend them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.redis.errors import Translation
from is_db_bootstrap.stores.redis.key_table import KeyTable, TableReader
from is_db_bootstrap.stores.redis.lifetimes import Mended, MissingLifetimes, mend_and_confirm
from is_db_bootstrap.stores.redis.server import Server, check_address, open_server

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing


class Keyspace:
    """A context in which one store is open. Raises what `open_server` raises when it is entered."""

    def __init__(self, url: StoreUrl, blueprint: Blueprint, timing: Timing) -> None:
        check_address(url)
        self._url = url
        self._keys = blueprint.keys
        self._limit_s = timing.connect_timeout_s
        self._errors = Translation(url)
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self._server = open_server(self._url, self._limit_s, self._limit_s, self._errors)
        return self

    def __exit__(self, *_: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.client.close()

    @property
    def _opened(self) -> Server:
        if self._server is None:
            message = "the keyspace was not entered"
            raise RuntimeError(message)
        return self._server

    @property
    def _masters(self) -> list[Any]:
        return list(self._opened.masters())

    def table(self, budget: int | None = None, *, memory: bool = True) -> KeyTable:
        """All keys by pattern and prefix, or at most `budget` of them from a random place on.

        Raises `AccessDenied` when the user may not look.
        """
        with self._errors("the keys"):
            return TableReader(self._keys, budget, memory=memory).read(self._masters)

    def count_missing(self, names: Sequence[str] = ()) -> Mapping[str, int]:
        """How many keys of each pattern lack the lifetime that it declares.

        Raises `ConfigurationError` for a name that no pattern with a lifetime has.
        """
        with self._errors("the keys"):
            return self._missing(names).count(self._masters)

    def mend_missing(self, names: Sequence[str] = ()) -> Mended:
        """Give these keys the longest declared lifetime, and look at all of them again.

        Raises `StoreUnavailable`, which says how many keys were set, when the server is lost or
        the Sentinels have chosen another master meanwhile.
        """
        missing = self._missing(names)
        return mend_and_confirm(
            missing, self._url, self._opened, self._limit_s, self._errors, command="fix-ttl"
        )

    def lifetime_s(self, name: str) -> int:
        """The longest declared lifetime of a pattern, in seconds."""
        longest = {key.name: key.longest_ttl for key in self._keys}
        return longest[name] or 0

    def _missing(self, names: Sequence[str]) -> MissingLifetimes:
        known = [key.name for key in self._keys if key.longest_ttl is not None]
        for name in names:
            if name not in known:
                raise ConfigurationError(
                    f"redis: no key pattern with a lifetime is named {name}.",
                    hint=f"There are {', '.join(known) or 'none'}.",
                )
        return MissingLifetimes(self._keys, names)
