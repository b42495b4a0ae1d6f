"""PostgreSQL: Alembic revisions, each in a transaction of its own, and the live catalogue.

Looking needs psycopg only: the revisions are read from their files, the history from
`alembic_version`. SQLAlchemy and Alembic are imported when there is something to apply. See
`revisions` for what is recorded, `begun` for a revision that did not end, `lock` for the lock, and
`catalogue` for what is compared object by object.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.guests import GuestFailed, place_of
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import Change, Drift, LockHolder, Plan, Proof, ServerInfo, Status
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres import begun, elsewhere
from is_db_bootstrap.stores.postgres import lock as postgres_lock
from is_db_bootstrap.stores.postgres.begun import WHAT_IS_KNOWN, Begun, Fate, Marks
from is_db_bootstrap.stores.postgres.catalogue import Catalogue, Objects, live
from is_db_bootstrap.stores.postgres.connection import (
    DUPLICATE_DATABASE,
    DUPLICATE_SCHEMA,
    INSUFFICIENT_PRIVILEGE,
    MAINTENANCE,
    UNIQUE_VIOLATION,
    DatabaseMissing,
    connect,
    errors,
    identifier,
    session_settings,
    terminated,
    translated,
)
from is_db_bootstrap.stores.postgres.half_done import Watch
from is_db_bootstrap.stores.postgres.open_sessions import OpenSessions
from is_db_bootstrap.stores.postgres.revisions import (
    TABLE,
    Chain,
    Record,
    blueprint_of,
    comment_statement,
    mark,
)
from is_db_bootstrap.stores.postgres.seed import insert, missing, row_name

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.engine.store import Lock

#: A server that started less than so many seconds ago is asked twice: an image's first boot starts
#: a server that it ends again.
YOUNG_S = 10

_LOOK = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
           current_setting('transaction_read_only'),
           extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8
"""
_RIGHTS = """
    SELECT current_user, has_database_privilege(current_database(), 'CREATE'),
           to_regnamespace(%(schema)s) IS NOT NULL,
           coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'CREATE'), false),
           current_database()
"""


class HalfDone(ChangeFailed):
    """A revision has committed a part of its work by itself and did not end, or is not recorded.

    It is not run again.
    """


class PostgreSQLBootstrapper:
    """The PostgreSQL part of a blueprint, in one schema of one database.

    `url` is `postgresql://`, also with several hosts or a driver name such as
    `postgresql+asyncpg://`. Of `timing`, `connect_timeout_s` bounds every connection attempt and
    `lock_timeout_s` how long a statement of a revision waits for a lock. The blueprint's demo rows
    are planned and written with `seed` only. Raises `ConfigurationError` for an address or
    revisions that cannot be ones.
    """

    name: StoreName = "postgres"

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        *,
        timing: Timing | None = None,
        schema: str = "public",
        seed: bool = False,
    ) -> None:
        found = StoreUrl.parse("postgres", url) if isinstance(url, str) else url
        self._url = found if found.database else replace(found, database=blueprint.name)
        self._blueprint = blueprint if seed else blueprint.without_seed()
        self._timing = timing or Timing()
        if schema == begun.SCHEMA:
            raise ConfigurationError(
                f"DB_SCHEMA is {schema}, where is-db-bootstrap keeps records of its own.",
                hint="Name another schema.",
            )
        self._schema = schema
        self._number = postgres_lock.key(schema)
        folder = blueprint.migrations
        self._chain = Chain.read(folder) if folder else Chain()
        catalogue = Catalogue.read(folder) if folder else None
        self._catalogue = catalogue if catalogue and catalogue.head == self._chain.head else None
        self._uncompared = self._why_not(catalogue) if folder and self._catalogue is None else ""
        self._session: psycopg.Connection[Any] | None = None
        self._table = identifier(schema, TABLE)
        self._marks = Marks(
            self._reader, schema, self._table, self._has_ended, self._timing.lock_timeout_s
        )
        self._watch = Watch(self._marks)
        self._left_by_ended: Begun | None = None
        self._changing_in: int | None = None
        self._holds_lock = False
        self._engine: Engine | None = None
        self._seen: Objects | None = None
        self._cancelled = threading.Event()
        self._due = False
        self.target = str(self._url)
        self._open_sessions = OpenSessions(self.target)

    def _why_not(self, catalogue: Catalogue | None) -> str:
        what = (
            f"catalogue.json is of revision {catalogue.head}, not {self._chain.head}"
            if catalogue
            else "there is no catalogue.json"
        )
        return (
            f"Tables are not compared, because {what}: is-db-bootstrap revision --refresh writes "
            "it."
        )

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on new connections; a missing database is no failure, `plan` lists it.

        Raises `StoreUnavailable` while the server starts or when it is a standby, `AccessDenied`,
        `ConfigurationError` when something else answers, `StoreConflict` below PostgreSQL 14.
        """
        self.close()
        self._cancelled.clear()
        limit = min(timeout_s, self._timing.connect_timeout_s)
        try:
            self._session = self._connected(limit)
        except DatabaseMissing:
            with self._maintenance(limit) as connection:
                return self._looked_at(connection, limit)
        return self._looked_at(self._session, limit)

    def _looked_at(self, connection: psycopg.Connection[Any], limit_s: float) -> ServerInfo:
        with errors(self.target):
            version, standby, read_only, age_s = connection.execute(_LOOK.encode()).fetchone() or (
                "",
                False,
                "off",
                0.0,
            )
        if standby or read_only == "on":
            what = "a standby" if standby else "read-only (default_transaction_read_only)"
            raise StoreUnavailable(
                self.name,
                f"{self.target} is {what} and cannot be written to.",
                hint="Give the address of the primary; a fail-over may be going on.",
            )
        if age_s < YOUNG_S:
            connect(self._url, limit_s, database=connection.info.dbname).close()
        return ServerInfo(str(version).split()[0])

    def _connected(self, limit_s: float | None = None) -> psycopg.Connection[Any]:
        return self._open_sessions.open(
            lambda opened: connect(
                self._url,
                limit_s or self._timing.connect_timeout_s,
                settings=session_settings(self._schema),
                opened=opened,
            )
        )

    @contextmanager
    def _maintenance(self, limit_s: float | None = None) -> Iterator[psycopg.Connection[Any]]:
        """A connection to the database `postgres`.

        What a DBA must run, when we may not connect there.
        """
        try:
            connection = self._open_sessions.open(
                lambda opened: connect(
                    self._url,
                    limit_s or self._timing.connect_timeout_s,
                    database=MAINTENANCE,
                    opened=opened,
                )
            )
        except (AccessDenied, DatabaseMissing) as exc:
            raise AccessDenied(
                self.name,
                f"Database {self._url.database} does not exist, and we cannot create it: no way "
                f"into {MAINTENANCE}.",
                hint=f"Let an administrator run: {self._create_statement()};",
                subject=self._url.database,
            ) from exc
        with connection:
            yield connection

    def _reader(self) -> psycopg.Connection[Any]:
        """The session that looks; opened again when it was lost. Raises `DatabaseMissing`."""
        if self._session is None or self._session.closed:
            self._session = self._connected()
        return self._session

    def reader(self) -> psycopg.Connection[Any] | None:
        """The autocommit session that looks, for readers beside us.

        None while the database does not exist.
        """
        try:
            return self._reader()
        except DatabaseMissing:
            return None

    def plan(self) -> Plan:
        """Pending steps in order: the database, the schema, revisions, demo rows.

        Raises `StoreConflict` when the schema carries another blueprint, an unknown revision, or
        our tables without a record; `AccessDenied` when a privilege for the pending steps is
        missing.
        """
        found = self._planned()
        notes = [self._uncompared] if self._uncompared else []
        driver = self._url.scheme.partition("+")[2]
        if driver not in {"", "psycopg"}:
            notes.append(f"The address names the driver {driver}; psycopg is used instead.")
        return replace(found, notes=(*notes, *found.notes))

    def _planned(self) -> Plan:
        try:
            reader = self._reader()
        except DatabaseMissing:
            return self._plan_from_nothing()
        record = self._record(reader)
        if self._is_ahead(record):
            note = (
                f"The schema is at revision {', '.join(record.revisions)}, newer than this "
                f"version's {self._chain.head}; nothing is changed."
            )
            return Plan(notes=(note,), ahead=True)
        self._refuse_half_done(record)
        pending = self._pending(record)
        if not pending:
            return Plan(tuple(self._missing_rows(reader)))
        self._refuse_unread(record)
        notes = self._refuse_recorded_elsewhere(reader, record)
        schema = self._checked_rights(reader)
        if not record.revisions and not schema:
            self._refuse_unrecorded(reader)
        notes = (*notes, *self._unmarked(reader))
        return Plan((*schema, *pending, *self._all_rows()), notes=notes)

    def _plan_from_nothing(self) -> Plan:
        database = self._url.database
        with self._maintenance() as connection, errors(self.target):
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
        if row is not None and not row[0]:
            raise self._may_not_create(row[1])
        schema = [] if self._schema == "public" else [Change(self._schema, "schema")]
        return Plan(
            (Change(database, "database"), *schema, *self._pending(Record()), *self._all_rows())
        )

    def _pending(self, record: Record) -> list[Change]:
        done = self._chain.until(record.revisions)
        pending = [
            Change(r, "revision", self._chain.titles[r]) for r in self._chain.order if r not in done
        ]
        self._due = bool(pending)
        return pending

    def _record(self, reader: psycopg.Connection[Any]) -> Record:
        """Rows and comment of the version table, in one round trip."""
        table = self._table
        named = table.replace("%", "%%")
        query = f"""
            SELECT version_num, comment, ({begun.READABLE})
            FROM (SELECT obj_description(%s::regclass, 'pg_class') AS comment) AS described
            LEFT JOIN {named} ON true
        """  # noqa: S608 - quoted
        try:
            rows = reader.execute(query.encode(), [table]).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return self._record_of_steps(reader)
        except psycopg.Error as exc:
            raise translated(exc, self.target, f"{self._schema}.{TABLE}") from exc
        revisions = [revision for revision, *_ in rows if revision is not None]
        return Record.of(revisions, *rows[0][1:])

    def _record_of_steps(self, reader: psycopg.Connection[Any]) -> Record:
        """The record of a schema without a version table, where a step may have begun."""
        with errors(self.target, begun.SCHEMA):
            row = reader.execute(begun.READABLE.encode()).fetchone()
        return Record(may_read_begun=row[0] if row else None)

    def _begun(self, record: Record) -> Begun | None:
        """The step that has begun, by our table or by the comment; it may have ended since."""
        if record.may_read_begun:
            with errors(self.target, "the steps that have begun"):
                found = begun.find(self._reader(), self._schema)
            if found is not None:
                return found
        return Begun(" ".join(record.begun), known=False) if record.begun else None

    def _has_ended(self, found: Begun) -> bool:
        """Whether the schema has a step that was found to have begun behind it."""
        return found.has_ended(self._record(self._reader()).revisions, self._chain)

    def _refuse_half_done(self, record: Record) -> None:
        """Raise `StoreConflict` for a step that has committed a part and did not end."""
        found = self._begun(record)
        has_ended = found is not None and found.has_ended(record.revisions, self._chain)
        self._left_by_ended = found if has_ended else None
        if found is None or has_ended:
            return  # whoever recorded it could not lift the mark
        if self._is_at_work_elsewhere():
            return  # the run that holds the lock may still end it, and we look again after it
        # That run may have ended, or another one begun, between any two of these looks.
        record = self._record(self._reader())
        if self._begun(record) != found or found.has_ended(record.revisions, self._chain):
            return
        with errors(self.target, f"what has become of {found.step}"):
            known = begun.fate(self._reader(), found)
        if known in {Fate.ROLLED_BACK, Fate.AT_WORK}:
            return  # it may run again, as soon as its session has ended
        raise StoreConflict(
            self.name,
            f"The {found.direction} of revision {found.revision} {WHAT_IS_KNOWN[known]} and did "
            f"not end, so schema {self._schema} of {self.target} is between two revisions. It is "
            "not run again by itself.",
            hint=self._ways_out(found.direction, found.revision, record),
            subject=found.revision,
        )

    def _refuse_unread(self, record: Record) -> None:
        """Raise `AccessDenied` when steps have begun that this role may not read of."""
        if record.may_read_begun is False:
            raise begun.unreadable(self._reader())

    def _unmarked(self, reader: psycopg.Connection[Any]) -> Iterator[str]:
        """A note when this role can write down nowhere that a revision has begun."""
        with errors(self.target, begun.SCHEMA):
            row = reader.execute(begun.PLACES.encode(), [self._table]).fetchone()
        may_write, may_comment, has_schema, has_table, role = row or (True, True, True, True, "")
        if may_write or may_comment:
            return
        remedy = begun.remedy(role, has_schema=has_schema, has_table=has_table)
        yield (
            f"A revision that commits by itself is not marked, because {role} may neither write "
            f"to the schema {begun.SCHEMA} nor comment on {self._schema}.{TABLE}: if it is "
            f"killed, the next run begins it again. Let an administrator run: {remedy}"
        )

    def _is_at_work_elsewhere(self) -> bool:
        """Whether another run holds the lock of this schema."""
        if self._holds_lock:
            return False
        with errors(self.target):
            return postgres_lock.holder(self._reader(), self._number) is not None

    def _ways_out(self, direction: str, revision: str, record: Record) -> str:
        """What a person can do about a step that is half done."""
        before = ", ".join(record.revisions) or "base"
        after = revision if direction == "upgrade" else self._without(revision, record)
        stamp = "is-db-bootstrap migrate stamp"
        return (
            f"Look at what it did. If that is complete, or you complete it, record it: `{stamp} "
            f"{after}`. If you take it back, let it run again: `{stamp} {before}`."
        )

    def _without(self, revision: str, record: Record) -> str:
        """What a schema of this record would record without `revision`."""
        done = self._chain.until([r for r in record.revisions if r in self._chain.parents])
        return ", ".join(self._chain.heads(r for r in done if r != revision)) or "base"

    def _is_ahead(self, record: Record) -> bool:
        """Whether newer code was here.

        A `StoreConflict` when it was another blueprint, or nobody that we know.
        """
        if record.blueprint and record.blueprint != self._blueprint.name:
            raise self._conflict(
                f"carries the blueprint {record.blueprint}, not {self._blueprint.name}"
            )
        if record.goes_beyond(self._chain, self._blueprint.name):
            return True
        for revision in record.revisions:
            if revision not in self._chain.parents:
                other = blueprint_of(revision)
                whose = (
                    f"which belongs to the blueprint {other}, not to"
                    if other
                    else "which is unknown to"
                )
                raise self._conflict(f"is at revision {revision}, {whose} {self._blueprint.name}")
        return False

    def _conflict(self, what: str) -> StoreConflict:
        return StoreConflict(
            self.name,
            f"Schema {self._schema} of {self.target} {what}.",
            subject=f"{self._schema}.{TABLE}",
            hint="A schema carries one blueprint: set DB_SCHEMA or another database, or run the "
            "version that made it.",
        )

    def _checked_rights(self, reader: psycopg.Connection[Any]) -> list[Change]:
        """The change that creates the schema, if it is missing.

        `AccessDenied` when we may not create what is pending.
        """
        with errors(self.target, self._schema):
            row = reader.execute(_RIGHTS.encode(), {"schema": identifier(self._schema)}).fetchone()
        user, database_right, exists, schema_right, database = row or ("", True, True, True, "")
        if exists and not schema_right:
            grant = (
                f"GRANT CREATE, USAGE ON SCHEMA {identifier(self._schema)} TO {identifier(user)}"
            )
            raise AccessDenied(
                self.name,
                f"{user} may not create tables in schema {self._schema}.",
                subject=self._schema,
                hint=f"Let an administrator run: {grant};",
            )
        if not exists and not database_right:
            statement = f"CREATE SCHEMA {identifier(self._schema)} AUTHORIZATION {identifier(user)}"
            raise AccessDenied(
                self.name,
                f"{user} may not create schemas in database {database}.",
                subject=self._schema,
                hint=f"Let an administrator run: {statement};",
            )
        return [] if exists else [Change(self._schema, "schema")]

    def _refuse_recorded_elsewhere(
        self, reader: psycopg.Connection[Any], record: Record
    ) -> tuple[str, ...]:
        """Raise `StoreConflict` when another table records pending revisions.

        A version table of our own schema that cannot be read is `AccessDenied`. Returns notes on
        what cannot be told.
        """
        done = self._chain.until(record.revisions)
        pending = [r for r in self._chain.order if r not in done]
        with errors(self.target, "other version tables"):
            found = elsewhere.find(
                reader,
                self._schema,
                self._blueprint.name,
                done=done,
                pending=pending,
            )
        if found.ours:
            raise self._recorded_elsewhere(reader, record, found.ours)
        for space, table in found.unreadable:
            if space == self._schema and not record.revisions:
                raise AccessDenied(
                    self.name,
                    f"{space}.{table} of {self.target} may record revisions, and we may not read "
                    "it.",
                    hint=f"Let its owner run: GRANT SELECT ON {identifier(space, table)} TO "
                    f"{identifier(self._url.username)};",
                    subject=f"{space}.{table}",
                )
        notes = [
            f"{space}.{table} may record revisions and cannot be read with this role, so it was "
            "not looked at."
            for space, table in found.unreadable
        ]
        if found.unknown:
            notes += self._refuse_unknown(reader, record, found)
        if found.deployments and not record.revisions:
            notes += self._refuse_shared(reader, record, found)
        return tuple(notes)

    def _recorded_elsewhere(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.VersionTable
    ) -> StoreConflict:
        revisions = ", ".join(found.revisions)
        stamp = (
            f"record the same in {self._schema}.{TABLE}: `is-db-bootstrap migrate stamp "
            f"{found.revisions[-1]}`"
        )
        hint = (
            f"To go on from there, {stamp}. Alembic goes on to read {found}, so let one of the "
            "two apply from then on."
        )
        if found.table == TABLE:
            hint = (
                f"To go on from there, set DB_SCHEMA={found.schema}. If the tables are in schema "
                f"{self._schema}, {stamp}."
            )
        unseen = self._tables_unseen(reader, record, found)
        if unseen:
            hint = (
                f"{unseen} If {found} is another application's, give your revisions other ids, "
                f"or set another database. If it is yours, {stamp}, but only where the tables of "
                "that revision are there: a stamp makes none."
            )
        return StoreConflict(
            self.name,
            f"Revision {revisions} of {self._blueprint.name} is recorded in {found} of "
            f"{self.target}, not in {self._schema}.{TABLE}. Nothing was changed: the revisions "
            "would be run a second time.",
            hint=hint,
            subject=str(found),
        )

    def _tables_unseen(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.VersionTable
    ) -> str:
        """That no table of the pending revisions is there, or that this is not known.

        Empty when one is there.
        """
        schemas = tuple(dict.fromkeys([self._schema, found.schema]))
        taken = self._taken(reader, record, only_qualified=False, schemas=schemas)
        if taken.unread:
            return (
                "Whether tables of these revisions are there could not be found out: "
                f"{taken.unread}"
            )
        if taken.created or taken.unless:
            return ""
        return f"No table that these revisions create is in schema {' or '.join(schemas)}."

    def _refuse_unknown(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.Elsewhere
    ) -> Iterator[str]:
        """Raise `StoreConflict` when a version table of unknown revisions may be ours.

        It may be, when our tables are there. Else a note.
        """
        taken = self._taken(reader, record, only_qualified=False)
        where = ", ".join(f"{each} ({', '.join(each.revisions)})" for each in found.unknown)
        there = [*taken.created, *(taken.unless if not record.revisions else ())]
        if there:
            raise StoreConflict(
                self.name,
                f"{where} of {self.target} records revisions that this version of "
                f"{self._blueprint.name} does not know, and {', '.join(there)} is there already, "
                "which pending revisions create. Nothing was changed: they may have run, "
                "recorded there.",
                hint="If they have, record that with `is-db-bootstrap migrate stamp`, or run the "
                "version that knows the revision. Else set DB_SCHEMA or another database.",
                subject=str(found.unknown[0]),
            )
        unread = (
            f" Whether its tables are ours could not be found out: {taken.unread}"
            if taken.unread
            else ""
        )
        yield (
            f"{where} records revisions that are not of {self._blueprint.name}. That is right "
            f"for another application. If they are newer ones of {self._blueprint.name}, stop "
            f"here: what has run would run a second time.{unread}"
        )

    def _refuse_shared(
        self, reader: psycopg.Connection[Any], record: Record, found: elsewhere.Elsewhere
    ) -> Iterator[str]:
        """Raise `StoreConflict` for a table outside of our schema that another deployment has made.

        A note on tables there that the revisions change.
        """
        taken = self._taken(reader, record, only_qualified=True)
        schemas = ", ".join(found.deployments)
        if taken.created:
            raise StoreConflict(
                self.name,
                f"{self._blueprint.name} is recorded in schema {schemas} of {self.target} too, "
                f"and {', '.join(taken.created)} is there already: the revisions name its "
                "schema, so they would run a second time on the same table.",
                hint="A blueprint that names schemas lives once in a database: set another "
                "database.",
                subject=taken.created[0],
            )
        shared = [*taken.unless, *taken.changed]
        if shared or taken.unread:
            what = ", ".join(shared) or f"tables that are not known ({taken.unread})"
            yield (
                f"{self._blueprint.name} is recorded in schema {schemas} too. Its revisions also "
                f"change {what}: what they do there is done once for each schema."
            )

    def _taken(
        self,
        reader: psycopg.Connection[Any],
        record: Record,
        *,
        only_qualified: bool,
        schemas: Sequence[str] = (),
    ) -> elsewhere.Taken:
        """Which tables of the pending revisions are there, in `schemas` or else in ours.

        `StoreBusy` when another run has just made them.
        """
        from is_db_bootstrap.stores.postgres.alembic import offline_sql

        with errors(self.target, "tables of pending revisions"):
            taken = elsewhere.taken(
                reader,
                schemas or [self._schema],
                lambda: offline_sql(self._blueprint, self._schema, "head", after=record.revisions),
                only_qualified=only_qualified,
            )
        if taken.created and self._record(reader) != record:
            raise StoreBusy(self.name, "Another run has just applied revisions.", hint="Run again.")
        return taken

    def _refuse_unrecorded(self, reader: psycopg.Connection[Any]) -> None:
        """Our tables without a record were made by other means; creating them would fail halfway.

        Another run may have made and recorded them since the record was read. Then `StoreBusy` asks
        for a new look.
        """
        tables = list(self._catalogue.objects.get("table", {})) if self._catalogue else []
        with errors(self.target):
            found = reader.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename = ANY(%s) "
                "ORDER BY 1",
                [self._schema, tables],
            ).fetchall()
        if found and self._is_at_work_elsewhere():
            return  # the run that holds the lock may be about to record them
        if found and self._record(reader).revisions:
            raise StoreBusy(self.name, "Another run has just applied revisions.", hint="Run again.")
        if found:
            names = ", ".join(row[0] for row in found)
            raise StoreConflict(
                self.name,
                f"Schema {self._schema} of {self.target} has {names} already, but no revision is "
                "recorded.",
                subject=found[0][0],
                hint="If these migrations made it, record that with `is-db-bootstrap migrate "
                "stamp`; else set DB_SCHEMA or another database.",
            )

    # --- demo rows

    def _all_rows(self) -> Iterator[Change]:
        return (Change(row_name(row), "seed") for row in self._blueprint.seed_rows)

    def _missing_rows(self, reader: psycopg.Connection[Any]) -> Iterator[Change]:
        with errors(self.target, "demo rows"):
            try:
                lacking = missing(reader, self._blueprint.seed_rows)
            except psycopg.errors.UndefinedTable:
                return  # drift, which `verify` tells
        yield from (Change(row_name(row), "seed") for row in lacking)

    # --- writing

    def create_database(self) -> str | None:
        """Create it from template0, in UTF-8; harmless when another run was faster.

        template1 would be refused while anybody is connected to it (55006, ecto#1925), and holds
        what others put there.
        """
        with (
            self._maintenance() as connection,
            errors(self.target, self._url.database, Change(self._url.database, "database")),
        ):
            try:
                connection.execute(self._create_statement().encode())
            except psycopg.Error as exc:
                if exc.sqlstate == INSUFFICIENT_PRIVILEGE:
                    raise self._may_not_create(self._url.username) from exc
                # Of two at once, one gets either of these (Tom Lane, in selfservice-plugin#196).
                if exc.sqlstate not in {DUPLICATE_DATABASE, UNIQUE_VIOLATION}:
                    raise
                return f"Database {self._url.database} was created by another run meanwhile."
        return None

    def _create_statement(self) -> str:
        return (
            f"CREATE DATABASE {identifier(self._url.database)} TEMPLATE template0 ENCODING 'UTF8'"
        )

    def _may_not_create(self, user: str) -> AccessDenied:
        statement = (
            f"CREATE DATABASE {identifier(self._url.database)} OWNER {identifier(user)} TEMPLATE "
            "template0 ENCODING 'UTF8'"
        )
        return AccessDenied(
            self.name,
            f"Database {self._url.database} does not exist, and {user} may not create it.",
            hint=f"Let an administrator run: {statement};",
            subject=self._url.database,
        )

    def apply(self, change: Change) -> str | None:
        """Take one step.

        A revision that another session has applied meanwhile is recognised and said.

        Raises `StoreBusy` when a lock was not free in time, `ChangeFailed` with the server's words
        otherwise; both leave nothing of the step behind, unless the revision itself leaves its
        transaction (CREATE INDEX CONCURRENTLY).
        """
        self._changing_in = threading.get_ident()
        with self._changing(change):
            return self._steps()[change.kind](change)

    def _steps(self) -> dict[str, Callable[[Change], str | None]]:
        return {
            "database": self._apply_database,
            "schema": self._apply_schema,
            "revision": self._apply_revision,
            "seed": self._apply_row,
        }

    @contextmanager
    def _changing(self, change: Change) -> Iterator[None]:
        try:
            with errors(self.target, change=change):
                yield
        except HalfDone:
            raise
        except BootstrapError as exc:
            if self._cancelled.is_set():
                raise StoreUnavailable(
                    self.name,
                    f"{change.kind} {change.name} was cancelled and rolled back.",
                    subject=change.name,
                    hint="Run again.",
                ) from exc
            raise
        except DatabaseMissing as exc:
            raise StoreUnavailable(
                self.name, f"Database {self._url.database} has vanished.", hint="Run again."
            ) from exc

    def _apply_database(self, _: Change) -> str | None:
        return self.create_database()

    def _apply_schema(self, change: Change) -> str | None:
        try:
            self._reader().execute(
                f"CREATE SCHEMA IF NOT EXISTS {identifier(change.name)}".encode()
            )
        except psycopg.Error as exc:
            # IF NOT EXISTS is not atomic (svix#2589).
            if exc.sqlstate not in {DUPLICATE_SCHEMA, UNIQUE_VIOLATION}:
                raise
        return None

    def _apply_revision(self, change: Change) -> str | None:
        return self._ran(change, "upgrade", change.name)

    def _ran(self, change: Change, act: str, revision: str) -> str | None:
        """Let Alembic `upgrade`, `downgrade` or `stamp` to `revision`, and read that back."""
        self._watch.begun = None
        try:
            with errors(self.target, change=change):
                self._forget_ended()
                ran = self._run_alembic(change, act, revision)
        except BootstrapError as exc:
            if (known := self._left_behind()) in WHAT_IS_KNOWN:
                said = WHAT_IS_KNOWN[known].removeprefix("has ")
                raise self._half_done(
                    f"{said} and then failed: {exc.message}", act, change
                ) from exc
            raise
        if act == "stamp" and not ran:
            self._describe(revision)
            ran = True
        self._confirm_recorded(act, change)
        self._watch.forget()
        done = {"upgrade": "applied", "downgrade": "undone", "stamp": "recorded"}[act]
        return None if ran else f"Revision {change.name} was {done} by another session meanwhile."

    def _forget_ended(self) -> None:
        """Delete the row of a step that was planned on as ended.

        After a next step it would not look so.
        """
        if self._left_by_ended is not None:
            self._marks.forget(self._left_by_ended)
            self._left_by_ended = None

    def _run_alembic(self, change: Change, act: str, revision: str) -> bool:
        """Whether Alembic did anything, on a session of its own that `cancel` finds."""
        from alembic.util import CommandError
        from sqlalchemy.exc import DBAPIError

        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        postgres_alembic.create_version_table(self._reader(), self.target, self._schema)
        run: Callable[..., bool] = getattr(postgres_alembic, act)
        try:
            return run(self._alembic_engine(), self._blueprint, self._schema, revision)
        except CommandError as exc:
            raise ChangeFailed(
                self.name, f"Alembic refused revision {change.name}: {exc}.", change=change
            ) from exc
        except (psycopg.Error, DBAPIError, BootstrapError, DatabaseMissing):
            raise
        except GuestFailed as exc:
            raise self._failed_itself(change, str(exc)) from exc
        except Exception as exc:
            raise self._failed_itself(
                change, f"{type(exc).__name__}: {exc}{place_of(exc)}"
            ) from exc

    def _describe(self, revision: str) -> None:
        """Write the comment of a record that says `revision` already.

        Alembic has no step for it, and so no callback.
        """
        lineage = self._chain.until([] if revision == "base" else [revision])
        reader = self._reader()
        comment = mark(self._blueprint.name, lineage)
        reader.execute(comment_statement(self._table, comment).encode())
        self._forget(reader)

    def _failed_itself(self, change: Change, said: str) -> ChangeFailed:
        return ChangeFailed(
            self.name,
            f"Revision {change.name} failed in its own code: {said}.",
            change=change,
            hint="Its transaction was rolled back; correct the file and run again.",
        )

    def _left_behind(self) -> Fate:
        """What the step that failed has left, as the server knows it.

        What left nothing may run again.
        """
        found = self._watch.begun
        if found is None:
            return Fate.ROLLED_BACK
        try:
            with self._lock_patience(self._reader()) as reader:
                known = begun.fate(reader, found, has_stopped=self._watch.has_stopped)
                if known is Fate.ROLLED_BACK:
                    self._forget(reader)
                elif known is not Fate.AT_WORK:
                    self._mark(reader, found)
                return known
        except (BootstrapError, DatabaseMissing, psycopg.Error):
            # The next plan finds the mark, if there is one.
            return Fate.AT_WORK if found.outside_since is None else Fate.UNKNOWN

    def _forget(self, reader: psycopg.Connection[Any]) -> None:
        if self._marks.are_rows():
            reader.execute(self._marks.forget_statement.encode())

    @contextmanager
    def _lock_patience(self, reader: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
        """The session that looks, which waits for a table no longer than a revision does."""
        patience = f"{round(self._timing.lock_timeout_s * 1000)}ms"
        change = "SELECT set_config('lock_timeout', %s, false)"
        reader.execute(change, [patience])
        try:
            yield reader
        finally:
            if not reader.closed:
                reader.execute(change, ["0"])

    def _mark(self, reader: psycopg.Connection[Any], found: Begun) -> None:
        """Write the mark of a step unless it is there."""
        if self._begun(self._record(reader)) is not None:
            return
        if self._marks.in_rows:
            self._marks.begin(found)
        else:
            reader.execute(begun.comment_mark(self._table, found.step).encode())

    def _half_done(self, what: str, act: str, change: Change) -> HalfDone:
        """The error of a step that must not be run again by itself."""
        hint = "Read what the schema records before anything is run again."
        with suppress(BootstrapError, DatabaseMissing):
            record = self._record(self._reader())
            hint = self._ways_out(act, change.name, record)
            if self._begun(record) is None:
                hint = (
                    "Its mark could not be written, so the next apply would run it again: do "
                    f"not apply before. {hint}"
                )
        return HalfDone(self.name, f"Revision {change.name} {what}", change=change, hint=hint)

    def _confirm_recorded(self, act: str, change: Change) -> None:
        """Read the record back from the session that did not write it: done is what it says."""
        record = self._record(self._reader())
        known = [r for r in record.revisions if r in self._chain.parents]
        is_applied = change.name in self._chain.until(known)
        recorded = {
            "upgrade": is_applied,
            "downgrade": not is_applied,
            "stamp": record.revisions == (() if change.name == "base" else (change.name,)),
        }[act]
        if recorded:
            if act == "stamp":
                self._confirm_lifted(change.name, record)
            return
        if act != "stamp":
            with suppress(psycopg.Error, BootstrapError):
                unknown = Begun(f"{act} {change.name}", outside_since=begun.FROM_THE_START)
                self._mark(self._reader(), self._watch.begun or unknown)
        says = ", ".join(record.revisions) or "nothing"
        raise self._half_done(
            f"ran to its end and is not recorded: {self._schema}.{TABLE} says {says}.", act, change
        )

    def _confirm_lifted(self, stamped: str, record: Record) -> None:
        """Read back that a stamp has lifted the mark of a half done step."""
        found = self._begun(record)
        if found is None or found.has_ended(record.revisions, self._chain):
            return
        if begun.fate(self._reader(), found) in WHAT_IS_KNOWN:
            table = f"{self._schema}.{TABLE}"
            raise begun.staying_mark(self._reader(), found, stamped, table)

    def _alembic_engine(self) -> Engine:
        from is_db_bootstrap.stores.postgres import alembic as postgres_alembic

        if self._engine is None:
            self._engine = postgres_alembic.engine(
                self._url, self._schema, self._timing, self._remember, self._watch
            )
        return self._engine

    def _remember(self, connection: psycopg.Connection[Any]) -> None:
        """Note a session of a revision, which gets no second one after it was cancelled.

        It may hang, or swallow what it is told.
        """
        if self._cancelled.is_set():
            connection.close()
            raise StoreUnavailable(
                self.name, "The run that this session was for has ended.", hint="Run again."
            )
        self._open_sessions.add(connection)

    def _apply_row(self, change: Change) -> str | None:
        row = next(r for r in self._blueprint.seed_rows if row_name(r) == change.name)
        insert(self._reader(), row)
        return None

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Pending revisions, then every object of `catalogue.json` that is missing or different.

        All in two round trips.
        """
        try:
            reader = self._reader()
        except DatabaseMissing:
            return [Drift(self._url.database, "database", "is missing")]
        record = self._record(reader)
        if self._is_ahead(record):
            return []
        pending = [
            Drift(change.name, "revision", "is not applied") for change in self._pending(record)
        ]
        if pending or self._catalogue is None:
            return pending
        self._seen = self._live(reader)
        return list(self._catalogue.drifts(self._seen))

    def audit(self) -> Sequence[Drift]:
        """Undeclared tables in the schema, and undeclared parts of our tables.

        Such as columns, constraints, indexes and triggers.
        """
        if self._catalogue is None:
            return []
        seen, self._seen = self._seen, None  # what verify has just read
        try:
            return list(
                self._catalogue.findings(self._live(self._reader()) if seen is None else seen)
            )
        except DatabaseMissing:
            return []

    def _live(self, reader: psycopg.Connection[Any]) -> Objects:
        with errors(self.target, "the catalogue"):
            return live(reader, self._schema)

    def status(self) -> Status:
        """The recorded revision, the head, and who holds the lock."""
        try:
            reader = self._reader()
        except DatabaseMissing:
            return Status("", self._chain.head)
        with errors(self.target):
            held = postgres_lock.holder(reader, self._number)
        return Status(", ".join(self._record(reader).revisions), self._chain.head, held)

    def selftest(self) -> Iterator[Proof]:
        """Try every declared table in a transaction that is rolled back; see `selftest.py`."""
        from is_db_bootstrap.stores.postgres.selftest import SelfTest

        with (
            errors(self.target),
            self._connected() as connection,
            connection.transaction(force_rollback=True),
        ):
            tables = (
                self._catalogue.objects if self._catalogue else self._live(self._reader())
            ).get("table", {})
            yield from SelfTest(connection, self._schema, list(tables)).proofs()

    # --- the lock, and ending

    def try_lock(self, owner: str) -> Lock | LockHolder:
        """One try for the advisory lock of this schema, on a connection of its own.

        When revisions are due, what they need is imported meanwhile, which takes as long as the
        stores' answers do.
        """
        if self._due:
            self._due = False
            threading.Thread(target=_import_alembic, name="import-alembic", daemon=True).start()
        try:
            taken = self._open_sessions.open(
                lambda opened: postgres_lock.take(
                    self._url, self._schema, self._timing, owner, opened
                )
            )
        except DatabaseMissing as exc:
            raise StoreConflict(
                self.name,
                f"Database {self._url.database} does not exist, so its lock cannot be taken.",
            ) from exc
        if isinstance(taken, postgres_lock.AdvisoryLock):
            # No cancel of a change may end the session of the lock.
            self._open_sessions.forget(taken.connection)
        self._holds_lock = not isinstance(taken, LockHolder)
        return taken

    def waits_for(self) -> str:
        """From another thread: whose locks our sessions wait for, or that the server is mute.

        Asked on a connection of its own.
        """
        if self._open_sessions.is_mute:
            return self._open_sessions.what_is_mute()
        try:
            asking = self._connected()
        except DatabaseMissing:
            return ""
        with asking:
            return self._open_sessions.blockers(asking)

    def cancel(self) -> None:
        """From another thread: end what runs on the server; its transaction is rolled back."""
        self._cancelled.set()
        self._open_sessions.cancel(self._timing.connect_timeout_s)

    def disconnect(self) -> str:
        """From another thread: break our connections, and terminate their sessions on the server.

        Its open transactions are rolled back.

        Returns which sessions are still there, as a sentence; empty when there are none. Raises
        `StoreUnavailable` when the server cannot be asked.
        """
        self._cancelled.set()
        if alembic := sys.modules.get("is_db_bootstrap.stores.postgres.alembic"):
            alembic.ALEMBIC.give_up(self._changing_in)
        ours = self._open_sessions.identities()
        self._open_sessions.hang_up()
        with self._connected() as connection, errors(self.target):
            left = [pid for session in ours for pid in terminated(connection, session)]
        if not left:
            return ""
        return (
            f"The server did not end session {', '.join(map(str, left))} of this run; what it "
            "does may go on."
        )

    def close(self) -> None:
        """Release every connection."""
        engine, self._engine = self._engine, None
        session, self._session = self._session, None
        if engine is not None:
            engine.dispose()
        if session is not None:
            session.close()


def _import_alembic() -> None:
    with suppress(ImportError):  # told by the revision that needs it
        # Alembic first, as `_ran` does: two threads that enter SQLAlchemy from two sides meet half
        # of it.
        importlib.import_module("alembic")
        importlib.import_module("is_db_bootstrap.stores.postgres.alembic")
