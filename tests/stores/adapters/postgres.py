"""PostgreSQL for the contract suite."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg

from adapters.shop import SHOP, run
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

TAMPERINGS = {
    "column default": "ALTER TABLE outbox ALTER tries SET DEFAULT 1",
    "column type": "ALTER TABLE orders ALTER currency TYPE varchar(64)",
    "column missing": "ALTER TABLE orders DROP COLUMN note",
    "constraint missing": "ALTER TABLE orders DROP CONSTRAINT ck_orders_cents",
    "index missing": "DROP INDEX idx_orders_status",
    "index invalid": "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_order_events_order'::regclass",
    "label added": "ALTER TYPE order_status ADD VALUE 'LOST' BEFORE 'SENT'",
    "trigger disabled": "ALTER TABLE order_events DISABLE TRIGGER trg_order_events_append_only",
    "table missing": "DROP TABLE outbox",
}


NATURES = {"revision": "atomic", "seed": "repeatable"}


class Adapter:
    """A database that is there and empty; the server that lacks it is the business of the store's
    own tests.
    """

    OTHER_SERVER = (ConfigurationError,)
    NATURES = NATURES
    TAMPERINGS = tuple(TAMPERINGS)
    MENDABLE = ("constraint missing", "index missing", "index invalid")

    def __init__(self, url: str) -> None:
        self.url = url
        self.parsed = StoreUrl.parse("postgres", url)
        self.counting: Counting | None = None
        with self.connected("postgres") as admin:
            admin.execute(
                psycopg.sql.SQL("CREATE DATABASE {}").format(
                    psycopg.sql.Identifier(self.parsed.database)
                )
            )
        self.client = self.connected(self.parsed.database)

    def connected(self, database: str) -> psycopg.Connection:
        return psycopg.connect(
            self.parsed.reveal(database=database, scheme="postgresql"), autocommit=True
        )

    def close(self) -> None:
        self.client.close()
        if self.counting is not None:
            self.counting.close()

    def open(self, url: str | None = None, **timing: float) -> PostgreSQLBootstrapper:
        return PostgreSQLBootstrapper(url or self.url, SHOP, timing=Timing(**timing), seed=True)

    def migrate_further(self, folder: Path) -> None:
        migrations = shutil.copytree(SHOP.migrations, folder / "migrations")
        (migrations / "shop_0004_more.py").write_text(
            'revision = "shop_0004"\n'
            'down_revision = "shop_0003"\n'
            "def upgrade(): pass\n"
            "def downgrade(): pass\n"
        )
        newer = replace(SHOP, migrations=migrations)
        run(PostgreSQLBootstrapper(self.url, newer, seed=True))

    def snapshot(self) -> object:
        """All objects and rows; a row of the catalogue that was written again has another xmin."""
        objects = self.client.execute(
            "SELECT oid, relname, relkind, xmin::text FROM pg_class WHERE relnamespace = "
            "'public'::regnamespace ORDER BY oid"
        ).fetchall()
        tables = [name for _, name, kind, _ in objects if kind == "r"]
        rows = {
            name: self.client.execute(
                f'SELECT xmin::text, t.* FROM "{name}" t ORDER BY 1'
            ).fetchall()
            for name in tables
        }
        return objects, rows

    def tamper(self, kind: str) -> None:
        self.client.execute(TAMPERINGS[kind])

    def lose_lock(self) -> None:
        ended = self.client.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
        ).fetchall()
        assert ended == [(True,)]

    def wrong_password(self) -> str:
        self.counting = Counting(self.parsed.port(5432))
        return replace(
            self.parsed, hosts=f"127.0.0.1:{self.counting.port}", password="wrong"
        ).reveal()

    def refused_logins(self) -> int | None:
        return self.counting.connections if self.counting is not None else None

    @contextmanager
    def held_call(self, store: PostgreSQLBootstrapper) -> Iterator[Callable[[], object]]:
        """The version table is locked by another session; a revision waits for it."""
        change = store.plan().changes[0]
        with self.connected(self.parsed.database) as holder, holder.transaction():
            self.client.execute(
                "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT "
                "alembic_version_pkc PRIMARY KEY)"
            )
            holder.execute("LOCK TABLE alembic_version")
            yield lambda: store.apply(change)


class Counting:
    """Passes connections on to a server and counts them, since the server itself does not count
    refused logins.
    """

    def __init__(self, to: int) -> None:
        self.connections = 0
        self.to = to
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.door.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self.to))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self.copy, args=[source, sink], daemon=True).start()

    @staticmethod
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), source, sink:
            while data := source.recv(65536):
                sink.sendall(data)

    def close(self) -> None:
        self.door.close()
