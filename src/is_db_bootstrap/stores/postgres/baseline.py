"""The baseline of a database: what fills it before the first revision, and what is recorded then.

It runs only in an empty database: no revision is recorded, and no schema holds an object. A new
look under the lock finds out. The revision is recorded in the same transaction wherever that is
one of ours: that of an SQL file, and that of a function which takes a connection. Any other
function may commit what it likes. So `begun` marks it, and what it has left decides whether it may
run again: nothing, when the database is still empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    Interrupted,
    StoreBusy,
    StoreConflict,
)
from is_db_bootstrap.guests import GuestFailed
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.postgres import begun, lineage_table, own_schema
from is_db_bootstrap.stores.postgres.begun import BASELINE, Begun, Fate
from is_db_bootstrap.stores.postgres.connection import identifier, settings_query
from is_db_bootstrap.stores.postgres.errors import NAME, DatabaseMissing, errors, looking
from is_db_bootstrap.stores.postgres.sql_file import SqlFile

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Baseline, Blueprint
    from is_db_bootstrap.stores.postgres.baseline_function import BaselineFunction
    from is_db_bootstrap.stores.postgres.history import History
    from is_db_bootstrap.stores.postgres.revisions import Chain, Record
    from is_db_bootstrap.stores.postgres.team_connections import TeamConnections
    from is_db_bootstrap.stores.postgres.team_run import TeamRun
    from is_db_bootstrap.stores.postgres.team_watch import TeamWatch

#: How many objects a message names.
_NAMED = 5
#: What is in a schema depends on that schema, whatever its kind is (manual, 53.18 pg_depend). What
#: belongs to an extension came with it. Parts of a table, such as its indexes, depend on the table.
_OBJECTS = f"""
    SELECT found.type, found.identity
    FROM pg_depend d
    JOIN pg_namespace n ON n.oid = d.refobjid
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) AS found
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n'
      AND d.classid <> 'pg_extension'::regclass
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '{own_schema.SCHEMA}')
      AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s)
      AND NOT EXISTS (
          SELECT FROM pg_depend e
          WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e'
      )
      AND (d.classid <> 'pg_class'::regclass OR d.objid <> coalesce(to_regclass(%(table)s), 0))
    ORDER BY 1, 2 LIMIT {_NAMED + 1}
"""  # noqa: S608 - constants
_NUMBER = b"SELECT pg_current_xact_id()::text"
_PATH = b"SELECT current_setting('search_path')"
_IS_THERE = b"SELECT to_regclass(%s) IS NOT NULL"
_HAS_SCHEMA = b"SELECT to_regnamespace(%s) IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run of a store lends to its baseline.

    `reader` gives the session that looks, `session` a new one, and `engine` an engine whose
    connections another thread can end. `connections` sees those that a function opens itself.
    """

    reader: Callable[[], psycopg.Connection[Any]]
    session: Callable[[], psycopg.Connection[Any]]
    engine: Callable[[], Engine]
    connections: Callable[[], TeamConnections]
    held_lock: Callable[[], tuple[int, int] | None]
    has_ended: Callable[[], bool]


class BaselineRun:
    """Fills an empty database as `declared`, and records its revision.

    `target` is how messages call the database, and `address` leads there. With `only_schema`, only
    that schema has to be empty: a blueprint whose schema was set lives there.
    """

    def __init__(
        self,
        declared: Baseline,
        tools: Tools,
        *,
        target: str,
        address: str,
        only_schema: str | None,
        blueprint: Blueprint,
        chain: Chain,
        history: History,
        team: TeamRun | None,
    ) -> None:
        self.declared = declared
        self._tools = tools
        self._target = target
        self._address = address
        self._only_schema = only_schema
        self._blueprint = blueprint
        self._chain = chain
        self._history = history
        self._team = team
        self._heads: tuple[str, ...] | None = None

    # --- looking

    @property
    def heads(self) -> tuple[str, ...]:
        """What is recorded afterwards. Raises `StoreConflict` when there is no such revision."""
        if self._heads is None:
            from is_db_bootstrap.stores.postgres.named_revisions import named_revisions

            self._heads = named_revisions(
                self._blueprint, self._chain, self.declared.revision or "heads"
            )
        if not self._heads:
            raise ConfigurationError(
                f"baseline_revision {self.declared.revision!r} names no revision.",
                hint="Name the revision whose tables the baseline makes.",
            )
        return self._heads

    @property
    def change(self) -> Change:
        """The step that fills the database."""
        nature = Nature.NEITHER if self.declared.file is None else Nature.ATOMIC
        recorded = ", ".join(self.heads)
        return Change(self.declared.source, BASELINE, f"then recorded as {recorded}", nature)

    def with_statements(self, change: Change) -> Change:
        """The step with the statements of its file. Those of a function are not known."""
        if self.declared.file is None:
            return replace(change, is_code=True)
        from is_db_bootstrap.stores.postgres.planned_sql import file_statements

        return replace(change, statements=file_statements(self.declared.file))

    def planned(self, reader: psycopg.Connection[Any] | None, record: Record) -> Change:
        """The step, if the database of `reader` is empty. None as a reader: it is not made yet.

        Raises `StoreConflict` when it is not empty, and `ConfigurationError` for a file that cannot
        be run.
        """
        change = self.change
        if self.declared.file is not None:
            SqlFile(self.declared.file)
        if reader is not None:
            self._refuse_filled(reader, record)
        return change

    def begun_before(self, record: Record) -> tuple[str, ...]:
        """The baseline, if an earlier run has begun it."""
        marked = self._mark(record)
        return (self.declared.source,) if marked else ()

    def _mark(self, record: Record) -> Begun | None:
        found = (mark for mark in self._history.marked(record) if mark.direction == BASELINE)
        return next(found, None)

    def _refuse_filled(self, reader: psycopg.Connection[Any], record: Record) -> None:
        found = self._objects(reader)
        mark = self._mark(record)
        if mark is not None and begun.fate(reader, mark) is Fate.AT_WORK:
            raise StoreBusy(
                NAME,
                f"An earlier run of the baseline {mark.revision} is still at work.",
                hint="Wait for its session, or end it (pg_stat_activity).",
                subject=mark.revision,
            )
        if not found or (mark is not None and self._history.may_retry(mark)):
            return
        if self._history.is_locked_elsewhere():
            return  # the run that holds the lock may be filling it just now
        if mark is not None:
            raise StoreConflict(
                NAME,
                f"The baseline {mark.revision} did not end, and {_told(found)} of {self._target} "
                "is there. It is not run again by itself.",
                hint=self._ways_out(mark.revision),
                subject=found[0],
            )
        raise StoreConflict(
            NAME,
            f"{self._target} records no revision and is not empty: {_told(found)} is there. So the "
            f"baseline {self.declared.source} is not run.",
            hint="If these tables are as a revision leaves them, record that one: "
            f"`is-db-bootstrap migrate stamp {', '.join(self.heads)}`, or an older one. Else give "
            "the baseline an empty database.",
            subject=found[0],
        )

    def _objects(self, reader: psycopg.Connection[Any]) -> list[str]:
        """What is in the schemas that count. Empty: the database is."""
        given = {"schema": self._only_schema, "table": self._history.table}
        with looking(self._target, "what the database holds"):
            rows = psycopg.Cursor(reader).execute(_OBJECTS.encode(), given).fetchall()
        return [f"{kind} {name}" for kind, name in rows]

    def _ways_out(self, name: str) -> str:
        heads = ", ".join(self.heads)
        return (
            "Look at what it did. If that is complete, or you complete it, record it: "
            f"`is-db-bootstrap migrate stamp {heads}`. If you take it all back, apply again. If it "
            "may run over what is there, let it run again: "
            f"`is-db-bootstrap apply --retry {name}`."
        )

    # --- running

    def run(self) -> None:
        """Fill the database, record the revision, and read both back."""
        change = self.change
        reader = self._tools.reader()
        self._forget_mark(reader)
        lineage_table.make(reader)  # outside of the transaction, which would fail with it
        if self.declared.file is not None:
            self._run_file(SqlFile(self.declared.file), change)
        else:
            self._run_function(change)
        self._confirm(change)

    def _forget_mark(self, reader: psycopg.Connection[Any]) -> None:
        """Delete the mark of an earlier run that left nothing, or that a person lets run again."""
        record = self._history.read(reader)
        self._refuse_filled(reader, record)
        if mark := self._mark(record):
            self._history.marks.forget(mark)

    def _run_file(self, script: SqlFile, change: Change) -> None:
        with (
            errors(self._target, change=change),
            self._tools.session() as session,
            session.transaction(),
        ):
            path = session.execute(_PATH).fetchone()
            before = session.execute(_NUMBER).fetchone()
            script.run(session, self._target, change)
            session.execute(b"RESET SESSION AUTHORIZATION")
            # A dump sets none, and the version table may be found by it only.
            settings = {"search_path": str(path[0]) if path else ""}
            session.execute(*settings_query(settings, in_transaction=True))
            if session.execute(_NUMBER).fetchone() != before:
                raise self._half_done("has left its transaction", change)
            self._refuse_nothing_made(session, change)
            self._record(session, change)

    def _run_function(self, change: Change) -> None:
        from is_db_bootstrap.stores.postgres.baseline_function import Call

        watch = self._new_watch()
        try:
            with self._as_guest(watch, change) as function:
                if function.call is Call.CONNECTION:
                    self._call_with_connection(function, watch, change)
                    return
                given: tuple[object, ...] = ()
                if function.call is Call.ENGINE:
                    given = (self._tools.engine(),)
                elif function.call is Call.ADDRESS:
                    given = (self._address,)
                with watch.running(f"{BASELINE} {change.name}"):
                    function.run(*given)
        except Interrupted:
            raise
        except BootstrapError as exc:
            self._refuse_left_behind(watch, change, exc)
            raise
        reader = self._tools.reader()
        self._refuse_nothing_made(reader, change)
        with errors(self._target, change=change), reader.transaction():
            self._record(reader, change)

    def _call_with_connection(
        self, function: BaselineFunction, watch: TeamWatch, change: Change
    ) -> None:
        with self._tools.engine().connect() as connection:
            with watch.running(f"{BASELINE} {change.name}"):
                function.run(connection)
            session: Any = connection.connection.driver_connection
            connection.exec_driver_sql("SELECT 1")  # SQLAlchemy begins only with a statement
            self._refuse_nothing_made(session, change)
            self._record(session, change)
            connection.commit()

    def _new_watch(self) -> TeamWatch:
        from is_db_bootstrap.stores.postgres.team_watch import TeamWatch

        return TeamWatch(self._history.marks)

    @contextmanager
    def _as_guest(self, watch: TeamWatch, change: Change) -> Iterator[BaselineFunction]:
        """The function, while what it does is seen, and what it raises is translated."""
        from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
        from is_db_bootstrap.stores.postgres.baseline_function import found_function, importable
        from is_db_bootstrap.stores.postgres.team_connections import HeldLock
        from is_db_bootstrap.stores.postgres.team_environment import as_before

        connections = self._tools.connections()
        reader, held = self._tools.reader(), self._tools.held_lock()
        lock = HeldLock(*held) if held else None
        with self._told_errors(change, connections), ExitStack() as stack:
            stack.enter_context(running_alembic())
            stack.enter_context(as_before())
            stack.enter_context(importable(self.declared))
            if self._team is not None:
                self._team.put_on_path()
            stack.enter_context(connections.watching(reader, lock, self._tools.has_ended))
            stack.enter_context(watch.seeing())
            yield found_function(self.declared)
        if connections.refusal is not None:
            raise connections.refusal

    @contextmanager
    def _told_errors(self, change: Change, connections: TeamConnections) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError

        from is_db_bootstrap.stores.postgres.team_run import error_of_server

        try:
            yield
        except (BootstrapError, DatabaseMissing):
            raise
        except GuestFailed as exc:
            raise self._failed(change, exc) from exc
        except Exception as exc:
            if connections.refusal is not None:
                raise connections.refusal from exc
            cause = exc if isinstance(exc, psycopg.Error) else None
            if isinstance(exc, DBAPIError):
                ours = exc.orig if isinstance(exc.orig, psycopg.Error) else None
                cause = ours or error_of_server(exc)
            if cause is not None:
                with errors(self._target, change=change):
                    raise cause from exc
            raise self._failed(change, GuestFailed(exc)) from exc

    @staticmethod
    def _failed(change: Change, failed: GuestFailed) -> ChangeFailed:
        return ChangeFailed(
            NAME,
            f"The baseline {change.name} failed in its own code: {failed.general}.",
            change=change,
            hint="Correct it and run again.",
            detail=failed.detail,
        )

    # --- what is recorded, and what is left

    def _record(self, session: psycopg.Connection[Any], change: Change) -> None:
        """Record the revision in the transaction of `session`, and what led there.

        What fills the database may have recorded it already, as a dump with its version table has.
        Another one is refused.
        """
        place = self._history.place
        found = psycopg.Cursor(session)
        if place.schema and found.execute(_HAS_SCHEMA, [identifier(place.schema)]).fetchone() == (
            False,
        ):
            found.execute(f"CREATE SCHEMA {identifier(place.schema)}".encode())
        if found.execute(_IS_THERE, [place.quoted]).fetchone() == (False,):
            found.execute(place.create_statement.encode())
        recorded = tuple(sorted(self._history.recorded(session)))
        if recorded and recorded != tuple(sorted(self.heads)):
            raise self._other_record(recorded, change)
        if not recorded:
            insert = f"INSERT INTO {place.quoted} (version_num) VALUES (%s)"  # noqa: S608 - quoted
            named = insert.replace(place.quoted, place.quoted.replace("%", "%%"))
            for head in self.heads:
                found.execute(named.encode(), [head])
        lineage = self._chain.until(self.heads)
        self._history.write_lineage(session, lineage, renewed=lineage)
        self._history.forget(session)

    def _other_record(self, recorded: Sequence[str], change: Change) -> BootstrapError:
        says, wanted = ", ".join(recorded), ", ".join(self.heads)
        return ChangeFailed(
            NAME,
            f"The baseline {change.name} itself records {says} in {self._history.place.shown}, and "
            f"{wanted} was to be recorded.",
            change=change,
            hint=f"If it makes the tables of {says}, say so: baseline_revision = {says!r}.",
        )

    def _refuse_nothing_made(self, session: psycopg.Connection[Any], change: Change) -> None:
        """Refuse a baseline that has made nothing: it may have worked in another database."""
        if self._objects(session):
            return
        raise ChangeFailed(
            NAME,
            f"The baseline {change.name} has made nothing in {self._target}. Nothing is recorded.",
            change=change,
            hint="It may have worked in another database. Let it take its address from where "
            "is-db-bootstrap does (POSTGRES_URL), or let it take a connection.",
        )

    def _refuse_left_behind(self, watch: TeamWatch, change: Change, exc: BootstrapError) -> None:
        """Raise `HalfDone` when a function that failed has left something."""
        if isinstance(exc, StoreConflict) and watch.begun is None:
            return
        try:
            reader = self._tools.reader()
            found = self._objects(reader)
            known = begun.fate(reader, watch.begun) if watch.begun else Fate.ROLLED_BACK
        except (BootstrapError, DatabaseMissing, psycopg.Error):
            return  # the next plan looks
        if not found:
            if known is not Fate.AT_WORK:
                watch.forget()
            return
        if watch.begun is None:
            with suppress(psycopg.Error, BootstrapError):
                mark = Begun(f"{BASELINE} {change.name}", outside_since=begun.FROM_THE_START)
                self._history.mark(reader, mark)
        raise self._half_done(f"failed, and {_told(found)} is left: {exc.message}", change) from exc

    def _half_done(self, what: str, change: Change) -> HalfDone:
        return HalfDone(
            NAME,
            f"The baseline {change.name} {what}",
            change=change,
            hint=self._ways_out(change.name),
        )

    def _confirm(self, change: Change) -> None:
        """Read back what is recorded, from a session that did not write it."""
        reader = self._tools.reader()
        record = self._history.read(reader)
        if set(record.revisions) != set(self.heads):
            says = ", ".join(record.revisions) or "nothing"
            where = self._history.place.shown
            raise self._half_done(f"ran to its end, and {where} says {says}.", change)


def _told(found: Sequence[str]) -> str:
    """The first objects of a list, as a message names them."""
    named = ", ".join(found[:_NAMED])
    return f"{named}, …" if len(found) > _NAMED else named
