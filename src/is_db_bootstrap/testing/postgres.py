"""PostgreSQL for tests: each one gets a copy of a template database."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres.connection import (
    MAINTENANCE,
    DatabaseMissing,
    connect,
    identifier,
    session_settings,
)
from is_db_bootstrap.testing import postgres_content
from is_db_bootstrap.testing.content import Content, Seal, Thing
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation, Pulse

Connection = psycopg.Connection[Any]

#: First keys of two-key advisory locks: who lives, who makes a template, who uses one.
_ALIVE, _MAKING, _USING = 0x69736462, 0x69736474, 0x69736475
#: Second key of `_MAKING`: who removes what dead processes have left.
_SWEEPING = 0
#: What a database is called while it is looked at for the last time and dropped.
_ASIDE = "_going"
_COPY = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_\d+(?:{_ASIDE})?")
_TEMPLATE = f"{PREFIX}_template"
#: Days after its last use that a template is kept.
_KEPT_DAYS = 7
#: The day of a template's last use, which its comment begins with.
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_CONTRACT = re.compile(rf"{_TEMPLATE}_[0-9a-f]{{12}}")
_CONNECT_S = 5
#: What the comment of a copy begins with; then comes the moment until which its session lived.
_LIVED = "a test session wrote until "
#: Characters of somebody else's comment that a message shows.
_SHOWN = 60
#: Seconds between two such comments on a copy that a test uses.
_NOTE_S = 1.0
#: PostgreSQL 15, as libpq writes it.
_HAS_STRATEGY = 150000

#: What the comment of a template says behind its day, when it is to go with the last session that
#: uses it.
_PASSING = " until the last session ends"


class PostgresIsolation(Isolation):
    """A database for each test, copied from a template that is named by the blueprint's contract.

    A template is complete or absent: its flag is set last, under an advisory lock of its contract,
    so that any number of processes make it once. A process shows that it lives by another advisory
    lock; the server gives that back when it dies.

    On a given server the last session that uses a template drops it. A copy's comment says until
    when its session lived, as a snapshot of the cluster's transactions. A copy that was kept, or
    whose process was killed, is dropped by the next session only when no later transaction has
    written to it; what a test writes in the last second before it is killed counts as later.
    """

    store = "postgres"
    client_errors = (psycopg.Error,)

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
        self._owner = secrets.randbits(31)
        self._number = itertools.count()
        self._of_thread = threading.local()
        self._opened: list[Connection] = []
        self._check_empty()
        self._main = self._here
        self._contract = fingerprint(blueprint, settings)
        self._template = f"{_TEMPLATE}_{self._contract}"
        self._main.execute("SELECT pg_advisory_lock(%s, %s)", (_ALIVE, self._owner))
        with self._locked(_SWEEPING):
            self._sweep()
        self._main.execute("SELECT pg_advisory_lock_shared(%s, %s)", (_USING, _key(self._template)))
        self._make_template()
        self._copies = Ahead(self._copy, self._drop, size=ahead)
        self._in_test: set[str] = set()
        self._noting = threading.Lock()
        self._has_ended = False
        self._pulse = Pulse(self._note_all, _NOTE_S, self.client_errors, name="isdb-postgres-note")

    def take(self) -> StoreUrl:
        """A copy; from those made ahead in about 0.1 ms, else in the time of `CREATE DATABASE`."""
        name = self._copies.take()
        if self.given:
            self._in_test.add(name)
            self._pulse.start()
        return replace(self.server, database=name)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Dropped soon, whoever is connected."""
        with self._noting:
            self._in_test.discard(url.database)
            if keep and self.given:
                self._note(url.database)
        if not keep:
            self._copies.done(url.database)

    def close(self) -> None:
        """Drop all copies but those kept; on a server of our own the template stays."""
        if self._has_ended:
            return
        self._has_ended = True
        self._pulse.close()
        try:
            self._copies.close()
            if self.given:
                self._drop_unused_templates()
        finally:
            for connection in self._opened:
                connection.close()

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """A role that may not connect, or may not create databases."""
        return isinstance(exc, psycopg.errors.InsufficientPrivilege)

    def _connect(self, database: str) -> Connection:
        return connect(
            self.server, _CONNECT_S, database=database, settings=session_settings("public")
        )

    @property
    def _here(self) -> Connection:
        """The connection of this thread, so that a test never waits for a drop: that takes 0.1 s when a backend is slow to end."""
        open_one = getattr(self._of_thread, "connection", None)
        if open_one is None or open_one.closed:
            self._of_thread.connection = self._connect(MAINTENANCE)
            self._opened.append(self._of_thread.connection)
        connection: Connection = self._of_thread.connection
        return connection

    def _check_empty(self) -> None:
        """The database that the address names is not touched, but a server where it is in use is not one for tests."""
        database = self.server.database or MAINTENANCE
        with suppress(DatabaseMissing), self._connect(database) as connection:
            found = postgres_content.objects(connection)
            if found:
                raise self.not_ours(f"database {database}", found)

    def _note_all(self) -> None:
        """Note of each copy that a test uses that its session lives."""
        with self._noting:
            for name in sorted(self._in_test):
                self._note(name)

    def _note(self, name: str) -> None:
        moment = postgres_content.now(self._here)
        comment = _literal(f"{_LIVED}{moment}")
        self._here.execute(f"COMMENT ON DATABASE {identifier(name)} IS {comment}")

    @contextmanager
    def _locked(self, key: int) -> Iterator[None]:
        """Alone among all processes on this server; waits for others."""
        self._main.execute("SELECT pg_advisory_lock(%s, %s)", (_MAKING, key))
        try:
            yield
        finally:
            self._main.execute("SELECT pg_advisory_unlock(%s, %s)", (_MAKING, key))

    def _make_template(self) -> None:
        with self._locked(_key(self._template)):
            row = self._main.execute(
                "SELECT datistemplate FROM pg_database WHERE datname = %s", (self._template,)
            ).fetchone()
            if row is None or not row[0]:
                self._drop(self._template)
                self.apply(replace(self.server, database=self._template))
                self._note_use(_PASSING if self.given else "")
                # Without connections to it, so that a copy can always be made; the flag is the last
                # thing.
                self._main.execute(
                    f"ALTER DATABASE {identifier(self._template)} WITH ALLOW_CONNECTIONS false"
                )
                self._main.execute(
                    f"ALTER DATABASE {identifier(self._template)} WITH IS_TEMPLATE true"
                )
            elif self._comment(self._template).endswith(_PASSING):
                self._note_use(_PASSING)
            else:
                self._note_use("")
            self._drop_old_templates()

    def _comment(self, database: str) -> str:
        row = self._main.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
            (database,),
        ).fetchone()
        return str(row[0] or "") if row else ""

    def _drop_unused_templates(self) -> None:
        """Drop the templates of given servers that no session uses any more, also those of killed ones."""
        self._main.execute(
            "SELECT pg_advisory_unlock_shared(%s, %s)", (_USING, _key(self._template))
        )
        rows = self._main.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s"
            " AND shobj_description(oid, 'pg_database') LIKE %s"
            " AND NOT datallowconn",  # else somebody has opened it, and may have written to it
            (f"{_TEMPLATE}%", f"%{_PASSING}"),
        ).fetchall()
        for (name,) in rows:
            if not _CONTRACT.fullmatch(name):
                continue
            with self._locked(_key(name)), self._unused(name) as unused:
                if unused:
                    self._main.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
                    self._drop(name)

    @contextmanager
    def _unused(self, template: str) -> Iterator[bool]:
        """Whether no session uses it; none can begin to until the end of the block."""
        key = (_USING, _key(template))
        row = self._main.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
        held = bool(row and row[0])
        try:
            yield held
        finally:
            if held:
                self._main.execute("SELECT pg_advisory_unlock(%s, %s)", key)

    def _note_use(self, how_long: str) -> None:
        """Its comment is the day of its last use."""
        note = dt.datetime.now(dt.UTC).date().isoformat() + how_long
        if self._comment(self._template) != note:
            self._main.execute(
                f"COMMENT ON DATABASE {identifier(self._template)} IS {_literal(note)}"
            )

    def _drop_old_templates(self) -> None:
        rows = self._main.execute(
            "SELECT datname, shobj_description(oid, 'pg_database')"
            " FROM pg_database WHERE datname LIKE %s AND datname <> %s AND NOT datallowconn"
            " AND shobj_description(oid, 'pg_database') < to_char(now() AT TIME ZONE 'UTC' - make_interval(days => %s), 'YYYY-MM-DD')",
            (f"{_TEMPLATE}%", self._template, _KEPT_DAYS),
        ).fetchall()
        for name, comment in rows:
            # Another database may have a name that begins alike, and a comment of its owner's.
            if _CONTRACT.fullmatch(name) and _DAY.match(comment):
                self._main.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
                self._drop(name)

    def _sweep(self) -> None:
        """Drop the copies of processes that are gone."""
        names = [
            str(r[0])
            for r in self._main.execute(
                "SELECT datname FROM pg_database ORDER BY datname"
            ).fetchall()
        ]
        gone = [
            name
            for name in names
            if (match := _COPY.fullmatch(name)) and self._is_gone(int(match[1], 16))
        ]
        if not self.given:
            for name in gone:
                self._drop(name)
            return
        for name in gone:
            self._refuse_written(name)
        for name in gone:
            self._drop_unwritten(name)

    def _refuse_written(self, name: str, *, now_called: str = "") -> None:
        """A copy that somebody has written to after its session's end belongs to whoever did."""
        try:
            found = self._foreign(now_called or name)
        except DatabaseMissing:
            return
        if found:
            raise self.written_by_others(
                f"database {name}",
                found,
                way_out=f'If it may go: DROP DATABASE "{name}". '
                f'To keep it: ALTER DATABASE "{name}" RENAME TO another name.',
            )

    def _foreign(self, name: str) -> Content:
        """What a copy holds that its session does not vouch for."""
        comment = self._comment(name)
        with self._connect(name) as connection:
            seal = Seal.read(comment)  # of an earlier version, which kept the copy
            if seal:
                return postgres_content.objects_and_rows(connection).besides(seal.digests)
            if comment and not comment.startswith(_LIVED):
                return Content((Thing("comment", name=comment.splitlines()[0][:_SHOWN]),))
            if comment:
                since = postgres_content.Since.read(comment.removeprefix(_LIVED))
            else:  # its session was killed before it could write the comment
                since = self._creation(name)
            return postgres_content.written_since(connection, since)

    def _creation(self, name: str) -> postgres_content.Since:
        """The moment in which a database was made, or its settings were last changed."""
        row = self._main.execute(
            "SELECT xmin::text::bigint + 1 FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
        return postgres_content.Since(int(row[0]) if row else 0)

    def _drop_unwritten(self, name: str) -> None:
        """Drop a copy under a name that nobody knows, after a last look.

        The server renames only what nobody is connected to, and refuses after it has waited 5 s
        for ends of connections. From then on nobody can come and write.
        """
        aside = name if name.endswith(_ASIDE) else f"{name}{_ASIDE}"
        try:
            if aside != name:
                self._rename(name, aside)
            try:
                self._refuse_written(name, now_called=aside)
            except BootstrapError:
                if aside != name:
                    self._rename(aside, name)
                raise
            self._main.execute(f"DROP DATABASE IF EXISTS {identifier(aside)}")
        except psycopg.errors.InvalidCatalogName:
            return  # another session was quicker
        except psycopg.errors.ObjectInUse as exc:
            told = exc.diag.message_detail or "somebody is connected to it"
            self.say(
                f"postgres: database {name} of a test run that has ended is left alone: {told}"
            )

    def _rename(self, name: str, to: str) -> None:
        self._main.execute(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(to)}")

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
        # Files are copied instead of logged block by block: for a database of some 10 MB that is a
        # third faster.
        strategy = " STRATEGY file_copy" if self._main.info.server_version >= _HAS_STRATEGY else ""
        self._here.execute(
            f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(self._template)}{strategy}"
        )
        if self.given:
            self._note(name)
        return name

    def _drop(self, name: str) -> None:
        self._here.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")


def _key(template: str) -> int:
    """The second key of a template's advisory locks."""
    return int(template.removeprefix(f"{_TEMPLATE}_")[:7], 16)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
