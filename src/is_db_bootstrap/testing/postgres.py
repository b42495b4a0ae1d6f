"""PostgreSQL for tests: each test gets a copy of a template database."""

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
from is_db_bootstrap.errors import AccessDenied, BootstrapError
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres.connection import (
    MAINTENANCE,
    connect,
    identifier,
    session_settings,
)
from is_db_bootstrap.stores.postgres.database import MAY_CREATE
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing
from is_db_bootstrap.testing import postgres_content
from is_db_bootstrap.testing.content import Content, Seal, Thing
from is_db_bootstrap.testing.isolation import PREFIX, Ahead, Isolation, Pulse

Connection = psycopg.Connection[Any]

#: First key of the advisory lock by which a process shows that it lives.
_ALIVE = 0x69736462
#: First key of the advisory lock of a process that makes or drops a template.
_MAKING = 0x69736474
#: First key of the advisory lock that is shared by all that use a template.
_USING = 0x69736475
#: Second key of `_MAKING` for a process that removes what dead processes have left.
_SWEEPING = 0
#: The end of a database's name while the database is looked at for the last time and dropped.
_ASIDE = "_going"
_COPY = re.compile(rf"{PREFIX}_([0-9a-f]{{8}})_\d+(?:{_ASIDE})?")
_TEMPLATE = f"{PREFIX}_template"
#: The whole name of a template, which ends with a blueprint's fingerprint.
_TEMPLATE_NAME = re.compile(rf"{_TEMPLATE}_[0-9a-f]{{12}}")
#: Days after its last use that a template is kept.
_KEPT_DAYS = 7
#: The beginning of a template's comment: the day of the template's last use.
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
#: Seconds that the server may take to accept a connection.
_CONNECT_S = 5
#: The beginning of a copy's comment. The moment until which the copy's session lived follows.
_LIVED = "a test session wrote until "
#: The comment of a copy that a test of a worker of pytest-xdist uses.
_LIVED_IN_TEST = "a test of the run {run} wrote until "
_IN_TEST = re.compile(_LIVED_IN_TEST.format(run=r"(?P<run>\S+)") + "(?P<moment>.*)")
#: Characters of somebody else's comment that a message shows.
_SHOWN = 60
#: Seconds between two such comments on a copy that a test uses.
_NOTE_S = 1.0
#: PostgreSQL 15, as libpq writes it.
_HAS_STRATEGY = 150000
#: The end of a template's comment, behind the day, when the last session that uses the template is
#: to drop it.
_PASSING = " until the last session ends"
#: Templates of given servers. Where connections are allowed, somebody has opened the template, and
#: may have written to it.
_PASSING_TEMPLATES = """
    SELECT datname FROM pg_database
    WHERE datname LIKE %s AND shobj_description(oid, 'pg_database') LIKE %s AND NOT datallowconn
"""
#: Templates, but for our own, whose last use is some days ago.
_OLD_TEMPLATES = """
    SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
    WHERE datname LIKE %s AND datname <> %s AND NOT datallowconn
    AND shobj_description(oid, 'pg_database')
        < to_char(now() AT TIME ZONE 'UTC' - make_interval(days => %s), 'YYYY-MM-DD')
"""
#: Errors that say that somebody is connected to a database, that it has gone, or that it has become
#: a complete template.
_NOT_LEFT = (
    psycopg.errors.ObjectInUse,
    psycopg.errors.InvalidCatalogName,
    psycopg.errors.WrongObjectType,
)
#: Databases that our own role has made, to which nobody has given a comment or is connected.
_HALF_MADE = """
    SELECT d.datname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
    WHERE d.datname LIKE %s AND r.rolname = current_user AND NOT d.datistemplate
    AND shobj_description(d.oid, 'pg_database') IS NULL
    AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)
"""


class PostgresIsolation(Isolation):
    """A database for each test, copied from a template that the blueprint's fingerprint names.

    A template is complete or absent. Its flag is set last, under an advisory lock of its own, so
    that of any number of processes only one makes the template. A process shows that it lives by
    another advisory lock, which the server gives back when the process dies.

    On a given server the last session that uses a template drops it. A copy's comment says until
    when the copy's session lived, as a snapshot of the cluster's transactions. The next session
    drops a copy that was kept, or whose process was killed, only when no later transaction has
    written to the copy. What a test writes in the last second before it is killed counts as later,
    but not for other workers of the same run.
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
        self._template = f"{_TEMPLATE}_{fingerprint(blueprint, settings)}"
        try:
            self._set_up()
        except BaseException:
            self._close_connections()
            raise
        self._copies = Ahead(self._make_copy, self._drop_database, size=ahead)
        self._in_test: set[str] = set()
        self._noting = threading.Lock()
        self._has_ended = False
        self._pulse = Pulse(self._note_all, _NOTE_S, self.client_errors, name="isdb-postgres-note")

    def _set_up(self) -> None:
        """Refuse a server that is in use, remove what dead processes have left, make a template."""
        self._check_empty()
        self._main = self._thread_connection
        self._check_rights()
        self._main.execute("SELECT pg_advisory_lock(%s, %s)", (_ALIVE, self._owner))
        with self._making_lock(_SWEEPING):
            self._drop_leftovers()
            self._drop_half_made()
        using = (_USING, _template_key(self._template))
        self._main.execute("SELECT pg_advisory_lock_shared(%s, %s)", using)
        self._make_template()

    def take(self) -> StoreUrl:
        """The address of a copy.

        A copy that was made ahead takes about 0.1 ms. A new one takes the time of
        `CREATE DATABASE`.
        """
        name = self._copies.take()
        if self.given:
            with self._noting:
                self._in_test.add(name)
                if self.run:
                    self._note_moment(name)
            self._pulse.start()
        return replace(self.server, database=name)

    def give_back(self, url: StoreUrl, *, keep: bool = False) -> None:
        """Have the copy dropped soon, whoever is connected."""
        with self._noting:
            self._in_test.discard(url.database)
            if keep and self.given:
                self._note_moment(url.database)
        if not keep:
            self._copies.done(url.database)

    def close(self) -> None:
        """Drop all copies but those kept. On a server of our own the template stays."""
        if self._has_ended:
            return
        self._has_ended = True
        self._pulse.close()
        try:
            self._copies.close()
            if self.run:
                with self._making_lock(_SWEEPING):
                    self._drop_left_meanwhile()
            if self.given:
                self._drop_unused_templates()
        finally:
            self._close_connections()

    def _close_connections(self) -> None:
        for connection in self._opened:
            connection.close()

    @classmethod
    def is_denied(cls, exc: Exception) -> bool:
        """Whether the role may not connect, or may not create databases."""
        return isinstance(exc, psycopg.errors.InsufficientPrivilege)

    # --- connections

    def _open_connection(self, database: str) -> Connection:
        return connect(
            self.server, _CONNECT_S, database=database, settings=session_settings("public")
        )

    @property
    def _thread_connection(self) -> Connection:
        """The connection of this thread, to the maintenance database.

        With a connection for each thread, a test never waits for a drop. A drop takes 0.1 s when a
        backend is slow to end.
        """
        known: Connection | None = getattr(self._of_thread, "connection", None)
        if known is not None and not known.closed:
            return known
        opened = self._open_connection(MAINTENANCE)
        self._of_thread.connection = opened
        self._opened.append(opened)
        return opened

    def _check_empty(self) -> None:
        """Refuse a server whose named database is in use.

        We do not touch the database that the address names. But a server where this database is in
        use is not a server for tests.
        """
        database = self.server.database or MAINTENANCE
        with suppress(DatabaseMissing), self._open_connection(database) as connection:
            found = postgres_content.objects(connection)
            if found:
                raise self.not_ours(f"database {database}", found)

    def _check_rights(self) -> None:
        """Refuse a role that may create no databases: each test has one of its own."""
        may_create, role = self._main.execute(MAY_CREATE.encode()).fetchone() or (True, "")
        if not may_create:
            raise AccessDenied(
                self.store,
                f"Tests create a database for each test, and {role} may not create databases on "
                f"{self.server}.",
                hint=f"Let an administrator run: ALTER ROLE {identifier(role)} CREATEDB; "
                "Or run the tests with --stores-from local.",
                subject=str(role),
            )

    @contextmanager
    def _making_lock(self, key: int) -> Iterator[None]:
        """Be alone among all processes on this server that take the same `key`.

        Waits for other processes.
        """
        self._main.execute("SELECT pg_advisory_lock(%s, %s)", (_MAKING, key))
        try:
            yield
        finally:
            self._main.execute("SELECT pg_advisory_unlock(%s, %s)", (_MAKING, key))

    # --- copies

    def _make_copy(self) -> str:
        """The name of a new copy of the template."""
        name = f"{PREFIX}_{self._owner:08x}_{next(self._number)}"
        statement = f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(self._template)}"
        if self._main.info.server_version >= _HAS_STRATEGY:
            # Files are copied instead of logged block by block. For a database of some 10 MB that
            # is a third faster.
            statement += " STRATEGY file_copy"
        try:
            self._thread_connection.execute(statement)
            if self.given:
                self._note_moment(name)
        except BaseException:
            with suppress(psycopg.Error):
                self._drop_database(name)
            raise
        return name

    def _drop_database(self, name: str) -> None:
        self._thread_connection.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")

    def _note_all(self) -> None:
        """Note of each copy that a test uses that its session lives."""
        with self._noting:
            for name in sorted(self._in_test):
                self._note_moment(name)

    def _note_moment(self, name: str) -> None:
        """Write the present moment into the comment of a copy."""
        moment = postgres_content.now(self._thread_connection)
        is_of_run = self.run and name in self._in_test
        prefix = _LIVED_IN_TEST.format(run=self.run) if is_of_run else _LIVED
        comment = _sql_literal(f"{prefix}{moment}")
        self._thread_connection.execute(f"COMMENT ON DATABASE {identifier(name)} IS {comment}")

    # --- templates

    def _make_template(self) -> None:
        """Make the template, unless another process has made it, and drop old ones."""
        with self._making_lock(_template_key(self._template)):
            if not self._has_template():
                self._drop_database(self._template)
                self._build_template()
            elif self._comment_of(self._template).endswith(_PASSING):
                self._note_use(_PASSING)
            else:
                self._note_use("")
            self._drop_old_templates()

    def _build_template(self) -> None:
        """Bring a new template to the blueprint. A template that fails half-way is dropped.

        What a revision makes for the whole server, such as a role, stays there, and is told.
        """
        roles = self._role_names()
        try:
            self.apply(replace(self.server, database=self._template))
            self._note_use(_PASSING if self.given else "")
            self._finish_template()
        except BaseException:
            with suppress(psycopg.Error):
                self._drop_template(self._template)
            raise
        finally:
            self._tell_new_roles(roles)

    def _role_names(self) -> set[str]:
        """The roles of the server. They belong to no database."""
        return {str(name) for (name,) in self._main.execute("SELECT rolname FROM pg_roles")}

    def _tell_new_roles(self, before: set[str]) -> None:
        """Tell which roles have come to a given server while the revisions ran."""
        if not self.given:
            return
        with suppress(psycopg.Error):
            for role in sorted(self._role_names() - before):
                self.say(
                    f"postgres: the role {role} has come to {self.server} while the revisions of "
                    f"{self.blueprint.name} ran. A role belongs to the whole server, so it stays "
                    "after the tests. A revision that creates it must pass over one that is there."
                )

    def _has_template(self) -> bool:
        """Whether the template is there and complete."""
        row = self._main.execute(
            "SELECT datistemplate FROM pg_database WHERE datname = %s", (self._template,)
        ).fetchone()
        return bool(row and row[0])

    def _finish_template(self) -> None:
        """Forbid connections to the template, so that the server can always copy it.

        The flag is set last, because the flag says that the template is complete.
        """
        name = identifier(self._template)
        self._main.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        self._main.execute(f"ALTER DATABASE {name} WITH IS_TEMPLATE true")

    def _comment_of(self, database: str) -> str:
        """The comment of a database. Empty where there is none."""
        row = self._main.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s",
            (database,),
        ).fetchone()
        return str(row[0] or "") if row else ""

    def _note_use(self, how_long: str) -> None:
        """Write today into the template's comment, as the day of its last use."""
        today = dt.datetime.now(dt.UTC).date().isoformat()
        comment = today + how_long
        if self._comment_of(self._template) != comment:
            name = identifier(self._template)
            self._main.execute(f"COMMENT ON DATABASE {name} IS {_sql_literal(comment)}")

    def _drop_unused_templates(self) -> None:
        """Drop the templates of given servers that no session uses any more.

        These may also be templates of sessions that were killed.
        """
        using = (_USING, _template_key(self._template))
        self._main.execute("SELECT pg_advisory_unlock_shared(%s, %s)", using)
        patterns = (f"{_TEMPLATE}%", f"%{_PASSING}")
        rows = self._main.execute(_PASSING_TEMPLATES, patterns).fetchall()
        for (name,) in rows:
            if not _TEMPLATE_NAME.fullmatch(name):
                continue
            with self._making_lock(_template_key(name)), self._template_lock(name) as is_unused:
                if is_unused:
                    self._drop_template(name)

    @contextmanager
    def _template_lock(self, template: str) -> Iterator[bool]:
        """Whether no session uses the template.

        If so, no session can begin to use it until the end of the block.
        """
        key = (_USING, _template_key(template))
        row = self._main.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
        is_locked = bool(row and row[0])
        try:
            yield is_locked
        finally:
            if is_locked:
                self._main.execute("SELECT pg_advisory_unlock(%s, %s)", key)

    def _drop_old_templates(self) -> None:
        """Drop the templates that no session has used for `_KEPT_DAYS`."""
        values = (f"{_TEMPLATE}%", self._template, _KEPT_DAYS)
        rows = self._main.execute(_OLD_TEMPLATES, values).fetchall()
        for name, comment in rows:
            # Another database may have a name that begins alike, and a comment by its owner.
            if _TEMPLATE_NAME.fullmatch(name) and _DAY.match(comment):
                self._drop_template(name)

    def _drop_template(self, name: str) -> None:
        with suppress(psycopg.errors.InvalidCatalogName):
            self._main.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
        self._drop_database(name)

    def _drop_half_made(self) -> None:
        """Drop the templates whose makers died before they were complete.

        A maker holds a lock as long as it makes a template, and writes the comment afterwards.
        """
        for (name,) in self._main.execute(_HALF_MADE, (f"{_TEMPLATE}%",)).fetchall():
            if not _TEMPLATE_NAME.fullmatch(name):
                continue
            key = (_MAKING, _template_key(name))
            row = self._main.execute("SELECT pg_try_advisory_lock(%s, %s)", key).fetchone()
            if row != (True,):
                continue
            with suppress(*_NOT_LEFT):
                self._main.execute(f"DROP DATABASE {identifier(name)}")
            self._main.execute("SELECT pg_advisory_unlock(%s, %s)", key)

    # --- copies that dead processes have left

    def _drop_leftovers(self) -> None:
        """Drop the copies of processes that are gone.

        On a given server nothing is dropped when one of the copies was written to by others.
        """
        rows = self._main.execute("SELECT datname FROM pg_database ORDER BY datname").fetchall()
        names = [str(name) for (name,) in rows]
        left = [name for name in names if self._is_left(name)]
        if not self.given:
            for name in left:
                self._drop_database(name)
            return
        for name in left:
            self._refuse_written(name)
        for name in left:
            self._drop_unwritten(name)

    def _drop_left_meanwhile(self) -> None:
        """Drop the copies of workers that have died since this one began.

        The next session names those that others have written to.
        """
        rows = self._main.execute("SELECT datname FROM pg_database ORDER BY datname").fetchall()
        for (name,) in rows:
            if self._is_left(name):
                with suppress(BootstrapError):
                    self._drop_unwritten(name)

    def _is_of_run(self, comment: str) -> bool:
        """Whether the comment is of a copy that a test of the same run used."""
        found = _IN_TEST.fullmatch(comment)
        return bool(self.run) and found is not None and found["run"] == self.run

    def _is_left(self, database: str) -> bool:
        """Whether the database is a copy of a process that is gone."""
        match = _COPY.fullmatch(database)
        return match is not None and self._is_gone(int(match[1], 16))

    def _is_gone(self, owner: int) -> bool:
        """Whether no living process has the lock of this owner."""
        if owner == self._owner:
            return False
        row = self._main.execute("SELECT pg_try_advisory_lock(%s, %s)", (_ALIVE, owner)).fetchone()
        is_locked = bool(row and row[0])
        if is_locked:
            self._main.execute("SELECT pg_advisory_unlock(%s, %s)", (_ALIVE, owner))
        return is_locked

    def _refuse_written(self, name: str, *, now_called: str = "") -> None:
        """Raise `ConfigurationError` for a copy that was written to after its session's end.

        Such a copy belongs to whoever wrote. `now_called` is the copy's present name, if the copy
        was renamed.
        """
        try:
            found = self._foreign_content(now_called or name)
        except DatabaseMissing:
            return
        if found:
            raise self.written_by_others(
                f"database {name}",
                found,
                way_out=f'If it may go: DROP DATABASE "{name}". '
                f'To keep it: ALTER DATABASE "{name}" RENAME TO another name.',
            )

    def _foreign_content(self, name: str) -> Content:
        """The part of a copy's content that the copy's session does not vouch for."""
        comment = self._comment_of(name)
        if self._is_of_run(comment):
            return Content()
        if in_test := _IN_TEST.fullmatch(comment):
            comment = _LIVED + in_test["moment"]
        with self._open_connection(name) as connection:
            seal = Seal.read(comment)  # an earlier version kept the copy, and sealed it
            if seal:
                return postgres_content.objects_and_rows(connection).besides(seal.digests)
            if comment and not comment.startswith(_LIVED):
                first_line = comment.splitlines()[0]
                return Content((Thing("comment", name=first_line[:_SHOWN]),))
            if comment:
                since = postgres_content.Since.read(comment.removeprefix(_LIVED))
            else:  # the session was killed before the comment was written
                since = self._creation_moment(name)
            return postgres_content.written_since(connection, since)

    def _creation_moment(self, name: str) -> postgres_content.Since:
        """The moment in which a database was made, or its settings were last changed."""
        row = self._main.execute(
            "SELECT xmin::text::bigint + 1 FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
        return postgres_content.Since(int(row[0]) if row else 0)

    def _drop_unwritten(self, name: str) -> None:
        """Drop a copy after a last look, under a name that nobody knows.

        The server renames only a database that nobody is connected to. It waits 5 s for connections
        that end, and then refuses. Once the copy is renamed, nobody can come and write.
        """
        aside = name if name.endswith(_ASIDE) else f"{name}{_ASIDE}"
        try:
            if aside != name:
                self._rename_database(name, aside)
            try:
                self._refuse_written(name, now_called=aside)
            except BootstrapError:
                if aside != name:
                    self._rename_database(aside, name)
                raise
            self._main.execute(f"DROP DATABASE IF EXISTS {identifier(aside)}")
        except psycopg.errors.InvalidCatalogName:
            return  # another session was quicker
        except psycopg.errors.ObjectInUse as exc:
            reason = exc.diag.message_detail or "somebody is connected to it"
            self.say(
                f"postgres: database {name} of a test run that has ended is left alone: {reason}"
            )

    def _rename_database(self, name: str, new_name: str) -> None:
        self._main.execute(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(new_name)}")


def _template_key(template: str) -> int:
    """The second key of a template's advisory locks."""
    return int(template.removeprefix(f"{_TEMPLATE}_")[:7], 16)


def _sql_literal(text: str) -> str:
    """The text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
