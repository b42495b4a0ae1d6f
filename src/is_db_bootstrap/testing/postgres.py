"""PostgreSQL for tests: each one gets a copy of a template database."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres.connection import (
    MAINTENANCE,
    DatabaseMissing,
    connect,
    identifier,
    session_settings,
)
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation

Connection = psycopg.Connection[Any]

#: First keys of two-key advisory locks: who lives, and who makes a template.
_ALIVE, _MAKING = 0x69736462, 0x69736474
_COPY = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_\d+")
_TEMPLATE = f"{PREFIX}_template"
#: Days after its last use that a template is kept.
_KEPT_DAYS = 7
_CONNECT_S = 5
#: PostgreSQL 15, as libpq writes it.
_HAS_STRATEGY = 150000

_USER_RELATIONS = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
"""


class PostgresIsolation(Isolation):
    """A database for each test, copied from a template that is named by the blueprint's contract.

    A template is complete or absent: its flag is set last, under an advisory lock of its contract, so that any number of
    processes make it once. A process shows that it lives by another advisory lock; the server gives that back when it dies.
    """

    store = "postgres"
    client_errors = (psycopg.Error,)

    def __init__(self, server: StoreUrl, blueprint: Blueprint, settings: Settings, *, ahead: int = 2) -> None:
        super().__init__(server, blueprint, settings)
        self._owner = secrets.randbits(31)
        self._number = itertools.count()
        self._of_thread = threading.local()
        self._opened: list[Connection] = []
        self._check_empty()
        self._main = self._here
        self._contract = fingerprint(blueprint, settings)
        self._template = f"{_TEMPLATE}_{self._contract}"
        self._main.execute("SELECT pg_advisory_lock(%s, %s)", (_ALIVE, self._owner))
        self._make_template()
        self._sweep()
        self._copies = Ahead(self._copy, self._drop, size=ahead)

    def take(self) -> StoreUrl:
        """A copy; from those made ahead in about 0.1 ms, else in the time of `CREATE DATABASE`."""
        return replace(self.server, database=self._copies.take())

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Dropped soon, whoever is connected."""
        if not keep:
            self._copies.done(url.database)

    def close(self) -> None:
        """Drop all copies but those kept; the template stays for the next session."""
        self._copies.close()
        for connection in self._opened:
            connection.close()

    def _connect(self, database: str) -> Connection:
        return connect(self.server, _CONNECT_S, database=database, settings=session_settings("public"))

    @property
    def _here(self) -> Connection:
        """The connection of this thread, so that a test never waits for a drop: that takes 0.1 s when a backend is slow to end."""
        if not hasattr(self._of_thread, "connection"):
            self._of_thread.connection = self._connect(MAINTENANCE)
            self._opened.append(self._of_thread.connection)
        connection: Connection = self._of_thread.connection
        return connection

    def _check_empty(self) -> None:
        """The database that the address names is not touched, but a server where it is in use is not one for tests."""
        database = self.server.database or MAINTENANCE
        with suppress(DatabaseMissing), self._connect(database) as connection:
            row = connection.execute(_USER_RELATIONS).fetchone()
            if row and row[0]:
                raise self.not_ours(f"database {database}")

    def _make_template(self) -> None:
        key = (_MAKING, int(self._contract[:7], 16))
        self._main.execute("SELECT pg_advisory_lock(%s, %s)", key)
        try:
            row = self._main.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", (self._template,)).fetchone()
            if row is None or not row[0]:
                self._drop(self._template)
                self.apply(replace(self.server, database=self._template))
                self._note_use()
                # Without connections to it, so that a copy can always be made; the flag is the last thing.
                self._main.execute(f"ALTER DATABASE {identifier(self._template)} WITH ALLOW_CONNECTIONS false")
                self._main.execute(f"ALTER DATABASE {identifier(self._template)} WITH IS_TEMPLATE true")
            else:
                self._note_use()
            self._drop_old_templates()
        finally:
            self._main.execute("SELECT pg_advisory_unlock(%s, %s)", key)

    def _note_use(self) -> None:
        """Its comment is the day of its last use."""
        today = dt.datetime.now(dt.UTC).date().isoformat()
        noted = self._main.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (self._template,)
        ).fetchone()
        if not noted or noted[0] != today:
            self._main.execute(f"COMMENT ON DATABASE {identifier(self._template)} IS '{today}'")

    def _drop_old_templates(self) -> None:
        rows = self._main.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s AND datname <> %s"
            " AND shobj_description(oid, 'pg_database') < to_char(now() AT TIME ZONE 'UTC' - make_interval(days => %s), 'YYYY-MM-DD')",
            (f"{_TEMPLATE}%", self._template, _KEPT_DAYS),
        ).fetchall()
        for (name,) in rows:
            self._main.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
            self._drop(name)

    def _sweep(self) -> None:
        """Drop the copies of processes that are gone."""
        names = [str(r[0]) for r in self._main.execute("SELECT datname FROM pg_database").fetchall()]
        for name in names:
            match = _COPY.fullmatch(name)
            if match and self._is_gone(int(match[1], 16)):
                self._drop(name)

    def _is_gone(self, owner: int) -> bool:
        if owner == self._owner:
            return False
        row = self._main.execute("SELECT pg_try_advisory_lock(%s, %s)", (_ALIVE, owner)).fetchone()
        if not row or not row[0]:
            return False
        self._main.execute("SELECT pg_advisory_unlock(%s, %s)", (_ALIVE, owner))
        return True

    def _copy(self) -> str:
        name = f"{PREFIX}_{self._owner:08x}_{next(self._number)}"
        # Files are copied instead of logged block by block: for a database of some 10 MB that is a third faster.
        strategy = " STRATEGY file_copy" if self._main.info.server_version >= _HAS_STRATEGY else ""
        self._here.execute(f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(self._template)}{strategy}")
        return name

    def _drop(self, name: str) -> None:
        self._here.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")
