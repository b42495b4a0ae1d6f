"""Neo4j for the contract suite."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import neo4j

from adapters.shop import SHOP, run
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper

LOCK = "__Neo4jMigrationsLock"


NATURES = {"cypher": "repeatable", "V004__countries.cypher": "atomic"}


class Adapter:
    """A Neo4j that holds nothing."""

    OTHER_SERVER = (ConfigurationError,)
    NATURES = NATURES
    TAMPERINGS = ("constraint dropped", "index dropped", "index on another property")
    MENDABLE = ("constraint dropped", "index dropped")

    def __init__(self, url: str) -> None:
        self.url = url
        parsed = StoreUrl.parse("neo4j", url)
        self.client = neo4j.GraphDatabase.driver(
            f"bolt://{parsed.hosts}",
            auth=(parsed.username, parsed.password),
            notifications_min_severity="OFF",
        )

    def close(self) -> None:
        self.client.close()

    def open(self, url: str | None = None, **timing: float) -> Neo4jBootstrapper:
        return Neo4jBootstrapper(url or self.url, SHOP, timing=Timing(**timing))

    def migrate_further(self, folder: Path) -> None:
        cypher = shutil.copytree(SHOP.cypher, folder / "cypher")
        (cypher / "V005__more.cypher").write_text("CREATE (:More);\n")
        run(Neo4jBootstrapper(self.url, replace(SHOP, cypher=cypher)))

    def query(self, text: str) -> list[list[object]]:
        return [list(r.values()) for r in self.client.execute_query(text).records]

    def snapshot(self) -> object:
        return (
            self.query("MATCH (n) RETURN labels(n), properties(n) ORDER BY elementId(n)"),
            self.query("MATCH ()-[r]->() RETURN type(r), properties(r) ORDER BY elementId(r)"),
            self.query("SHOW CONSTRAINTS YIELD id, name, type, labelsOrTypes, properties"),
            self.query("SHOW INDEXES YIELD id, name, type, labelsOrTypes, properties, state"),
        )

    def tamper(self, kind: str) -> None:
        if kind == "constraint dropped":
            self.query("DROP CONSTRAINT unique_product_id")
            return
        self.query("DROP INDEX product_tenant IF EXISTS")
        if kind == "index on another property":
            self.query("CREATE INDEX product_tenant FOR (n:Product) ON (n.name)")

    def lose_lock(self) -> None:
        assert self.query(f"MATCH (l:{LOCK}) DELETE l RETURN count(*)") == [[1]]

    def wrong_password(self) -> str:
        return replace(StoreUrl.parse("neo4j", self.url), password="wrong-pw1").reveal()

    def refused_logins(self) -> int | None:
        return None  # the server keeps no count that it tells

    @contextmanager
    def held_call(self, store: Neo4jBootstrapper) -> Iterator[Callable[[], object]]:
        """An open transaction that wrote a node of the label keeps the constraint waiting."""
        change = store.plan().changes[0]
        with self.client.session() as session, session.begin_transaction() as transaction:
            transaction.run("CREATE (:Product {id: 'held'})").consume()
            yield lambda: store.apply(change)
            transaction.rollback()
