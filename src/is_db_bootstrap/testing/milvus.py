"""Milvus for tests: each test gets a database of its own.

The database's collections, indexes and alias are made ahead.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import grpc
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.milvus.connection import client_arguments
from is_db_bootstrap.testing import milvus_content
from is_db_bootstrap.testing.content import Seal
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation, Pulse, is_dead, process_mark

#: Counts all databases of this process, whichever blueprint they are for.
_NUMBER = itertools.count()
#: The property of a database with a seal of the content that its session saw at the last look.
_SEAL = "is_db_bootstrap.kept"
#: The property of a database that a test of a worker of pytest-xdist uses: the name of the run.
_TEST_OF = "is_db_bootstrap.test_of"
#: Seconds between two looks at what a running test has written to a given server.
_LOOK_S = 1.0
#: The name of a database that a test session has made.
_TEST_DATABASE = re.compile(rf"{PREFIX}_(?P<mark>[0-9a-f]{{6}}_\d+_\d+)_\d+")


class MilvusIsolation(Isolation):
    """A database for each test, so that names and alias are those of production.

    The database that the address names (`default` when the address names none) must hold no
    collection. Nothing is written there. A database's name says which process made the database. On
    a given server each database has a seal among its properties. The next session drops a database
    that a killed session has left, or that a session has kept, only when the database holds nothing
    but what its seal vouches for.
    """

    store = "milvus"
    client_errors = (MilvusException, grpc.RpcError)

    def __init__(
        self,
        server: StoreUrl,
        blueprint: Blueprint,
        settings: Settings,
        *,
        ahead: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(server, blueprint, settings, **options)
        self._mark = process_mark()
        self._using = threading.Lock()
        self._client = client(server)
        try:
            self._refuse_used()
            self._drop_leftovers()
        except BaseException:
            self._client.close()
            raise
        self._databases = Ahead(self._make_database, self._drop_database, size=ahead)
        #: A client, and the text of the seal, for each database that a test uses.
        self._in_test: dict[str, tuple[MilvusClient, str]] = {}
        self._noting = threading.Lock()
        self._pulse = Pulse(self._note_all, _LOOK_S, self.client_errors, name="isdb-milvus-look")

    def _refuse_used(self) -> None:
        """Raise `ConfigurationError` when the database that the address names is in use."""
        found = milvus_content.collections(self._client)
        if found:
            raise self.not_ours(f"database {self.server.database or 'default'}", found)

    def take(self) -> StoreUrl:
        """The address of a database of the test's own, loaded as the blueprint says."""
        name = self._databases.take()
        if self.given:
            with self._noting:
                if self.run:
                    self._client.alter_database_properties(name, properties={_TEST_OF: self.run})
                self._in_test[name] = client(self._address_of(name)), ""
            self._pulse.start()
        return self._address_of(name)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Have the database dropped soon."""
        with self._noting:
            inside, sealed = self._in_test.pop(url.database, (None, ""))
            if inside and keep:
                self._seal_content(url.database, inside, sealed)
                if self.run:
                    inside.alter_database_properties(url.database, properties={_TEST_OF: ""})
        if inside:
            inside.close()
        if not keep:
            self._databases.done(url.database)

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """Whether the user's role lacks a privilege.

        The server has one code for many causes, so the text decides.
        """
        text = str(exc).lower()
        return "privilegenotpermitted" in text or "permission deny" in text

    def close(self) -> None:
        """Drop all databases but those kept."""
        self._pulse.close()
        try:
            self._databases.close()
            if self.run:
                self._drop_left_meanwhile()
        finally:
            self._client.close()

    def _address_of(self, database: str) -> StoreUrl:
        return replace(self.server, database=database)

    def _make_database(self) -> str:
        """The name of a new database, at the blueprint's schema."""
        name = f"{PREFIX}_{self._mark}_{next(_NUMBER)}"
        with self._using:
            self._client.create_database(name, **self._first_seal())
        try:
            with self._using:
                self.apply(self._address_of(name))
        except BaseException:
            with suppress(*self.client_errors):
                self._drop_database(name)
            raise
        return name

    def _first_seal(self) -> dict[str, Any]:
        """The seal of a new database, as an argument of `create_database`.

        The seal vouches for empty collections of the declared names, before these are made.
        """
        if not self.given:
            return {}
        seal = Seal(milvus_content.empty_digests(self._declared_names()))
        return {"properties": {_SEAL: seal.text()}}

    def _declared_names(self) -> list[str]:
        return [collection.name for collection in self.blueprint.collections]

    def _note_all(self) -> None:
        """Vouch for what the running tests have written."""
        with self._noting:
            for name, (inside, sealed) in list(self._in_test.items()):
                seal = self._seal_content(name, inside, sealed)
                self._in_test[name] = inside, seal

    def _seal_content(self, name: str, inside: MilvusClient, sealed: str) -> str:
        """Seal what is in a database now. Returns the seal's text.

        `inside` is a client of the database. Nothing is written when the seal is the same as the
        last one, `sealed`.
        """
        found = milvus_content.collections_and_rows(inside)
        seal = Seal.of(found).text()
        if seal != sealed:
            inside.alter_database_properties(name, properties={_SEAL: seal})
        return seal

    def _drop_database(self, name: str) -> None:
        """Drop a database with all its collections.

        Milvus drops only an empty database, and only a collection that no alias points at.
        """
        with self._using:
            with self._open_inside(name) as inside:
                for collection in inside.list_collections():
                    _drop_collection(inside, collection)
            self._client.drop_database(name)

    @contextmanager
    def _open_inside(self, database: str) -> Iterator[MilvusClient]:
        """A client of a database, which is closed at the end of the block."""
        inside = client(self._address_of(database))
        try:
            yield inside
        finally:
            inside.close()

    # --- databases that dead processes have left

    def _drop_leftovers(self) -> None:
        """Drop the databases of processes that are gone. Another session may be doing the same.

        On a given server nothing is dropped when one of the databases was changed by others.
        """
        left = [name for name in self._client.list_databases() if _is_left(name)]
        for name in left:
            self._ignore_when_gone(name, self._refuse_changed)
        for name in left:
            self._ignore_when_gone(name, self._drop_unchanged)

    def _drop_left_meanwhile(self) -> None:
        """Drop the databases of workers that have died since this one began.

        The next session names those that others have written to.
        """
        for name in self._client.list_databases():
            if _is_left(name):
                with suppress(BootstrapError):
                    self._ignore_when_gone(name, self._drop_unchanged)

    def _is_of_run(self, name: str) -> bool:
        """Whether a test of the same run was in the database."""
        noted = self._client.describe_database(name).get(_TEST_OF)
        return bool(self.run) and noted == self.run

    def _drop_unchanged(self, name: str) -> None:
        """Drop a database right after another look, because Milvus has no transactions."""
        self._refuse_changed(name)
        self._drop_database(name)

    def _ignore_when_gone(self, name: str, call: Callable[[str], None]) -> None:
        """Call `call` with the name, and ignore its errors when the database is gone."""
        try:
            call(name)
        except self.client_errors:
            if name in self._client.list_databases():
                raise

    def _refuse_changed(self, name: str) -> None:
        """Raise `ConfigurationError` for a database that holds more than its session vouches for.

        Such a database belongs to whoever wrote the rest.
        """
        if not self.given or self._is_of_run(name):
            return
        seal = Seal.read(self._client.describe_database(name).get(_SEAL))
        # Earlier versions sealed only the databases that they kept. A database without a seal is
        # judged as a new one.
        vouched = seal.digests if seal else milvus_content.empty_digests(self._declared_names())
        with self._open_inside(name) as inside:
            found = milvus_content.collections_and_rows(inside)
        foreign = found.besides(vouched)
        if foreign:
            raise self.written_by_others(
                f"database {name}",
                foreign,
                way_out="If it may go, drop its collections and then the database "
                f"{name}. To keep the rows, copy them to a database of another name first.",
            )


def _drop_collection(inside: MilvusClient, collection: str) -> None:
    """Drop a collection after its aliases."""
    for alias in inside.list_aliases(collection_name=collection)["aliases"]:
        inside.drop_alias(alias)
    inside.drop_collection(collection)


def _is_left(database: str) -> bool:
    """Whether a test session has made the database, and its process is gone."""
    match = _TEST_DATABASE.fullmatch(database)
    return match is not None and is_dead(match["mark"])


def client(url: StoreUrl) -> MilvusClient:
    """A client with a connection of its own, because a shared connection outlives its clients."""
    return MilvusClient(**client_arguments(url), dedicated=True)


def async_client(url: StoreUrl) -> AsyncMilvusClient:
    """A client for asyncio."""
    return AsyncMilvusClient(**client_arguments(url))
