"""Moves along the chain other than up to its head: up to a revision, down, and by decree.

Each is the PostgreSQL store with another plan, so the run that applies it waits, locks, looks again
and reports as always.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change, Drift, Nature, Plan, RecordChange
from is_db_bootstrap.sentences import end_sentence
from is_db_bootstrap.stores.postgres.begun import BASELINE
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import SCRATCH, identifier, settings_query
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors, translated
from is_db_bootstrap.stores.postgres.named_revisions import (
    HEADS,
    is_simple,
    known,
    named_revisions,
)
from is_db_bootstrap.stores.postgres.server_words import told
from is_db_bootstrap.stores.postgres.stamped import record_change

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.change_run import Step
    from is_db_bootstrap.stores.postgres.downgrade_guard import Guard, Unforeseen
    from is_db_bootstrap.stores.postgres.downgrade_look import Session
    from is_db_bootstrap.stores.postgres.downgrade_trial import Seen, Sessions
    from is_db_bootstrap.stores.postgres.revision_syntax import RevisionSyntax
    from is_db_bootstrap.stores.postgres.revisions import Chain, Record

#: Rows are counted so far, and no further.
COUNTED = 10_000
#: Seconds that counting the rows of one table may take, and that it may wait for a lock.
COUNT_S, COUNT_LOCK_S = 10, 2
#: Seconds that a trial gets at least, however short `--timeout` is: a new database takes a few.
TRIAL_LEAST_S = 30.0
#: So many digits name the revision whose id they begin, fewer are a number of steps.
LEAST_BEGINNING = 4
#: A number of steps from what is recorded, as in `+2` or `billing@+2`.
_STEPS_UP = re.compile(r"(.*@)?\+\d+")
#: How what happens to rows that are only read begins.
READ = "read"
#: How often a step is run that does more than its trial has shown, as long as that costs no row.
_GUARDED_TRIES = 10
#: Tables of a schema that goes as a whole: also those that nobody here has made.
_OF_SCHEMAS = """
    SELECT n.nspname::text, c.relname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
    ORDER BY 1, 2
"""
#: Which of given tables can be locked: not the server's own, nor a materialized view.
_LOCKABLE = """
    SELECT n.nspname::text, c.relname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
      AND c.relkind IN ('r', 'p') AND n.nspname <> 'pg_catalog'
    ORDER BY 1, 2
"""
#: Why a step is asked about whose trial had shown a loss of what had no rows then.
_CAME_UP = "These rows came up after the rows had been counted; this step was rolled back."


@dataclass(frozen=True, slots=True)
class Loss:
    """A table, or a column of one, whose rows a downgrade would lose or change.

    `rows` is how many, None when they could not be counted: `why` has the reason then. At `COUNTED`
    the count ended. `how` is empty for what is dropped, else what happens to the rows. `sent_by`
    names the revisions, their files and their statements, where it is a statement on rows. `kind`
    is `sequence` for a sequence that goes and was used: `rows` is 1 then.
    """

    table: str
    rows: int | None
    column: str = ""
    how: str = ""
    why: str = ""
    sent_by: tuple[str, ...] = ()
    kind: str = "table"

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"{self.kind} {self.table}"
        if self.kind == "sequence" and self.rows:
            return f"{what} (was used)"
        if self.rows is None:
            counted = f"rows could not be counted: {self.why}"
        elif self.rows >= COUNTED:
            counted = f"{COUNTED} rows or more"
        else:
            counted = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        return f"{what} ({f'{self.how}, ' if self.how else ''}{counted})"


class RowsWouldBeLost(StoreConflict):
    """A downgrade would lose or change rows, or it cannot be found out whether it would.

    `losses` names the tables and columns, also those whose rows could not be counted. `unknown` has
    a sentence for each thing that could not be found out. `undone` are the revisions that were
    undone before this came up; otherwise nothing was changed. `to` is where the downgrade is to
    end: a revision or `base`, not a number of steps, unless it ends between the branches of a
    merge: then the steps that are left, such as `-1`.
    """

    def __init__(
        self,
        store: str,
        losses: Sequence[Loss],
        unknown: Sequence[str] = (),
        *,
        undone: Sequence[str] = (),
        to: str = "",
    ) -> None:
        super().__init__(
            store,
            " ".join([*_told(losses), *unknown]),
            subject=losses[0].table if losses else "",
            hint="Say --yes (drop_rows=True) to downgrade all the same.",
        )
        self.losses = tuple(losses)
        self.unknown = tuple(unknown)
        self.undone = tuple(undone)
        self.to = to

    @property
    def changed(self) -> str:
        """What was changed before it was asked, as a sentence."""
        if not self.undone:
            return "Nothing was changed."
        return (
            f"{', '.join(self.undone)} had been undone before, without a loss. Nothing else was "
            "changed."
        )


def _told(losses: Sequence[Loss]) -> Iterator[str]:
    """Sentences on what would be lost, what would be changed, and what could be."""
    dropped = [str(loss) for loss in losses if not loss.how]
    read = [str(loss) for loss in losses if loss.how.startswith(READ)]
    changed = [str(loss) for loss in losses if loss.how and not loss.how.startswith(READ)]
    if dropped:
        yield f"The downgrade would drop {', '.join(dropped)}."
    if changed:
        yield f"The downgrade would change rows of {', '.join(changed)}."
    if read:
        yield f"What the downgrade does may depend on rows of {', '.join(read)}."
    sent = dict.fromkeys(each for loss in losses for each in loss.sent_by)
    if sent:
        yield f"Sent by {'; '.join(sent)}."


def undone_down_to(target: str, chain: Chain, done: Sequence[str], store: str) -> list[str]:
    """Which of the revisions `done` a downgrade to `target` undoes, the newest first.

    `target` is `base`, a revision, or `-N`. Raises `StoreConflict` for a revision that is not
    applied.
    """
    newest_first = list(reversed(done))
    if target == "base":
        return newest_first
    if re.fullmatch(r"-\d+", target):
        return newest_first[: -int(target)]
    revision = known(chain, target)
    if revision not in done:
        raise StoreConflict(
            store,
            f"Revision {revision} is not applied, so nothing can be undone down to it.",
            hint=f"The schema is at {done[-1] if done else 'base'}.",
        )
    kept = chain.until([revision])
    return [each for each in newest_first if each not in kept]


def end_of(chain: Chain, kept: Sequence[str], steps: int) -> str:
    """Where a downgrade of `steps` revisions ends that leaves `kept`, as a target of a downgrade.

    Between the branches of a merge no revision names it, so it is the number of steps, as in `-2`.
    """
    heads = chain.heads(kept)
    if len(heads) > 1:
        return f"-{steps}"
    return heads[0] if heads else "base"


class Move(PostgreSQLBootstrapper):
    """What moves share: a database that must exist, no demo rows, nothing to verify afterwards.

    A `target` may be all that Alembic's commands take, such as `branch@head`.
    """

    #: Nothing is compared after a move, so nothing is left out.
    tells_gap = False

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        target: str,
        *,
        timing: Timing,
        schema: str | None,
        ignored_version_tables: Sequence[str] = (),
        unknown_is_ahead: bool = False,
    ) -> None:
        super().__init__(
            url,
            blueprint,
            timing=timing,
            schema=schema,
            ignored_version_tables=ignored_version_tables,
            unknown_is_ahead=unknown_is_ahead,
        )
        self._target = target

    @property
    def _syntax(self) -> RevisionSyntax:
        """What only Alembic can resolve."""
        from is_db_bootstrap.stores.postgres.revision_syntax import RevisionSyntax

        return RevisionSyntax(self._blueprint, self._chain)

    def verify(self) -> Sequence[Drift]:
        """Nothing: a schema that is not at its head has no declared state."""
        return []

    def audit(self) -> Sequence[Drift]:
        """Nothing, for the same reason."""
        return []

    def _existing(self) -> psycopg.Connection[Any]:
        try:
            return self._sessions.reader()
        except DatabaseMissing as exc:
            raise self._no_database() from exc

    def _no_database(self) -> StoreConflict:
        return StoreConflict(
            self.name,
            f"Database {self._url.database} of {self.target} does not exist.",
            subject=self._url.database,
            hint=f"Run: is-db-bootstrap migrate init --blueprint {self._blueprint.name}",
        )


class Upgrade(Move):
    """Up to `target`: `head`, a revision, `+N` steps, or what else Alembic's command takes.

    A revision that was passed already changes nothing. `head` and `heads` are all heads. An empty
    database is filled by the declared baseline first, from where steps count. Raises
    `StoreConflict` for a target that the baseline would go beyond.
    """

    def _planned(self) -> Plan:
        reader = self._existing()
        found = super()._planned()
        of_kind = {
            kind: [change for change in found.changes if change.kind == kind]
            for kind in ("schema", BASELINE, "revision")
        }
        baseline = of_kind[BASELINE]
        recorded = self._pending.after(baseline, self._place.history.read(reader)).revisions
        if baseline:
            self._refuse_before(baseline[0], recorded)
        wanted = [*baseline, *self._wanted(of_kind["revision"], recorded)]
        schema = of_kind["schema"] if wanted else []
        return replace(found, changes=(*schema, *wanted))

    def _wanted(self, pending: Sequence[Change], recorded: Sequence[str]) -> list[Change]:
        if self._target in HEADS:
            return list(pending)
        if self._team is None and re.fullmatch(r"\+\d+", self._target):
            return list(pending[: int(self._target)])
        passed = self._passed(recorded)
        return [c for c in pending if c.name in passed]

    def _passed(self, recorded: Sequence[str]) -> frozenset[str]:
        """The revisions that an upgrade from the `recorded` ones to the target is about."""
        if is_simple(self._chain, self._target):
            return frozenset(self._chain.until([known(self._chain, self._target)]))
        return self._syntax.above(self._target, recorded)

    def _refuse_before(self, baseline: Change, heads: Sequence[str]) -> None:
        """Refuse a target before the revisions `heads`, which the baseline leads to."""
        if self._target in HEADS or _STEPS_UP.fullmatch(self._target):
            return
        if self._passed(()) < {*self._chain.until(heads)}:
            at = ", ".join(heads)
            raise StoreConflict(
                self.name,
                f"{self.target} is empty, so the baseline {baseline.name} fills it, which makes "
                f"all that leads to {at}. {self._target} is before that.",
                hint=f"Upgrade to {heads[0]}, or to a later revision.",
                subject=self._target,
            )


class Downgrade(Move):
    """Down to `target`: `base`, a revision, or `-N` steps.

    Rows are dropped with their tables only if `drop_rows`.

    What would be lost is found out in a scratch database; rows of the target are only counted.
    """

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        target: str,
        *,
        timing: Timing,
        schema: str | None,
        drop_rows: bool,
        ignored_version_tables: Sequence[str] = (),
        unknown_is_ahead: bool = False,
    ) -> None:
        super().__init__(
            url,
            blueprint,
            target,
            timing=timing,
            schema=schema,
            ignored_version_tables=ignored_version_tables,
            unknown_is_ahead=unknown_is_ahead,
        )
        self._sessions.when_engine_made = self._guard_engine
        self._drop_rows = drop_rows
        self._tried: dict[tuple[tuple[str, ...], tuple[str, ...]], Seen | str] = {}
        self._trial_sessions: Sessions | None = None
        self._guard: Guard | None = None
        self._kept: tuple[str, ...] = ()
        self._undoing: tuple[str, ...] = ()
        self._over: list[str] = []

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._place.history.read(reader)
        if self._place.history.is_ahead(record):
            raise self._place.history.conflict(
                f"is at revision {', '.join(record.revisions)}, which this version does not know "
                "how to undo"
            )
        self._place.history.refuse_half_done(record)
        done = self._chain.until(record.revisions)
        undone = self._undone(record, done)
        notes: tuple[str, ...] = ()
        if undone:
            self._place.history.refuse_unread(record)
            notes = tuple(self._place.history.unmarked(reader))
        if undone and not self._drop_rows:
            self._undoing = tuple(undone)
            self._kept = tuple(r for r in done if r not in undone)
            seen = self._trial(done, self._undoing)
            losses = [] if isinstance(seen, str) else self._losses(reader, seen)
            unknown = list(self._unknown(seen))
            if isinstance(seen, str) or losses or unknown:
                raise RowsWouldBeLost(self.name, losses, unknown, to=self._to)
            self._guard = self._new_guard(seen)
            notes = (*notes, *self._also_gone(seen))
        return Plan(
            tuple(Change(r, "downgrade", self._chain.titles[r], Nature.ATOMIC) for r in undone),
            notes=notes,
        )

    def _undone(self, record: Record, done: Sequence[str]) -> list[str]:
        """The revisions to undo, the newest first."""
        if self._team is not None:
            return self._undone_by_alembic(record, done)
        is_plain = self._target == "base" or re.fullmatch(r"-\d+", self._target)
        if is_plain or is_simple(self._chain, self._target):
            return undone_down_to(self._target, self._chain, done, self.name)
        below = self._syntax.below(self._target, record.revisions)
        undone = [each for each in reversed(done) if each in below]
        kept = [each for each in done if each not in below]
        if len(self._chain.heads(kept)) > 1 and undone != list(reversed(done))[: len(undone)]:
            raise ConfigurationError(
                f"A downgrade to {self._target} would undo {', '.join(undone)} only, and leave "
                f"{', '.join(self._chain.heads(kept))}.",
                hint="Give a number of steps, or a revision from which all others go on.",
            )
        return undone

    def _undone_by_alembic(self, record: Record, done: Sequence[str]) -> list[str]:
        """What the stock command would undo, the newest first.

        It refuses steps that begin at a merge or lead through one. There it is the newest revision
        that is undone next. With several heads, the order of rows decides where it begins, so that
        is refused here.
        """
        is_number = re.fullmatch(r"-\d+", self._target)
        if is_number and len(record.revisions) > 1:
            raise StoreConflict(
                self.name,
                f"{self._place.history.place.shown} records {', '.join(record.revisions)}, so "
                f"{self._target} may begin at each of them.",
                hint="Name the branch, as in `migrate downgrade billing@-1`, or a revision.",
            )
        try:
            below = self._syntax.below(self._target, record.revisions)
        except StoreConflict:
            if not is_number:
                raise
            return undone_down_to(self._target, self._chain, done, self.name)
        return [each for each in reversed(done) if each in below]

    @property
    def _to(self) -> str:
        """Where the downgrade is to end, as a target of another one."""
        is_several = len(self._chain.heads(self._kept)) > 1
        if self._team is not None and is_several and not re.fullmatch(r"-\d+", self._target):
            return self._target
        return end_of(self._chain, self._kept, len(self._undoing) - len(self._over))

    def _more_steps(self) -> Mapping[str, Step]:
        return {"downgrade": self._apply_downgrade}

    def _apply_downgrade(self, change: Change) -> str | None:
        if self._guard is None:
            return self._place.revision_steps.run(change, "downgrade", change.name)
        guard = self._guard if self._team is not None else None
        from is_db_bootstrap.stores.postgres.downgrade_guard import Unforeseen

        self._guard.expect(change.name)
        for _ in range(_GUARDED_TRIES):
            try:
                remark = self._place.revision_steps.run(change, "downgrade", change.name, guard)
            except Unforeseen as exc:
                self._refuse_unforeseen(change, exc)
            else:
                self._over.append(change.name)
                return remark
        raise RowsWouldBeLost(
            self.name, [], [self._not_foreseen(change)], undone=self._over, to=self._to
        )

    def _refuse_unforeseen(self, change: Change, exc: Unforeseen) -> None:
        """Ask about what a step has done beyond its trial, unless it costs no row.

        The step was rolled back.
        """
        losses = self._losses(self._sessions.reader(), exc.seen)
        if losses or self._guard is None:
            unforeseen = [self._not_foreseen(change)]
            raise RowsWouldBeLost(self.name, losses, unforeseen, undone=self._over, to=self._to)
        self._guard.allow(exc)

    @staticmethod
    def _not_foreseen(change: Change) -> str:
        return (
            f"The trial of the downgrade of {change.name} had not shown it; this step was rolled "
            "back."
        )

    def _new_guard(self, seen: Seen) -> Guard:
        from is_db_bootstrap.stores.postgres.downgrade_guard import Guard

        return Guard(self.name, self._version_table(), seen, self._refuse_new_rows)

    def _version_table(self) -> tuple[str, str]:
        """Schema and name of the version table, as the target has it."""
        place = self._place.history.place
        if place.schema is not None:
            return place.schema, place.table
        row = self._sessions.reader().execute(place.schema_query.encode()).fetchone()
        return str(row[0]) if row else self._place.schema, place.table

    def _refuse_new_rows(self, session: Session, due: Seen) -> None:
        """Ask about rows of what a step is to lose, in the step's own transaction.

        The tables are locked first, as the step will lock them, so no row can come up afterwards.
        """
        columns = (*due.columns, *due.rewritten, *((name, of) for name, of, _ in due.retyped))
        tables = {*due.tables, *due.touched, *(name for name, _ in columns)}
        losses: Sequence[Loss] = ()
        if not isinstance(session, psycopg.Connection) and not session.sees_new_rows:
            why = (
                "Rows may come up meanwhile: the transactions of env.py do not see what others "
                "have committed (transaction_isolation)."
            )
            session.rollback()
            raise RowsWouldBeLost(self.name, losses, [why], undone=self._over, to=self._to)
        try:
            self._lock_tables(session, tables)
        except psycopg.errors.InsufficientPrivilege as exc:
            said = exc.diag.message_primary
            why = end_sentence(
                f"Rows may come up meanwhile, because a table cannot be locked: {said}"
            )
        else:
            losses = self._losses(session, due)
            why = _CAME_UP
            if not losses:
                return
        session.rollback()
        raise RowsWouldBeLost(self.name, losses, [why], undone=self._over, to=self._to)

    @staticmethod
    def _lock_tables(session: Session, tables: Collection[tuple[str, str]]) -> None:
        """Lock those of `tables` that can be locked; one that has gone is passed over."""
        if not tables:
            return
        columns = [list(column) for column in zip(*tables, strict=True)]
        found = session.execute(_LOCKABLE.encode(), columns).fetchall()
        names = ", ".join(identifier(*name) for name in found)
        if names:
            session.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE".encode())

    def _guard_engine(self, engine: Engine) -> None:
        if self._guard is not None:
            self._guard.attach(engine)

    def cancel(self) -> None:
        """From another thread: also the statement of a trial is ended, and its database goes."""
        if self._trial_sessions is not None:
            self._trial_sessions.cancel()
        super().cancel()

    def disconnect(self) -> str:
        """From another thread: drop the database of a trial that does not end, too."""
        from is_db_bootstrap.stores.postgres.scratch import drop_database

        if self._trial_sessions is not None and self._trial_sessions.database:
            drop_database(self._url, self._timing, self._trial_sessions.database)
        return super().disconnect()

    def _trial(self, done: tuple[str, ...], undone: tuple[str, ...]) -> Seen | str:
        """What the downgrade does in a scratch database; in words, why that could not be seen.

        It is tried once, although a run plans twice: the files are the same.
        """
        from is_db_bootstrap.stores.postgres import downgrade_trial

        if (done, undone) not in self._tried:
            limit_s = max(self._timing.timeout_s, TRIAL_LEAST_S)
            sessions = downgrade_trial.Sessions(self._timing.connect_timeout_s)
            self._trial_sessions = sessions
            timer = threading.Timer(limit_s, sessions.cancel)
            timer.daemon = True
            timer.start()
            try:
                with errors(self.target, f"the trial of a downgrade of {', '.join(undone)}"):
                    found: Seen | str = downgrade_trial.tried(
                        self._url,
                        self._blueprint,
                        self._place.schema,
                        self._timing,
                        done=done,
                        undone=undone,
                        sessions=sessions,
                        version_table=self._table_of_trial,
                    )
            except Exception as exc:
                if self._sessions.has_ended():
                    raise
                found = self._why_untried(exc, limit_s if sessions.ended else None)
            finally:
                timer.cancel()
            self._tried[done, undone] = found
        return self._tried[done, undone]

    @property
    def _table_of_trial(self) -> tuple[str, str]:
        """Schema and name of the version table, as a scratch database has it."""
        place = self._place.history.place
        return place.schema or self._place.schema, place.table

    def _why_untried(self, exc: Exception, ended_after_s: float | None) -> str:
        """Why there was no trial, in words. Raises `exc` when the server cannot be worked with."""
        if ended_after_s is not None:
            return f"its trial in a scratch database did not end within {ended_after_s:g} s."
        if isinstance(exc, StoreUnavailable):
            raise exc
        if isinstance(exc, AccessDenied):
            return f"no scratch database could be made for a trial: {self._refusal(exc)}"
        if isinstance(exc, BootstrapError | DatabaseMissing):
            return f"the trial in a scratch database failed: {getattr(exc, 'message', exc)}"
        return end_sentence(f"the trial in a scratch database failed: {type(exc).__name__}: {exc}")

    def _refusal(self, exc: AccessDenied) -> str:
        """Why there is no scratch database, without a name that nobody is to create."""
        if exc.subject.startswith(SCRATCH):
            return f"the role {self._url.username} may not create databases (CREATEDB)."
        return exc.message

    def _unknown(self, seen: Seen | str) -> Iterator[str]:
        if isinstance(seen, str):
            yield f"Whether the downgrade would lose rows is not known: {seen}"
            return
        if seen.left:
            yield (
                f"The downgrade of {', '.join(seen.left)} leaves its transaction, so a failure "
                "in it would leave half of it done."
            )
        if seen.beside:
            yield (
                f"The downgrade of {', '.join(seen.beside)} works on a further connection, "
                "so what it does there to rows is not known, and is not rolled back with it."
            )

    @staticmethod
    def _also_gone(seen: Seen | str) -> tuple[str, ...]:
        if isinstance(seen, str) or not seen.objects:
            return ()
        return (f"The downgrade also drops {', '.join(seen.objects)}.",)

    def _losses(self, reader: Session, seen: Seen) -> list[Loss]:
        """Which of what the trial has seen holds rows on the target, or may hold some."""
        with errors(self.target, "tables of schemas that go"):
            inside = (
                reader.execute(_OF_SCHEMAS.encode(), [list(seen.schemas)]).fetchall()
                if seen.schemas
                else []
            )
        tables = sorted({*seen.tables, *((space, name) for space, name in inside)})
        found = [self._counted(reader, name) for name in tables]
        found += [self._counted_sequence(reader, name) for name in seen.sequences]
        found += [self._counted(reader, name, column) for name, column in seen.columns]
        found += [
            self._counted(reader, name, column, f"type {types}")
            for name, column, types in seen.retyped
        ]
        found += [
            self._counted(reader, name, column, "values computed anew")
            for name, column in seen.rewritten
        ]
        for name, touches in seen.touched.items():
            writes = [touch for touch in touches if touch.writes]
            how = " and ".join(dict.fromkeys(touch.how for touch in writes or touches))
            sent_by = tuple(dict.fromkeys(map(str, touches)))
            found.append(replace(self._counted(reader, name, "", how), sent_by=sent_by))
        return sorted((loss for loss in found if loss.rows != 0), key=str)

    def _shown(self, name: tuple[str, str]) -> str:
        """A name as messages have it: without the blueprint's own schema."""
        return name[1] if name[0] == self._place.schema else ".".join(name)

    def _counted_sequence(self, reader: Session, name: tuple[str, str]) -> Loss:
        """Whether a sequence was used: then it would begin anew."""
        query = f"SELECT is_called::int FROM {identifier(*name)}"  # noqa: S608 - quoted
        shown = self._shown(name)
        try:
            with reader.transaction(force_rollback=True):
                row = reader.execute(query.encode()).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return Loss(shown, 0, kind="sequence")  # the target has none
        except psycopg.errors.InsufficientPrivilege as exc:
            return Loss(shown, None, why=str(exc.diag.message_primary), kind="sequence")
        return Loss(shown, int(row[0]) if row else 0, kind="sequence")

    def _counted(
        self,
        reader: Session,
        name: tuple[str, str],
        column: str = "",
        how: str = "",
    ) -> Loss:
        """How many rows a table has, or how many have something in a column.

        They are counted up to `COUNTED`, and within `COUNT_S`. `row_security = off` makes the
        server refuse instead of hiding rows (manual, 20.11 Client Connection Defaults).
        """
        shown = self._shown(name)
        # A composite value with an empty attribute is neither NULL nor NOT NULL (manual, 9.2).
        where = f" WHERE {identifier(column)} IS DISTINCT FROM NULL" if column else ""
        rows = f"SELECT FROM {identifier(*name)}{where} LIMIT {COUNTED}"
        query = f"SELECT count(*) FROM ({rows}) AS counted"  # noqa: S608 - quoted
        limits = {
            "row_security": "off",
            "statement_timeout": f"{COUNT_S}s",
            "lock_timeout": f"{COUNT_LOCK_S}s",
        }
        try:
            with reader.transaction(force_rollback=True):  # so the limits end with it
                reader.execute(*settings_query(limits, in_transaction=True))
                row = reader.execute(query.encode()).fetchone()
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            return Loss(
                shown, 0, column, how
            )  # the target has no such thing, so nothing in it is lost
        except psycopg.Error as exc:
            if reader.closed:
                raise translated(exc, self.target, shown) from exc
            return Loss(shown, None, column, how, told(exc, query)[0])
        return Loss(shown, int(row[0]) if row else 0, column, how)


class Stamp(Move):
    """Record `target` (`heads`, `base` or a revision) as applied, and change nothing else.

    In a team's own version table, branches that have nothing to do with the revision stay.
    """

    #: What the last plan has found to change.
    record_change = RecordChange()

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._place.history.read(reader)
        self._place.history.refuse_other_blueprint(record)
        is_known = all(revision in self._chain.parents for revision in record.revisions)
        # What has gone another way up to a known revision may be recorded anew.
        if not is_known and self._place.history.is_ahead(record):
            raise self._place.history.conflict(
                f"is at revision {', '.join(record.revisions)}, newer than this version"
            )
        wanted = named_revisions(self._blueprint, self._chain, self._target)
        if self._team is not None:
            from is_db_bootstrap.stores.postgres.team_stamp import heads_after

            wanted = heads_after(self._chain, record.revisions, wanted)
            self._pending.refuse_long_ids(reader, [_stamped(each) for each in wanted])
        schema = self._place.checked_schema(reader)
        marked = self._place.history.marked(record)
        self.record_change = record_change(
            self._chain,
            self._applied(record),
            record.revisions,
            wanted,
            [mark.step for mark in marked],
        )
        is_clear = not marked
        is_recorded = record.lineage == self._chain.until(wanted)
        if wanted == record.revisions and is_recorded and is_clear:
            return Plan()
        return Plan((*schema, _stamped(", ".join(wanted) or "base")))

    def _more_steps(self) -> Mapping[str, Step]:
        return {"stamp": self._apply_stamp}

    def _applied(self, record: Record) -> tuple[str, ...]:
        """The revisions that count as applied, by what led to the record if that is known."""
        parents = self._chain.parents
        if record.lineage:
            return tuple(each for each in record.lineage if each in parents)
        return self._chain.until([each for each in record.revisions if each in parents])

    def _apply_stamp(self, change: Change) -> str | None:
        if self._team is None:
            return self._place.revision_steps.run(change, "stamp", change.name)
        from is_db_bootstrap.stores.postgres.team_stamp import stamp as stamp_team

        heads = tuple(change.name.split(", ")) if change.name != "base" else ()
        reader = self._sessions.reader()
        stamp_team(reader, self._place.history, self.target, heads, self._chain)
        self._place.revision_steps.confirm_stamped(change)
        return None


def _stamped(name: str) -> Change:
    return Change(name, "stamp", "recorded, nothing else", Nature.ATOMIC)


def parsed_steps(target: str | int, chain: Chain) -> str:
    """A target of `downgrade` in one form: `base`, a revision, or `-N`.

    Digits are a number of steps only where no id of `chain` is so written, as in Alembic, and none
    begins with them, of which `LEAST_BEGINNING` count. An integer always is a number of steps.
    A `ConfigurationError` for anything else.
    """
    text = str(target).strip()
    is_text = isinstance(target, str)
    is_beginning = len(text) >= LEAST_BEGINNING and any(r.startswith(text) for r in chain.order)
    if is_text and (text in chain.parents or is_beginning):
        return text
    if re.fullmatch(r"-?\d+", text):
        return f"-{text.lstrip('-')}"
    if not re.fullmatch(r"\w[\w.@+-]*", text):
        raise ConfigurationError(
            f"{text!r} is no target of a downgrade.",
            hint="Give a revision, base, or a number of steps.",
        )
    return text
