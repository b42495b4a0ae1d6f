"""The record of a step that has begun: a row in a schema of our own, `is_db_bootstrap`.

A step is an upgrade or a downgrade by one revision. Its row is committed from another session
before the step may commit anything. The same session deletes it after the step's transaction, when
it has read that the step is recorded as done. The step's transaction leaves the row alone: under
REPEATABLE READ it could not delete a row that has changed since, nor under the role that a revision
has set. A row of a step that is recorded counts for nothing. Any other one belongs to a step that
did not end. It names the transactions in which the step worked, so the server can tell what has
become of them (`pg_xact_status`).

The row needs no flush of its own: `synchronous_commit` is off for it. The server writes its log in
order, so whatever the step commits afterwards cannot reach the disk before the row (manual, 30.4
Asynchronous Commit).

Where the schema cannot be made, the mark is written into the comment of the version table instead,
in the step's own transaction. That is what earlier versions did, and their marks are still read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import AccessDenied, StoreBusy, StoreConflict
from is_db_bootstrap.stores.postgres import own_schema
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA, literal, remedy
from is_db_bootstrap.stores.postgres.prepared import PreparedStatements

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.revisions import Chain

#: The table of the steps that have begun, in the schema of ours.
TABLE = "begun"
_PLACE = f"{SCHEMA}.{TABLE}"

#: How many transactions of a server are looked at for what a step did outside of those it named.
MOST_LOOKED_AT = 1000

#: Between the revisions that a version table records, in the answer to one question.
SEPARATOR = "\n"

RIGHTS = own_schema.rights(TABLE)
READABLE = own_schema.readable(TABLE)
_CREATE = (
    f"""
    CREATE TABLE IF NOT EXISTS {_PLACE} (
        schema_name text PRIMARY KEY,
        step text NOT NULL,
        transactions xid8[] NOT NULL,
        outside_since xid8,
        begun_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
""",
    f"""
    COMMENT ON TABLE {_PLACE} IS
    'is-db-bootstrap: the revision that runs in a schema at this moment, or did not end there'
""",
)
_INSERT = f"""
    INSERT INTO {_PLACE} (schema_name, step, transactions, outside_since)
    SELECT %(schema)s, %(step)s, %(transactions)s::text[]::xid8[], {{outside}}
    FROM ({own_schema.SETTINGS}) AS settings RETURNING outside_since::text
"""  # noqa: S608 - constants
_UPDATE = f"""
    UPDATE {_PLACE} SET transactions = %(transactions)s::text[]::xid8[], outside_since = {{outside}}
    FROM ({own_schema.SETTINGS}) AS settings
    WHERE schema_name = %(schema)s AND step = %(step)s RETURNING outside_since::text
"""  # noqa: S608 - constants
#: As `outside_since`: the number is to be taken when it is written.
FROM_NOW = 0
#: As `outside_since`: nothing is known of the step.
FROM_THE_START = 1
#: The number that the server gives to the transaction after the one that writes this.
_NUMBER_FROM_NOW = "(pg_current_xact_id()::text::int8 + 1)::text::xid8"
_FIND = f"""
    SELECT step, transactions::text[], outside_since::text FROM {_PLACE} WHERE schema_name = %s
"""  # noqa: S608 - constants
#: The row of an earlier step becomes that of a later one in the same transaction. What the earlier
#: one has done outside of it still counts.
_FOLLOW = f"""
    UPDATE {_PLACE} SET step = %(step)s, transactions = %(transactions)s::text[]::xid8[],
        outside_since = coalesce({{outside}}, outside_since), begun_at = clock_timestamp()
    FROM ({own_schema.SETTINGS}) AS settings
    WHERE schema_name = %(schema)s AND step = %(before)s RETURNING outside_since::text
"""  # noqa: S608 - constants
_FORGET = f"""
    DELETE FROM {_PLACE} USING ({own_schema.SETTINGS}) AS settings
    WHERE schema_name = %(schema)s AND step = %(step)s
"""  # noqa: S608 - constants
#: What the version table records, by which the row of a recorded step goes. `{table}` is quoted.
_FORGET_RECORDED = f"""
    WITH found AS MATERIALIZED (
        SELECT coalesce(string_agg(version_num, '{SEPARATOR}' ORDER BY version_num COLLATE "C"), '')
               AS revisions
        FROM {{table}}
    ), forgotten AS (
        DELETE FROM {_PLACE} USING found, ({own_schema.SETTINGS}) AS settings
        WHERE schema_name = %(schema)s AND step = %(step)s AND revisions = %(heads)s
    )
    SELECT revisions FROM found
"""  # noqa: S608 - constants
#: A number from the future is one of another server: the database was copied.
_STATUSES = """
    SELECT coalesce(CASE WHEN id::xid8 < pg_snapshot_xmax(pg_current_snapshot())
                         THEN pg_xact_status(id::xid8) END, 'unknown')
    FROM unnest(%s::text[]) AS id
"""
_STATUSES_SINCE = """
    WITH span AS (
        SELECT %(since)s::int8 AS low, pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS high
    )
    SELECT 'unknown' FROM span WHERE low > high OR high - low > %(most)s
    UNION ALL
    SELECT coalesce(pg_xact_status(id::text::xid8), 'unknown')
    FROM span, generate_series(low, least(high - 1, low + %(most)s)) AS id
"""


#: The direction of a step that fills an empty database. Its name is no revision.
BASELINE = "baseline"


class Fate(Enum):
    """What the server knows of what a step has done."""

    #: Everything that it did was rolled back: it may run again.
    ROLLED_BACK = "rolled back"
    #: A transaction of it is still open.
    AT_WORK = "at work"
    #: A transaction of it is committed.
    COMMITTED = "committed"
    #: It went on outside of the transactions that it named, and others have committed since then.
    UNKNOWN = "unknown"


#: What a status of one transaction says of the step; the first that any has counts.
_MEANING = {
    "committed": Fate.COMMITTED,
    "unknown": Fate.UNKNOWN,
    "in progress": Fate.AT_WORK,
}


#: What is said of a step that is not run again by itself.
WHAT_IS_KNOWN = {
    Fate.COMMITTED: "has committed a part of its work by itself",
    Fate.UNKNOWN: "may have committed a part of its work outside of its transaction",
}


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that has begun, and is not recorded as done.

    `step` is its direction and its revision, such as `upgrade b2`. `transactions` are the numbers
    of the transactions in which it works. `outside_since` is the first number that the server had
    not given when the step went on outside of them; None while it did not. `known` is False for a
    mark of a comment, which names no transactions: it was committed together with a part of the
    step.
    """

    step: str
    transactions: tuple[int, ...] = ()
    outside_since: int | None = None
    known: bool = True

    @property
    def direction(self) -> str:
        """`upgrade`, `downgrade` or `baseline`."""
        return self.step.partition(" ")[0]

    @property
    def revision(self) -> str:
        """The revision that is applied or undone."""
        return self.step.partition(" ")[2]

    def has_ended(self, revisions: Iterable[str], chain: Chain) -> bool:
        """Whether a schema that records `revisions` has this step behind it."""
        if self.direction == BASELINE:
            return bool(list(revisions))
        recorded = chain.until([r for r in revisions if r in chain.parents])
        return (self.revision in recorded) == (self.direction == "upgrade")


def find(reader: psycopg.Connection[Any], schema: str) -> Begun | None:
    """The step that has begun in `schema`, by the table, which must be there."""
    row = reader.execute(_FIND.encode(), [schema]).fetchone()
    if row is None:
        return None
    step, transactions, since = row
    return Begun(step, tuple(map(int, transactions)), int(since) if since else None)


def marked(
    reader: psycopg.Connection[Any],
    schema: str,
    *,
    in_comment: tuple[str, str] | None,
    may_read: bool | None,
) -> tuple[Begun, ...]:
    """Every step that is marked in `schema`: by a row of the table, and in the comment.

    Both may be there. A role that may write the row leaves one of a step that has ended, when it is
    killed before it can delete it. A role that may not write it marks a later step in the comment.
    `in_comment` is the mark of the comment, `may_read` whether the table is there and readable.
    """
    by_row = find(reader, schema) if may_read else None
    by_comment = Begun(" ".join(in_comment), known=False) if in_comment else None
    return tuple(mark for mark in (by_row, by_comment) if mark is not None)


def unreadable(reader: psycopg.Connection[Any]) -> AccessDenied:
    """The error of a table that is there and that we may not read.

    A step in it may be half done.
    """
    role = _role(reader)
    return AccessDenied(
        NAME,
        f"{_PLACE} may say that a revision did not end, and {role} may not read it.",
        subject=_PLACE,
        hint=f"Let an administrator run: {remedy(role, has_schema=True)}",
    )


def staying_mark(
    reader: psycopg.Connection[Any], begun: Begun, recorded: str, table: str
) -> AccessDenied:
    """The error of a stamp by a role that may record a revision and not lift the mark of `begun`.

    `recorded` is the revision, `table` the version table, whose comment only its owner writes.
    """
    role = _role(reader)
    where = _PLACE if begun.known else f"the comment of {table}"
    grant = f"Let an administrator run: {remedy(role, has_schema=True)}"
    return AccessDenied(
        NAME,
        f"{recorded} is recorded, but {role} may not delete the mark of the {begun.direction} of "
        f"revision {begun.revision} in {where}, so the next run is refused again.",
        subject=begun.revision,
        hint=f"{grant} Then stamp again." if begun.known else f"Stamp as the owner of {table}.",
    )


def _role(reader: psycopg.Connection[Any]) -> str:
    row = reader.execute(b"SELECT current_user::text").fetchone()
    return str(row[0]) if row else ""


def fate(reader: psycopg.Connection[Any], begun: Begun, *, has_stopped: bool = False) -> Fate:
    """What has become of what a step did, as the server of `reader` knows it.

    `has_stopped` says that its sessions are known to run no statement any more. Only then can it be
    told that nothing was committed outside: no transaction of the server was committed since then.
    """
    if not begun.known:
        return Fate.COMMITTED
    numbers = list(map(str, begun.transactions))
    named = {row[0] for row in reader.execute(_STATUSES.encode(), [numbers]).fetchall()}
    for status, known in _MEANING.items():
        if status in named:
            return known
    if begun.outside_since is None:
        return Fate.ROLLED_BACK
    if not has_stopped:
        return Fate.UNKNOWN
    span = {"since": begun.outside_since, "most": MOST_LOOKED_AT}
    since = {row[0] for row in reader.execute(_STATUSES_SINCE.encode(), span).fetchall()}
    return Fate.ROLLED_BACK if since <= {"aborted"} else Fate.UNKNOWN


class Marks:
    """Writes which step has begun in one schema, from sessions that `session` gives.

    `table` is the quoted name of the version table. `has_ended` says of a step that was found
    whether the schema has it behind it. All times are seconds.
    """

    def __init__(
        self,
        session: Callable[[], psycopg.Connection[Any]],
        schema: str,
        table: str,
        has_ended: Callable[[Begun], bool],
        lock_timeout_s: float,
    ) -> None:
        self.table = table
        self._session = session
        self._schema = schema
        self._has_ended = has_ended
        self._wait = f"{round(lock_timeout_s * 1000)}ms"
        #: What a statement of a revision waits for a lock.
        self.lock_timeout_s = lock_timeout_s
        self._in_rows: bool | None = None
        self._statements = PreparedStatements()

    @property
    def in_rows(self) -> bool:
        """Whether the table is there and ours to write; else the mark is a comment."""
        if self._in_rows is None:
            self._in_rows = self._prepared()
        return self._in_rows

    def _prepared(self) -> bool:
        """Make schema and table; False when we may not."""
        return own_schema.make(self._session(), TABLE, _CREATE)

    def begin(self, begun: Begun, *, makes_room: bool = False) -> Begun:
        """Commit that a step has begun.

        `makes_room` says that the row of an earlier step is known to be there.

        Raises `StoreBusy` while an earlier step of the schema is at work, and `StoreConflict` when
        one has committed something and did not end.
        """
        if makes_room:
            self._make_room(begun)
        try:
            return self._written(_INSERT, begun)
        except psycopg.errors.UniqueViolation:
            self._make_room(begun)
        return self._written(_INSERT, begun)

    def change(self, begun: Begun) -> Begun:
        """Commit what is known of it by now."""
        return self._written(_UPDATE, begun)

    def follow(self, begun: Begun, before: Begun) -> Begun:
        """Commit that a step has begun after `before`, in whose transaction it begins."""
        return self._written(_FOLLOW, begun, before=before.step)

    def _written(self, query: str, begun: Begun, **more: str) -> Begun:
        given = {
            "schema": self._schema,
            "step": begun.step,
            "transactions": f"{{{','.join(map(str, begun.transactions))}}}",
            "wait": self._wait,
            **more,
        }
        statement = query.format(outside=_number(begun.outside_since))
        row = self._statements.only_row(self._session(), statement, given)
        if row is None:
            raise StoreConflict(
                NAME,
                f"The row of {begun.step} in {_PLACE} has gone while it runs.",
                hint="Something else has deleted it. Run again.",
            )
        return replace(begun, outside_since=int(row[0]) if row[0] else None)

    def _make_room(self, begun: Begun) -> None:
        """Delete the row of an earlier step that left nothing."""
        session = self._session()
        found = find(session, self._schema)
        if found is None:
            return
        if self._has_ended(found):
            self.forget(found)
            return
        known = fate(session, found)
        if known is Fate.AT_WORK:
            raise StoreBusy(
                NAME, f"The {found.direction} of revision {found.revision} is still at work."
            )
        if known is not Fate.ROLLED_BACK:
            raise StoreConflict(
                NAME,
                f"The {found.direction} of revision {found.revision} did not end, so "
                f"{begun.revision} is not begun.",
                hint="Look at what it did, then record it with `is-db-bootstrap migrate stamp`.",
            )
        self.forget(found)

    def forget(self, begun: Begun) -> None:
        """Delete the row of this step, if it is there and we may."""
        if self.are_rows():
            given = {"schema": self._schema, "step": begun.step, "wait": self._wait}
            self._session().execute(_FORGET.encode(), given)

    def forget_recorded(self, begun: Begun, heads: Collection[str]) -> frozenset[str]:
        """Delete the row of this step if the version table records `heads`, and nothing else.

        Returns what it records. Raises what psycopg raises.
        """
        query = _FORGET_RECORDED.format(table=self.table.replace("%", "%%"))
        given = {"schema": self._schema, "step": begun.step, "wait": self._wait}
        given["heads"] = SEPARATOR.join(sorted(heads))
        row = self._statements.only_row(self._session(), query, given)
        return frozenset(filter(None, str(row[0] if row else "").split(SEPARATOR)))

    def are_rows(self) -> bool:
        """Whether there is a table of ours to write, without making one."""
        if self._in_rows is None:
            row = self._session().execute(RIGHTS.encode()).fetchone()
            return bool(row and row[0])
        return self._in_rows

    @property
    def forget_statement(self) -> str:
        """The statement that deletes the row, without parameters."""
        mine = literal(self._schema)
        return f"DELETE FROM {_PLACE} WHERE schema_name = {mine}"  # noqa: S608 - quoted

    def fate_of(self, transaction: int) -> Fate:
        """What has become of one transaction."""
        return fate(self._session(), Begun("", (transaction,)))

    def numbers_from_now(self) -> int:
        """The first transaction number that the server has not given yet."""
        query = b"SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8"
        row = self._session().execute(query).fetchone()
        return int(row[0]) if row else 0


def _number(outside_since: int | None) -> str:
    """The SQL of `Begun.outside_since`."""
    if outside_since is None:
        return "NULL"
    return _NUMBER_FROM_NOW if outside_since == FROM_NOW else f"'{outside_since}'::xid8"


def comment_mark(table: str, step: str) -> str:
    """The statement that marks `step` in the comment of `table`, a quoted name; "" lifts the mark.

    A role that does not own the table leaves its comment as it is.
    """
    kept = (
        "regexp_replace(coalesce(obj_description(to_regclass(place), 'pg_class'), ''),"
        " '(; )?begun \\w+ \\S+$', '')"
    )
    added = (
        f"concat_ws('; ', nullif({kept}, ''), {literal(f'begun {step}')})"
        if step
        else f"nullif({kept}, '')"
    )
    return f"""
        DO $is_db_bootstrap$
        DECLARE place text := {literal(table)};
        BEGIN
            EXECUTE format('COMMENT ON TABLE %s IS %L', place, {added});
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END
        $is_db_bootstrap$
    """
