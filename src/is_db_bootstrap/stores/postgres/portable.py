"""The revisions of a portable blueprint on MariaDB and SQLite.

These are no stores of a run: there is no lock, no schema and no verification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import column, create_engine, event, func, inspect, select, table, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    StoreBusy,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from is_db_bootstrap.guests import GuestFailed
from is_db_bootstrap.results import Change, RecordChange
from is_db_bootstrap.settings.address import Address, AddressError, servers
from is_db_bootstrap.settings.secrets import without_addresses
from is_db_bootstrap.stores.postgres import portable_elsewhere
from is_db_bootstrap.stores.postgres.alembic import (
    config,
    nowhere,
    undo,
    upgrade_to,
)
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.elsewhere import IgnoredTables
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.made_tables import surely_made
from is_db_bootstrap.stores.postgres.moves import (
    Loss,
    RowsWouldBeLost,
    end_of,
    undone_down_to,
)
from is_db_bootstrap.stores.postgres.named_revisions import known
from is_db_bootstrap.stores.postgres.portable_watch import PortableWatch, begun, forget
from is_db_bootstrap.stores.postgres.revisions import TABLE, Chain
from is_db_bootstrap.stores.postgres.stamped import record_change

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.portable_trial import Seen

_ESCAPE = "Percent-encode special characters of the password: %40 for @, %2F for /, %25 for %."
#: MariaDB's error numbers and SQLite's words; what is not here is a statement that was refused.
REFUSED_LOGIN = {1044, 1045, 1142, 1227, 1698}
BUSY = {1205, 1213, "database is locked"}
UNREACHABLE = {
    1040,
    1053,
    2002,
    2003,
    2006,
    2013,
    2055,
    "unable to open database file",
    "disk I/O error",
}


#: Options of PyMySQL beside which it does not check with `ssl_ca`.
_SETS_CA_ASIDE = {"ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"}
_TRUE = {"1", "t", "true", "y", "yes", "on"}


class PortableDatabase:
    """One database at a SQLAlchemy `url`.

    Such as `sqlite:///file.db` or `mysql+pymysql://user:password@host/name`. Raises
    `ConfigurationError` for a blueprint that is not portable, and for an address that cannot be
    one.
    """

    def __init__(self, blueprint: Blueprint, url: str) -> None:
        if not blueprint.portable or blueprint.migrations is None:
            raise ConfigurationError(
                f"{blueprint.name} is for PostgreSQL only: its revisions are not declared "
                "portable.",
                hint="Give an address such as postgresql://user@host/name.",
            )
        self._blueprint = blueprint
        self._migrations = blueprint.migrations
        self._chain = Chain.read(blueprint.migrations)
        try:
            self._url: URL = taken_apart(url)
            self._engine = engine(self._url)
        except AddressError as exc:
            raise ConfigurationError(f"The address {exc}.", hint=_ESCAPE) from None
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as exc:
            raise ConfigurationError(
                f"The address cannot be used: {without_addresses(str(exc))}.",
                hint="MariaDB needs the extra mysql (PyMySQL).",
            ) from exc
        except (TypeError, ValueError) as exc:  # how SQLAlchemy reads numbers among the options
            raise _wrong_options(exc) from exc
        self.target = self._url.render_as_string(hide_password=True)
        self._store = self._url.get_backend_name()
        if self._store != "sqlite" and not self._url.database:
            raise ConfigurationError(
                f"{self.target} names no database.",
                hint=f"Add one, as in {self.target.rstrip('/')}/{blueprint.name}.",
            )

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def create(self) -> None:
        """Create the database if it is missing; SQLite does so by itself."""
        if self._url.get_backend_name() == "sqlite" or not self._url.database:
            return
        server = engine(self._url.set(database=""))
        with self._errors(), server.connect() as connection:
            name = server.dialect.identifier_preparer.quote(self._url.database)
            connection.execute(
                text(
                    f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE "
                    "utf8mb4_bin"
                )
            )
        server.dispose()

    def version(self) -> str:
        """The name and version of the engine."""
        with self._errors(), self._engine.connect() as connection:
            number = ".".join(map(str, connection.dialect.server_version_info or ()))
            return f"{connection.dialect.name} {number}"

    def current(self) -> str | None:
        """The recorded revision; several, joined by commas, between the branches of a merge."""
        return ", ".join(self._heads()) or None

    def _heads(self) -> tuple[str, ...]:
        """The recorded revisions, sorted by their ids."""
        with self._errors(), self._engine.connect() as connection:
            return _recorded_heads(connection)

    def upgrade(
        self, target: str = "head", *, ignored_version_tables: Sequence[str] = ()
    ) -> list[str]:
        """Up to `target` (`head`, a revision, `+N`); the revisions that were applied.

        `ignored_version_tables` are version tables that are not ours (see `IgnoredTables`). Their
        schema is the name of the database, and `main` on SQLite.
        """
        ignored = IgnoredTables(ignored_version_tables, KIND.ignored_variable)
        done = self._done()
        self._refuse_half_done(done)
        pending = [r for r in self._chain.order if r not in done]
        if target.startswith("+"):
            pending = pending[: int(target)]
        elif target != "head":
            passed = self._chain.until([known(self._chain, target)])
            pending = [r for r in pending if r in passed]
        if pending:
            unrecorded = [r for r in self._chain.order if r not in done]
            self._refuse_recorded_elsewhere(unrecorded, ignored)
            self._refuse_taken(pending)
        applied = set(done)
        for revision in pending:
            applied.add(revision)
            self._ran("upgrade", revision, self._chain.heads(applied))
        return pending

    def downgrade(self, target: str, *, drop_rows: bool = False) -> list[str]:
        """Down to `target` (`base`, a revision, `-N`); the revisions that were undone.

        Raises `RowsWouldBeLost`.
        """
        done = self._done()
        self._refuse_half_done(done)
        undone = undone_down_to(target, self._chain, done, self._store)
        if undone and not drop_rows:
            losses, unknown = self._losses(done, undone)
            if losses or unknown:
                kept = [revision for revision in done if revision not in undone]
                to = end_of(self._chain, kept, len(undone))
                raise RowsWouldBeLost(self._blueprint.name, losses, unknown, to=to)
        left = set(done)
        for revision in undone:
            left.remove(revision)
            self._ran("downgrade", revision, self._chain.heads(left))
        return undone

    def foresee_stamp(self, target: str) -> RecordChange:
        """What `stamp` would change. The database is only read."""
        begun = self._begun()
        return record_change(
            self._chain,
            self._chain.until([head for head in self._heads() if head in self._chain.parents]),
            self._heads(),
            [head for head in self._stamped_heads(target) if head in self._chain.parents],
            [" ".join(begun)] if begun is not None else [],
        )

    def _stamped_heads(self, target: str) -> tuple[str, ...]:
        wanted = self._chain.head if target == "head" else target
        return () if wanted == "base" else (wanted,)

    def stamp(self, target: str) -> list[str]:
        """Record `target` and change nothing else."""
        wanted = self._chain.head if target == "head" else target
        marked = self._begun() is not None
        heads = self._stamped_heads(target)
        recorded = self._heads() == heads
        if not recorded:
            self._ran("stamp", wanted, heads)
        if marked:
            self._forget()
        return [wanted] if marked or not recorded else []

    def conflict(self) -> StoreConflict | None:
        """Why `upgrade` would refuse what is recorded; None when it would not."""
        try:
            self._refuse_half_done(self._done())
        except StoreConflict as exc:
            return exc
        return None

    def _done(self) -> tuple[str, ...]:
        heads = self._heads()
        for revision in heads:
            if revision not in self._chain.parents:
                raise StoreConflict(
                    self._store,
                    f"{self.target} is at revision {revision}, which is unknown to "
                    f"{self._blueprint.name}.",
                )
        return self._chain.until(heads)

    def _refuse_recorded_elsewhere(self, pending: Sequence[str], ignored: IgnoredTables) -> None:
        """Raise `StoreConflict` when another table records pending revisions, or may do so."""
        say_so = f"If it is a backup or another application's, say so: {KIND.ignored_variable}="
        try:
            with self._errors(), self._engine.connect() as connection:
                found = portable_elsewhere.find(connection, pending, ignored)
        except portable_elsewhere.UnreadableTable as exc:
            raise StoreConflict(
                self._store,
                f"{exc} of {self.target} may record revisions of {self._blueprint.name}, and could "
                "not be looked into. Nothing was changed.",
                hint=f"Run again when it can be read. {say_so}{exc.place}",
                subject=exc.place,
            ) from exc
        if found is not None:
            raise StoreConflict(
                self._store,
                f"Revision {', '.join(found.revisions)} of {self._blueprint.name} is recorded in "
                f"{found} of {self.target}, not in {TABLE}. Nothing was changed: the revisions "
                "would be run a second time.",
                hint="If it is yours, record the same: `is-db-bootstrap migrate stamp "
                f"{found.revisions[-1]}`. {say_so}{found}",
                subject=str(found),
            )

    def _refuse_taken(self, pending: Sequence[str]) -> None:
        """Raise `StoreConflict` if a table that is due exists, before anything is changed.

        No revision is run for that: it would do again whatever it does elsewhere. A table that
        only a run would show is refused by the database, when its revision gets there.
        """
        due = set(surely_made(self._migrations, pending))
        with self._errors(), self._engine.connect() as connection:
            taken = sorted(due & set(inspect(connection).get_table_names()))
        if taken:
            raise StoreConflict(
                self._store,
                f"{self.target} has {', '.join(taken)} already, but no revision that made them "
                "is recorded.",
                hint="Drop what an interrupted run left and run again; if these revisions made "
                "them, say so with `is-db-bootstrap migrate stamp`; else name another "
                "database.",
                subject=taken[0],
            )

    def _begun(self) -> tuple[str, str] | None:
        with self._errors(), self._engine.connect() as connection:
            return begun(connection)

    def _forget(self) -> None:
        with self._errors(), self._engine.connect() as connection:
            forget(connection)

    def _refuse_half_done(self, done: tuple[str, ...]) -> None:
        """Raise `StoreConflict` for a step that has committed a part and did not end."""
        found = self._begun()
        if found is None:
            return
        direction, revision = found
        if (revision in done) == (direction == "upgrade"):
            self._forget()  # it ended, and the process died before it removed the mark
            return
        raise StoreConflict(
            self._store,
            f"The {direction} of revision {revision} has committed a part of its work and did "
            f"not end, so {self.target} is between two revisions. It is not run again by itself.",
            hint=self._ways_out(direction, revision, done),
            subject=revision,
        )

    def _ways_out(self, direction: str, revision: str, done: tuple[str, ...]) -> str:
        """What a person can do about a step that is half done."""
        before = done[-1] if done else "base"
        index = self._chain.order.index(revision) if revision in self._chain.order else 0
        undone = self._chain.order[index - 1] if index else "base"
        stamp = "is-db-bootstrap migrate stamp"
        return (
            f"Look at what it did. If that is complete, or you complete it, record it: `{stamp} "
            f"{revision if direction == 'upgrade' else undone}`. If you take it back (drop the "
            f"tables that it made), let it run again: `{stamp} {before}`."
        )

    def _ran(self, act: str, revision: str, heads: tuple[str, ...]) -> None:
        """Let Alembic upgrade to `revision`, undo or stamp it.

        Reads back that `heads` are left.
        """
        change = Change(revision, "revision" if act == "upgrade" else act)
        watched: list[PortableWatch] = []
        try:
            with self._errors(change), self._engine.connect() as connection, running_alembic():
                wanted = config(self._blueprint, "", connection)
                try:
                    _ACTS[act](wanted, revision)
                finally:
                    watched += filter(None, [wanted.attributes.get("watch")])
        except StoreError as exc:
            raise self._after_failure(
                exc, act, change, done=sum(watch.done for watch in watched)
            ) from exc
        recorded = self._read_back()
        if recorded != tuple(sorted(heads)):
            raise HalfDone(
                self._store,
                f"Revision {revision} ran to its end, but {self.target} records "
                f"{', '.join(recorded) or 'base'} instead of {', '.join(heads) or 'base'}.",
                change=change,
                hint="Look at what it did before anything is run again, then say what holds with "
                "migrate stamp.",
            )

    def _after_failure(self, exc: StoreError, act: str, change: Change, *, done: int) -> StoreError:
        """The error of a step that failed: `exc`, unless a part of the step stays."""
        try:
            found = self._begun()
            if found != (act, change.name) or not done:
                self._forget()
                return exc
        except StoreError:  # the next run finds the mark, if there is one
            return exc
        return HalfDone(
            self._store,
            f"Revision {change.name} committed a part of its work and then failed: {exc.message}",
            change=change,
            hint=self._ways_out(act, change.name, self._done()),
        )

    def _read_back(self) -> tuple[str, ...]:
        """The recorded revisions, seen on a new connection."""
        if self._url.database in {None, "", ":memory:"}:
            return self._heads()
        reader = engine(self._url)
        try:
            with self._errors(), reader.connect() as connection:
                return _recorded_heads(connection)
        finally:
            reader.dispose()

    def _losses(self, done: Sequence[str], undone: Sequence[str]) -> tuple[list[Loss], list[str]]:
        """What a downgrade may lose, and what cannot be found out.

        What it does is seen in a SQLite database in memory; how many rows that is, in the real one.
        """
        from is_db_bootstrap.stores.postgres.portable_trial import tables

        try:
            seen = self._tried_downgrade(done, undone)
        except (BootstrapError, GuestFailed) as exc:
            said = getattr(exc, "message", exc)
            unknown = (
                "Whether the downgrade would lose rows is not known: its trial in a SQLite "
                f"database in memory failed: {said}"
            )
            return [], [unknown]
        with self._errors(), self._engine.connect() as connection:
            there = tables(connection)
            losses = [
                replace(loss, rows=_count(connection, loss.table, loss.column))
                for loss in _lost(seen)
                if loss.table in there and (not loss.column or loss.column in there[loss.table])
            ]
        return [loss for loss in losses if loss.rows], list(self._unknown(seen, set(there)))

    def _tried_downgrade(self, done: Sequence[str], undone: Sequence[str]) -> Seen:
        """The downgrade in a SQLite database in memory.

        Meanwhile the variables of the environment name addresses where nobody listens.
        """
        from is_db_bootstrap.stores.postgres.portable_trial import tried

        trial = engine(make_url("sqlite://"))
        try:
            change = Change(undone[0], "downgrade")
            errors = self._errors(change, target="SQLite")
            with errors, nowhere(), trial.connect() as connection:
                return tried(connection, self._blueprint, self._chain.heads(done), undone)
        finally:
            trial.dispose()

    def _unknown(self, seen: Seen, there: set[str]) -> Iterator[str]:
        """Sentences on what the trial cannot have seen."""
        if seen.left and self._store == "sqlite":
            yield (
                f"The downgrade of {', '.join(seen.left)} leaves its transaction, "
                "so a failure in it would leave half of it done."
            )
        others = sorted(there ^ set(seen.before))
        if seen.looked and others:
            yield (
                f"The downgrade of {', '.join(seen.looked)} asks which tables there are, and "
                f"{', '.join(others)} is in one of database and trial only, so what it does is "
                "not known."
            )
        if seen.bound and self._store != "sqlite":
            yield (
                f"The downgrade of {', '.join(seen.bound)} asks for its database. Its trial was "
                f"in SQLite, so what it does on {self._store} is not known."
            )

    @contextmanager
    def _errors(self, change: Change | None = None, *, target: str = "") -> Iterator[None]:
        """Translate what the engine, Alembic and, of a `change`, the revision's own code raise.

        `target` is who says so, where that is not our own database.
        """
        target = target or self.target
        try:
            yield
        except DBAPIError as exc:
            raise _translated(exc, self._store, target) from exc
        except CommandError as exc:
            raise StoreConflict(self._store, f"{target}: {exc}.") from exc
        except BootstrapError:
            raise
        except Exception as exc:
            if change is None:
                raise
            failed = exc if isinstance(exc, GuestFailed) else GuestFailed(exc)
            raise ChangeFailed(
                self._store,
                f"Revision {change.name} failed in its own code: {failed.general}.",
                change=change,
                hint="Correct the file and run again.",
                detail=failed.detail,
            ) from exc


def _translated(exc: DBAPIError, store: str, target: str) -> StoreError:
    words = " ".join(str(exc.orig).split())
    code = exc.orig.args[0] if exc.orig and exc.orig.args else words
    if code in REFUSED_LOGIN:
        return AccessDenied(
            store, f"{target}: {words}.", hint="Check user, password and privileges in the address."
        )
    if code in BUSY:
        return StoreBusy(
            store, f"{target}: {words}.", hint="Run again when the other session has ended."
        )
    if code in UNREACHABLE:
        return StoreUnavailable(
            store,
            f"{target}: {words}.",
            hint="Check the address, and that the server or folder is there.",
        )
    return StoreConflict(
        store,
        f"{target}: {words}.",
        hint="What ran before it stays; repair the cause and run again.",
    )


def taken_apart(text: str) -> URL:
    """SQLAlchemy's URL of an address, taken apart as every other one is.

    SQLite's names a file and has no user part, so it is left to SQLAlchemy. Raises `AddressError`,
    and `ArgumentError` for what SQLAlchemy does not take.
    """
    if text.partition(":")[0].partition("+")[0] == "sqlite":
        return make_url(text)
    found = Address.split(text)
    _refuse_weaker(found)
    host, port = servers(found.hosts)[0]
    return URL.create(
        found.scheme,
        username=found.username or None,
        password=found.password or None,
        host=host or None,
        port=int(port) if port else None,
        database=unquote(found.path.removeprefix("/")) or None,
        query=dict(found.options),
    )


def _refuse_weaker(address: Address) -> None:
    """Raise `ConfigurationError` for an option that weakens or replaces a CA file of MariaDB.

    With `ssl_ca` alone, PyMySQL checks the certificate and the host name. With any `ssl_verify_…`
    beside it, PyMySQL forgets the file.
    """
    names = {name for name, _ in address.options}
    if not names & {"ssl_ca", "ssl_capath"}:
        return
    for name, value in address.options:
        is_off = name == "ssl_check_hostname" and value.lower() not in _TRUE
        if is_off or name in _SETS_CA_ASIDE:
            raise ConfigurationError(
                f"The address {address} names a CA file, but says {name}={value}.",
                hint=f"Leave {name} out: certificate and host name are checked with the CA file.",
            )


def _wrong_options(exc: Exception) -> ConfigurationError:
    """The error of an address whose options the driver does not take."""
    return ConfigurationError(
        "The address cannot be used: "
        f"{type(exc).__name__}: {' '.join(without_addresses(str(exc)).split())}.",
        hint="Check the options after the ? of the address.",
    )


def engine(url: URL) -> Engine:
    """An engine whose connections are in UTC.

    On SQLite, they enforce foreign keys and run schema statements in transactions. A connection
    raises `ConfigurationError` for options that its driver does not take.
    """
    found = create_engine(url, hide_parameters=True)
    backend = url.get_backend_name()

    @event.listens_for(found, "do_connect")
    def connect(dialect: Any, _: Any, args: Any, options: Any) -> Any:
        try:
            return dialect.connect(*args, **options)
        except dialect.loaded_dbapi.Error:  # which SQLAlchemy translates
            raise
        except Exception as exc:
            # A driver looks at its options first, and raises what Python raises of them.
            raise _wrong_options(exc) from exc

    @event.listens_for(found, "connect")
    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(
            "PRAGMA foreign_keys=ON" if backend == "sqlite" else "SET time_zone = '+00:00'"
        )
        cursor.close()
        if backend == "sqlite":
            connection.isolation_level = (
                None  # else the sqlite3 module begins no transaction before DDL
            )

    if backend == "sqlite":
        event.listen(found, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return found


def _stamp(wanted: Config, revision: str) -> None:
    """Record `revision` alone, whatever is recorded."""
    command.stamp(wanted, revision, purge=True)


#: What a move does with one revision.
_ACTS: dict[str, Callable[[Config, str], None]] = {
    "upgrade": upgrade_to,
    "downgrade": undo,
    "stamp": _stamp,
}


def _recorded_heads(connection: Connection) -> tuple[str, ...]:
    """What the version table has, sorted."""
    context = MigrationContext.configure(connection, opts={"version_table": TABLE})
    return tuple(sorted(context.get_current_heads()))


def _lost(seen: Seen) -> Iterator[Loss]:
    """What a downgrade drops or changes, not counted yet."""
    for name, columns in seen.before.items():
        if name not in seen.after:
            yield Loss(name, None)
            continue
        now = seen.after[name]
        for column_, kind in sorted(columns.items()):
            if column_ not in now:
                yield Loss(name, None, column_)
            elif now[column_] != kind:
                yield Loss(name, None, column_, f"type {kind} to {now[column_]}")
        touches = seen.touched.get(name, ())
        if touches:
            writes = [touch for touch in touches if touch.writes]
            how = " and ".join(dict.fromkeys(touch.how for touch in writes or touches))
            yield Loss(name, None, how=how, sent_by=tuple(dict.fromkeys(map(str, touches))))


def _count(connection: Connection, name: str, of: str = "") -> int:
    counted = select(func.count(column(of)) if of else func.count()).select_from(table(name))
    return int(connection.execute(counted).scalar_one())
