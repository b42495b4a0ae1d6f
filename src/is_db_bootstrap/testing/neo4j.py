"""Neo4j for tests: one database, wiped after each test with its schema kept."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from typing import Any

import neo4j
import neo4j.exceptions
import tenacity

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.errors import ConfigurationError, LockTimeout
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.testing.isolation import Isolation

#: The node that says that a database is one for tests, of which contract, and who uses it until when.
MARK = "__IsDbBootstrapTesting"
_OURS = f"n:{MARK} OR n:__Neo4jMigration OR n:__Neo4jMigrationsLock"
#: Seconds after which the next process may take a database whose user says nothing any more, and how often it says something.
_LEASE_S, _RENEW_S = 30, 8
#: Seconds to wait for a database that another process uses.
_PATIENCE_S = 600.0
_BATCH = 10_000

_UNIQUE = f"CREATE CONSTRAINT {MARK}_unique IF NOT EXISTS FOR (m:{MARK}) REQUIRE m.name IS UNIQUE"
#: The first SET takes the node's write lock before the lease is read: two takers cannot both see it lapsed.
_TAKE = f"""
MERGE (m:{MARK} {{name: 'testing'}}) SET m.asked = $token
WITH m, coalesce(m.owner = $token OR m.until < datetime.realtime(), true) AS free
FOREACH (_ IN CASE WHEN free THEN [1] ELSE [] END |
  SET m.owner = $token, m.until = datetime.realtime() + duration({{seconds: $seconds}}))
RETURN free, m.contract AS contract
"""
_RENEW = f"MATCH (m:{MARK} {{owner: $token}}) SET m.until = datetime.realtime() + duration({{seconds: $seconds}})"
_RELEASE = f"MATCH (m:{MARK} {{owner: $token}}) REMOVE m.owner, m.until"
_NOTE = f"MATCH (m:{MARK}) SET m.contract = $contract"

_NODES = "MATCH (n) RETURN count(n) AS nodes"
_MARKED = f"MATCH (m:{MARK}) RETURN count(m) AS marks"
#: A first batch; most tests write less, and one transaction is quicker than several.
_WIPE = f"MATCH (n) WHERE NOT ({_OURS}) WITH n LIMIT {_BATCH} DETACH DELETE n RETURN count(*) AS deleted"
_WIPE_REST = f"MATCH (n) WHERE NOT ({_OURS}) CALL (n) {{ DETACH DELETE n }} IN TRANSACTIONS OF {_BATCH} ROWS"
_HISTORY = f"MATCH (n:__Neo4jMigration|{MARK}) RETURN count(n) AS nodes"
#: A test may have deleted everything.
_MARK_AGAIN = f"""
MERGE (m:{MARK} {{name: 'testing'}}) REMOVE m.contract
SET m.owner = $token, m.until = datetime.realtime() + duration({{seconds: $seconds}})
"""
_INDEXES = "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN collect(name) AS names"
_CONSTRAINTS = "SHOW CONSTRAINTS YIELD name RETURN collect(name) AS names"


class Neo4jIsolation(Isolation):
    """The whole database for one process at a time; after each test its nodes are deleted, in transactions of 10,000.

    It must be empty or bear the mark. Constraints and indexes stay; when a test has changed them or the migration history, the
    database is set up anew, which takes seconds.
    """

    store = "neo4j"
    client_errors = (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError)

    def __init__(self, server: StoreUrl, blueprint: Blueprint, settings: Settings, *, shared: bool = False) -> None:
        super().__init__(server, blueprint, settings)
        self._shared = shared
        self._token = secrets.token_hex(8)
        self._contract = fingerprint(blueprint, settings)
        self._driver = driver(server)
        self._as_made: tuple[int, frozenset[str]] | None = None
        self._kept = False
        self._ending = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="isdb-neo4j-lease", daemon=True)

    def take(self) -> StoreUrl:
        """The server, after whoever else uses it; with `shared`, it is given up after each test."""
        if self._kept:
            raise ConfigurationError(f"neo4j: {self.server} is kept as an earlier test left it, and has one database only.",
                                     hint="Leave out --keep-stores, or stop at the first failure (-x).")  # fmt: skip
        if self._as_made is None or self._shared:
            recorded = self._acquired()
            if recorded != self._contract or self._as_made is None:
                self._set_up(recorded)
        return self.server

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:  # noqa: ARG002 - there is only one
        """Wiped."""
        self._kept = keep
        if not keep:
            self._wipe()
            if self._seen() != self._as_made:
                self._as_made = None
                self._ask(_MARK_AGAIN, token=self._token, seconds=_LEASE_S)
            if self._shared:
                self._ask(_RELEASE, token=self._token)

    def close(self) -> None:
        """Give it up."""
        self._ending.set()
        with suppress(neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError):
            self._ask(_RELEASE, token=self._token)
        self._driver.close()

    def _acquired(self) -> str | None:
        """Wait until the database is ours; the contract that it is at."""
        if not self._ask(_MARKED)[0]["marks"]:
            if self._ask(_NODES)[0]["nodes"] or self._ask(_INDEXES)[0]["names"]:
                raise self.not_ours("the database")
            self._ask(_UNIQUE)
        tries = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda row: not row["free"]),
            stop=tenacity.stop_after_delay(_PATIENCE_S), wait=tenacity.wait_fixed(0.05),
        )  # fmt: skip
        try:
            row = tries(lambda: self._ask(_TAKE, token=self._token, seconds=_LEASE_S)[0])
        except tenacity.RetryError:
            raise LockTimeout("neo4j", f"{self.server} was used by another test session for {_PATIENCE_S:.0f} s.",
                              hint="Give each worker a server of its own, or run with fewer.") from None  # fmt: skip
        if not self._renewing.is_alive():
            self._renewing.start()
        return str(row["contract"]) if row["contract"] else None

    def _renew(self) -> None:
        while not self._ending.wait(_RENEW_S):
            with suppress(neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError):
                self._ask(_RENEW, token=self._token, seconds=_LEASE_S)

    def _set_up(self, recorded: str | None) -> None:
        """Wipe; and bring to the blueprint from nothing, unless it is there already."""
        self._wipe()
        if recorded != self._contract:
            self._ask(_NOTE, contract=None)
            self._ask(f"MATCH (n) WHERE NOT n:{MARK} DETACH DELETE n")
            for kind, shown in (("CONSTRAINT", _CONSTRAINTS), ("INDEX", _INDEXES)):
                for name in self._ask(shown)[0]["names"]:
                    if name != f"{MARK}_unique":
                        self._ask(f"DROP {kind} `{name.replace('`', '``')}` IF EXISTS")
            self.apply(self.server)
            self._ask(_NOTE, contract=self._contract)
        self._as_made = self._seen()

    def _seen(self) -> tuple[int, frozenset[str]]:
        return self._ask(_HISTORY)[0]["nodes"], frozenset(self._ask(_INDEXES)[0]["names"])

    def _wipe(self) -> None:
        if self._ask(_WIPE)[0]["deleted"] == _BATCH:
            self._ask(_WIPE_REST)

    def _ask(self, text: str, **values: Any) -> list[dict[str, Any]]:
        with self._driver.session(database=self.server.database or None) as session:
            return session.run(text, values).data()


def driver(url: StoreUrl) -> neo4j.Driver:
    """A driver as applications open one; its notifications are off."""
    return neo4j.GraphDatabase.driver(**_parameters(url))


def async_driver(url: StoreUrl) -> neo4j.AsyncDriver:
    """The same for asyncio."""
    return neo4j.AsyncGraphDatabase.driver(**_parameters(url))


def _parameters(url: StoreUrl) -> dict[str, Any]:
    scheme, options = url.scheme, dict[str, Any]()
    if url.ca_file:
        scheme, options = (
            scheme.partition("+")[0],
            {"encrypted": True, "trusted_certificates": neo4j.TrustCustomCAs(url.ca_file)},
        )
    return {
        "uri": StoreUrl(url.store, scheme, url.hosts, query=url.query).reveal(),
        "auth": (url.username, url.password) if url.username else None,
        "notifications_min_severity": "OFF",
    } | options
