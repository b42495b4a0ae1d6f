"""One Neo4j database: its connection, its sessions, and what was last seen of its schema."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import neo4j
from neo4j import exceptions as raised

from is_db_bootstrap.errors import ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.results import ServerInfo
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.stores import foreign_server
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j import members, waiting
from is_db_bootstrap.stores.neo4j.connection import client_arguments, tls_way
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema
from is_db_bootstrap.stores.neo4j.cypher_text import Statement, quoted
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.waiting import Look
from is_db_bootstrap.stores.tls_look import TlsFailed, refuse_tls_fault

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

# Failures are raised and reported by us; the driver would log them to stderr as well.
logging.getLogger("neo4j").addHandler(logging.NullHandler())

OLDEST_MAJOR = 5
BOLT_PORT = 7687
#: What our transactions carry, so that they are found again.
TAG = "isDbBootstrap"

_COMPONENTS = """
CALL dbms.components() YIELD name, versions, edition WHERE name = 'Neo4j Kernel'
RETURN versions[0] AS version, edition
"""
_DATABASE = "SHOW {which} YIELD name, address, currentStatus, statusMessage, access, writer"
#: Any database: null is the home database of the user.
_ROUTES = "CALL dbms.routing.getRoutingTable({}, $database) YIELD servers RETURN servers"
_CONSTRAINTS = (
    "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties, propertyType"
)
_INDEXES = """
SHOW INDEXES YIELD name, state, type, entityType, labelsOrTypes, properties, owningConstraint,
                   failureMessage, options
"""
_OURS = f"""
SHOW TRANSACTIONS YIELD transactionId, metaData WHERE metaData.{TAG} = $tag
RETURN transactionId AS id
"""


#: What is left of other runs. The inner transactions of `CALL … IN TRANSACTIONS` end with the outer
#: one.
_RUNS = f"""
SHOW TRANSACTIONS YIELD transactionId, metaData WHERE metaData.{TAG} IN $runs
RETURN transactionId AS id
"""
_CONNECTIONS = """
CALL dbms.listConnections() YIELD connectionId, userAgent
WHERE any(run IN $runs WHERE userAgent ENDS WITH run) RETURN connectionId AS id
"""
_END_CONNECTIONS = "CALL dbms.killConnections($ids)"


class Database:
    """The database at `url`, which `open` or the first question connects to.

    `connect_timeout_s` bounds connections, in seconds.
    """

    def __init__(self, url: StoreUrl, connect_timeout_s: float, errors: Translation) -> None:
        self._url = url
        self._connect_timeout_s = connect_timeout_s
        self._errors = errors
        self._target = str(url)
        #: What the transactions and connections of this object carry.
        self.tag = uuid.uuid4().hex
        self._opened: neo4j.Driver | None = None
        #: The driver that is being opened, for whoever ends a ping.
        self._opening: neo4j.Driver | None = None
        #: The statement of a file that the server has, and what was last seen of its wait.
        self._sent: Statement | None = None
        self._last_look: Look | None = None
        #: The constraints and indexes that our open transaction has made, by name.
        self.uncommitted: list[str] = []
        #: Version and edition, once connected.
        self.server: ServerInfo | None = None
        #: What the server calls the database, as far as is known.
        self.name = url.database.lower()
        #: Whether one server has the whole database, as far as is known.
        self.is_alone = False
        #: What a look has found last.
        self.live: LiveSchema | None = None

    def open(self, timeout_s: float) -> ServerInfo:
        """One try on new connections, with the credentials once."""
        limit = min(timeout_s, self._connect_timeout_s)
        with (
            self._looking_at_tls(limit),
            self._looking_at_routes(limit),
            self._errors(),
            self._recognising(limit),
        ):
            driver = self._opening = self._open(limit)
            try:
                rows = self._ask(driver, _COMPONENTS, limit)
                server = self._checked_server(rows)
                self._check_database(driver, limit)
            except BaseException:
                driver.close()
                raise
            finally:
                self._opening = None
        self._opened, self.server = driver, server
        return server

    @property
    def metadata(self) -> dict[str, str]:
        """What a transaction of ours carries."""
        return {TAG: self.tag}

    @contextmanager
    def _looking_at_tls(self, timeout_s: float) -> Iterator[None]:
        """Raise `AccessDenied` with the cause when TLS, or the lack of it, has kept us out."""
        try:
            yield
        except (StoreUnavailable, TlsFailed) as exc:
            is_silent = exc.__cause__ is not None and neo4j_errors.is_silent(exc.__cause__)
            if isinstance(exc, TlsFailed) or is_silent:
                way = tls_way(self._url)
                refuse_tls_fault(self._url, way, BOLT_PORT, exc, min(timeout_s, 1.0))
            raise

    @contextmanager
    def _looking_at_routes(self, timeout_s: float) -> Iterator[None]:
        """Raise `StoreUnavailable` with the cause when a server names a writer out of our reach.

        The driver says only that it has no connection to a writer. So the very server is asked for
        its routing table. That takes no new guess of a password: the server has let us in before.
        """
        try:
            yield
        except StoreUnavailable as exc:
            if self._url.scheme.startswith(members.ROUTING) and neo4j_errors.lacks_writer(exc):
                limit_s = min(timeout_s, 2.0)
                members.refuse_unreachable(self._url, self._told_writers(limit_s, exc), limit_s)
            raise

    def _told_writers(self, limit_s: float, cause: StoreUnavailable) -> list[str]:
        """The writers that the server of this address names. Raises `cause` when it names none."""
        direct = replace(self._url, scheme=self._url.scheme.replace(members.ROUTING, "bolt", 1))
        given = {**client_arguments(direct), "connection_timeout": limit_s}
        try:
            with (
                neo4j.GraphDatabase.driver(**given, max_transaction_retry_time=0) as driver,
                driver.session(database="system") as session,
            ):
                query = neo4j.Query(_ROUTES, timeout=max(limit_s, 0.1))
                row = session.run(query, database=self._url.database or None).single(strict=True)
                return members.writers_told(row["servers"])
        except (raised.Neo4jError, raised.DriverError):
            raise cause from cause.__cause__

    @contextmanager
    def _recognising(self, timeout_s: float) -> Iterator[None]:
        """Ask what it is that takes connections and does not shake hands.

        Waiting for another kind of server is in vain.
        """
        try:
            yield
        except raised.DriverError as exc:
            known = ""
            if neo4j_errors.is_silent(exc) and "+" not in self._url.scheme:
                known = foreign_server.recognised(
                    self._url.host,
                    self._url.port(BOLT_PORT),
                    min(timeout_s, 1.0),
                    own=foreign_server.BOLT,
                )
            if known:
                raise ConfigurationError(
                    f"neo4j: at {self._target} answers {known}.", hint="Give the Bolt address."
                ) from exc
            raise

    def _open(self, timeout_s: float) -> neo4j.Driver:
        """A driver without its own waits of 30 and 60 s, which would add to our deadline."""
        return neo4j.GraphDatabase.driver(
            **client_arguments(self._url),
            connection_timeout=timeout_s,
            connection_acquisition_timeout=timeout_s,
            max_transaction_retry_time=0,
            telemetry_disabled=True,
            user_agent=f"is-db-bootstrap {self.tag}",
        )

    def _ask(
        self, driver: neo4j.Driver, text: str, timeout_s: float, database: str | None = None
    ) -> list[dict[str, Any]]:
        """One query in write mode, so that neo4j:// leads it to a writer."""
        with driver.session(database=database or self._url.database or None) as session:
            query = neo4j.Query(text, timeout=max(timeout_s, 0.1))
            return [dict(row) for row in session.run(query)]

    def _checked_server(self, rows: Sequence[Mapping[str, Any]]) -> ServerInfo:
        version, edition = "", ""
        if rows:
            version, edition = str(rows[0]["version"]), str(rows[0]["edition"])
        major = re.match(r"\d+", version)
        if major is None or int(major[0]) < OLDEST_MAJOR:
            raise StoreConflict(
                STORE,
                f"{self._target} is Neo4j {version or 'of unknown version'}; "
                f"{OLDEST_MAJOR} or newer is needed.",
                hint="Upgrade the server.",
            ).at(Rung.TARGET)
        return ServerInfo(version, edition)

    def _check_database(self, driver: neo4j.Driver, timeout_s: float) -> None:
        which = f"DATABASE {quoted(self._url.database)}" if self._url.database else "HOME DATABASE"
        try:
            rows = self._ask(driver, _DATABASE.format(which=which), timeout_s, "system")
        except raised.Forbidden:
            return  # not allowed everywhere; the query before has read from the database
        self.is_alone = len(rows) == 1
        self.name = str(rows[0]["name"]) if rows else self.name
        members.refuse_members(self._url, rows)

    @property
    def driver(self) -> neo4j.Driver:
        """The driver; connects when nobody has pinged before."""
        if self._opened is None:
            self.open(self._connect_timeout_s)
        if self._opened is None:
            raise StoreUnavailable(STORE, "The store was closed meanwhile.")
        return self._opened

    def ask_once(self, text: str, database: str | None = None) -> list[dict[str, Any]]:
        """One query to a database of this server, or to ours when that is None."""
        return self._ask(self.driver, text, self._connect_timeout_s, database)

    @property
    def protocol(self) -> str:
        """The version of Bolt that the driver and the server have agreed on."""
        major, minor = self.driver.get_server_info().protocol_version
        return f"{major}.{minor}"

    @contextmanager
    def session(self) -> Iterator[neo4j.Session]:
        """A session in the database."""
        with self.driver.session(database=self._url.database or None) as session:
            yield session

    def rows(self, session: neo4j.Session, text: str, **parameters: Any) -> list[dict[str, Any]]:
        """One statement in a transaction of its own, marked as ours so that `cancel` finds it."""
        query = neo4j.Query(text, metadata=self.metadata)
        return [dict(row) for row in session.run(query, parameters)]

    def rows_within(
        self, session: neo4j.Session, text: str, timeout_s: float
    ) -> list[dict[str, Any]]:
        """As `rows`, ended by the server after `timeout_s` seconds."""
        query = neo4j.Query(text, metadata=self.metadata, timeout=timeout_s)
        return [dict(row) for row in session.run(query)]

    def ask(self, session: neo4j.Session, question: str) -> bool:
        """The answer to a question, in a transaction that is rolled back.

        Raises `StoreConflict` for anything else than one row whose first value is true or false.
        """
        with session.begin_transaction(metadata=self.metadata) as transaction:
            answers = [row.values() for row in transaction.run(question)]
            transaction.rollback()  # at its end, the driver would commit
        if len(answers) != 1 or not isinstance(answers[0][0], bool):
            raise StoreConflict(
                STORE,
                f"The question `{question}` was not answered by true or false in one row.",
                hint="Let it return one boolean, such as `RETURN count(n) > 0`.",
            )
        return answers[0][0]

    def write(self, text: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One statement about the lock, in a session and a transaction of its own."""
        with self._errors("the lock"), self.session() as session:
            return self.rows(session, text, **parameters)

    def look(self, session: neo4j.Session) -> LiveSchema:
        """All constraints and indexes."""
        return LiveSchema.read(self.rows(session, _CONSTRAINTS), self.rows(session, _INDEXES))

    def look_for(self, session: neo4j.Session, kinds: set[str]) -> LiveSchema:
        """A look at constraints or indexes only; the rest is as last seen.

        A constraint's own index is ONLINE once it is made.
        """
        last = self.live
        if last is None or len(kinds) > 1:
            return self.look(session)
        if "index" in kinds:
            live = LiveSchema.read((), self.rows(session, _INDEXES))
        else:
            live = LiveSchema(
                LiveSchema.read(self.rows(session, _CONSTRAINTS), ()).objects, last.indexes
            )
        rest = {name: thing for name, thing in last.objects.items() if thing.kind not in kinds}
        return LiveSchema({**rest, **live.objects}, live.indexes)

    @contextmanager
    def sending(self, statement: Statement) -> Iterator[None]:
        """Note the statement that the server has, for `waits_for` and `end_wait`."""
        self._sent, self._last_look = statement, None
        try:
            yield
        finally:
            self._sent = None

    def end_runs(self, runs: Sequence[str]) -> bool:
        """End the connections and transactions of other runs. Returns whether none is left.

        The server ends them by and by, so a later call may find none. A run that is not over gets
        no answer on its connections any more. Raises `AccessDenied`.
        """
        with self._errors("a run that lost its lock"), self.session() as session:
            connections = [row["id"] for row in self.rows(session, _CONNECTIONS, runs=runs)]
            if connections:
                self.rows(session, _END_CONNECTIONS, ids=connections)
            transactions = [row["id"] for row in self.rows(session, _RUNS, runs=runs)]
            if transactions:
                self.rows(session, waiting.TERMINATE, ids=transactions)
            return not connections and not transactions

    # --- from another thread

    def terminate(self) -> None:
        """From another thread: terminate our transactions on the server.

        Where that is refused, the connections are broken.
        """
        driver = self._opened or self._opening
        if driver is None:
            return
        if driver is self._opening:
            driver.close()  # a ping has nothing that would go on
            return
        try:
            with driver.session(database=self._url.database or None) as session:
                ids = [row["id"] for row in session.run(_OURS, tag=self.tag)]
                if ids:
                    session.run(waiting.TERMINATE, ids=ids).consume()
        except (raised.Neo4jError, raised.DriverError):
            driver.close()

    def hang_up(self) -> None:
        """From another thread: break the connections."""
        for driver in (self._opened, self._opening):
            if driver is not None:
                driver.close()

    def waits_for(self) -> str:
        """From another thread: which transactions of others block ours, as far as can be told."""
        driver = self._opened
        if driver is None:
            return ""
        look, before = self._look_at_wait(driver), self._last_look
        self._last_look = look
        return look.sentence(before)

    def _look_at_wait(self, driver: neo4j.Driver) -> Look:
        with self._errors(), driver.session(database=self._url.database or None) as session:
            rows = [dict(row) for row in session.run(waiting.READ)]
            sent = self._sent
            is_schema = sent is not None and sent.is_schema
            made = list(self.uncommitted)
            is_idle = is_schema and not list(session.run(waiting.BUILDING, uncommitted=made))
        return waiting.read_look(rows, self.metadata, schema=is_idle)

    def end_wait(self) -> bool:
        """From another thread: end our statement if others block it and nothing of it is left then.

        What commits while it runs is left to wait: some of it is committed already.
        """
        driver, sent, before = self._opened, self._sent, self._last_look
        if driver is None or sent is None or sent.is_batched:
            return False
        look = self._look_at_wait(driver)
        ids = look.stuck(before)
        if not ids or self._sent is not sent:
            return False
        with self._errors(), driver.session(database=self._url.database or None) as session:
            session.run(waiting.TERMINATE, ids=ids).consume()
        return True

    def close(self) -> None:
        """Release every connection."""
        driver, self._opened = self._opened, None
        self.live = None
        if driver is not None:
            driver.close()
