"""Dangers in constraints: who waits while rows are checked, and which rows are in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from is_db_bootstrap.results import Danger, DangerKind
from is_db_bootstrap.stores.postgres.danger_judge import Judge, unseen
from is_db_bootstrap.stores.postgres.live_rows import NotSeen
from is_db_bootstrap.stores.postgres.sql_syntax import (
    Name,
    constants,
    expression_text,
    named_columns,
    quoted,
    strings,
)

#: A NOT NULL that was added NOT VALID (PostgreSQL 18) says nothing of the rows that are there.
_IS_NOT_NULL = """
    SELECT 1 FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attname = %s AND attnotnull
      AND NOT EXISTS (SELECT FROM pg_constraint
                      WHERE conrelid = attrelid AND contype = 'n' AND conkey = ARRAY[attnum]
                        AND NOT convalidated)
"""
#: A checked constraint that spares PostgreSQL the look at each row (since PostgreSQL 12).
_IS_CHECKED = """
    SELECT 1 FROM pg_constraint
    WHERE conrelid = to_regclass(%s) AND contype = 'c' AND convalidated
      AND pg_get_constraintdef(oid) = format('CHECK ((%%I IS NOT NULL))', %s::text)
"""
_CONSTRAINT = """
    SELECT contype::text, pg_get_expr(conbin, conrelid), confrelid::regclass::text,
           (SELECT array_agg(a.attname::text ORDER BY k.n)
              FROM unnest(conkey) WITH ORDINALITY k(attnum, n)
              JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = k.attnum),
           (SELECT array_agg(a.attname::text ORDER BY k.n)
              FROM unnest(confkey) WITH ORDINALITY k(attnum, n)
              JOIN pg_attribute a ON a.attrelid = confrelid AND a.attnum = k.attnum)
    FROM pg_constraint
    WHERE conrelid = to_regclass(%s) AND conname = %s AND NOT convalidated
"""
_PRIMARY_KEY = """
    SELECT a.attname::text FROM pg_index i
    CROSS JOIN unnest(i.indkey) WITH ORDINALITY k(attnum, n)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = to_regclass(%s) AND i.indisprimary ORDER BY k.n
"""
_WAIT_ALL = "Readers and writers wait while"


def added(judge: Judge, name: Name, constraint: Any) -> Iterator[Danger]:
    """What to look at before a constraint is added to a table."""
    kinds = constants()
    kind = constraint.contype
    judge.planned(name).constraints[constraint.conname] = constraint
    if kind == kinds.CONSTR_NOTNULL and constraint.keys:
        for column in strings(constraint.keys):
            yield from not_null(judge, name, column, is_checked=not constraint.skip_validation)
    elif constraint.skip_validation:
        judge.planned(name).not_valid[constraint.conname] = constraint
    elif kind == kinds.CONSTR_CHECK:
        yield from judge.locks(
            name,
            f"{_WAIT_ALL} each row is checked ({{}}). NOT VALID adds the constraint at once, and "
            "VALIDATE CONSTRAINT in a later revision lets all go on.",
        )
        yield from _check(judge, name, constraint.raw_expr)
        _note_not_null(judge, name, constraint)
    elif kind == kinds.CONSTR_FOREIGN:
        other = judge.name(constraint.pktable)
        yield from judge.locks(
            name,
            f"Writers of {name} and of {other} wait while each row is checked ({{}}). NOT VALID "
            "adds the key at once, and VALIDATE CONSTRAINT in a later revision lets all go on.",
        )
        yield from _foreign_key(judge, name, constraint)
    elif kind in {kinds.CONSTR_UNIQUE, kinds.CONSTR_PRIMARY} and not constraint.indexname:
        yield from _unique_key(judge, name, constraint)
    elif kind == kinds.CONSTR_EXCLUSION:
        yield from judge.locks(name, f"{_WAIT_ALL} the index of the constraint is built ({{}}).")
        if judge.rows and judge.extent(name):
            yield unseen(name, "Whether rows exclude each other is not looked at.")


def _unique_key(judge: Judge, name: Name, constraint: Any) -> Iterator[Danger]:
    columns = strings(constraint.keys)
    yield from judge.locks(
        name,
        f"{_WAIT_ALL} the index of the key is built ({{}}). CREATE UNIQUE INDEX CONCURRENTLY and "
        "then ADD CONSTRAINT … USING INDEX lets all go on.",
    )
    if constraint.contype == constants().CONSTR_PRIMARY:
        for column in columns:
            yield from _nulls(judge, name, column)
    together = [quoted(column) for column in columns]
    yield from duplicates(
        judge, name, together, columns, nulls_are_one=constraint.nulls_not_distinct
    )


def not_null(judge: Judge, name: Name, column: str, *, is_checked: bool = True) -> Iterator[Danger]:
    """What to look at before a column refuses NULL."""
    planned = judge.planned(name)
    if not is_checked or planned.is_new:
        return
    if judge.rows is not None and _is_so_already(judge, name, column):
        return
    if column not in planned.not_null:
        yield from judge.locks(
            name,
            f"{_WAIT_ALL} each row is looked at for a NULL in {column} ({{}}). A CHECK "
            f"({column} IS NOT NULL) that is validated before spares that.",
        )
    yield from _nulls(judge, name, column)


def _is_so_already(judge: Judge, name: Name, column: str) -> bool:
    live = judge.planned(name).live
    if judge.rows is None or live is None:
        return False
    values = [live.quoted, judge.planned(name).live_column(column)]
    try:
        if judge.rows.first(_IS_CHECKED, values):
            judge.planned(name).not_null.add(column)
        return judge.rows.first(_IS_NOT_NULL, values) is not None
    except NotSeen:
        return False


def _nulls(judge: Judge, name: Name, column: str) -> Iterator[Danger]:
    planned = judge.planned(name)
    is_empty_column = planned.new_columns.get(column) is False
    if column in planned.not_null:
        return
    if is_empty_column and not judge.tables.is_unsure(name):
        if judge.rows and judge.extent(name):
            text = f"The new column {column} has no value in any of the rows that are there."
            yield Danger(DangerKind.REFUSED, str(name), text)
        return
    if planned.new_columns.get(column) and not judge.tables.is_unsure(name):
        return
    yield from judge.refused(
        name,
        f"SELECT 1 FROM {judge.source(name)} WHERE {quoted(column)} IS NULL LIMIT 1",
        f"Column {column} holds NULL",
        f"column {column} holds NULL",
        [column],
    )


def duplicates(
    judge: Judge,
    name: Name,
    expressions: Sequence[str],
    columns: Sequence[str],
    *,
    nulls_are_one: bool = False,
    condition: str = "",
) -> Iterator[Danger]:
    """Rows that share what is to be unique.

    `expressions` are SQL, and `columns` the names in them. With `nulls_are_one`, two NULL are the
    same. `condition` is that of a partial index.
    """
    wanted = [] if nulls_are_one else [f"({each}) IS NOT NULL" for each in expressions]
    if condition:
        wanted.append(f"({condition})")
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    together = ", ".join(f"({each})" for each in expressions)
    shown = ", ".join(expressions)
    yield from judge.refused(
        name,
        f"SELECT 1 FROM {judge.source(name)}{where} "
        f"GROUP BY {together} HAVING count(*) > 1 LIMIT 1",
        f"At least two rows have the same {shown}",
        f"two rows have the same {shown}",
        columns,
    )


def _check(judge: Judge, name: Name, expression: Any) -> Iterator[Danger]:
    text = expression_text(expression)
    yield from _broken_check(judge, name, text, sorted(named_columns(expression)))


def _broken_check(judge: Judge, name: Name, text: str, columns: Sequence[str]) -> Iterator[Danger]:
    yield from judge.refused(
        name,
        f"SELECT 1 FROM {judge.source(name)} WHERE NOT ({text}) LIMIT 1",
        f"At least one row breaks CHECK ({text})",
        f"a row breaks CHECK ({text})",
        columns,
    )


def _foreign_key(judge: Judge, name: Name, constraint: Any) -> Iterator[Danger]:
    columns = strings(constraint.fk_attrs)
    other = judge.name(constraint.pktable)
    keys = strings(constraint.pk_attrs)
    live_other = judge.planned(other).live
    if live_other is None or judge.tables.is_unsure(other):
        if judge.rows and judge.extent(name):
            text = f"Whether each row has its row in {other} could not be seen, because the plan "
            yield unseen(name, f"{text}fills {other} before.")
        return
    if not keys and judge.rows:
        keys = _primary_key(judge, live_other)
    if keys:
        yield from _orphans(judge, name, columns, (other, keys))


def _primary_key(judge: Judge, name: Name) -> list[str]:
    query = f"SELECT array_agg(attname) FROM ({_PRIMARY_KEY}) found"
    try:
        row = judge.rows.first(query, [name.quoted]) if judge.rows else None
    except NotSeen:
        return []
    return list(row[0] or ()) if row else []


def _orphans(
    judge: Judge, name: Name, columns: Sequence[str], other: tuple[Name, Sequence[str]]
) -> Iterator[Danger]:
    target, keys = other
    present = " AND ".join(f"here.{quoted(column)} IS NOT NULL" for column in columns)
    pairs = zip(columns, keys, strict=False)
    same = " AND ".join(f"there.{quoted(key)} = here.{quoted(column)}" for column, key in pairs)
    yield from judge.refused(
        name,
        f"SELECT 1 FROM {judge.source(name, 'here')} WHERE {present} "
        f"AND NOT EXISTS (SELECT 1 FROM {judge.source(target, 'there')} WHERE {same}) LIMIT 1",
        f"At least one row has a {', '.join(columns)} that {target} does not have",
        f"each {', '.join(columns)} is in {target}",
        columns,
    )


def validated(judge: Judge, name: Name, constraint_name: str) -> Iterator[Danger]:
    """What is in the way of VALIDATE CONSTRAINT, which lets readers and writers go on."""
    planned = judge.planned(name)
    constraint: Any = planned.not_valid.pop(constraint_name, None)
    if constraint is not None:
        if constraint.contype == constants().CONSTR_CHECK:
            yield from _check(judge, name, constraint.raw_expr)
            _note_not_null(judge, name, constraint)
        elif constraint.contype == constants().CONSTR_FOREIGN:
            yield from _foreign_key(judge, name, constraint)
    elif judge.rows is not None and planned.live is not None:
        yield from _validated_live(judge, name, planned.live, constraint_name)


def _validated_live(judge: Judge, name: Name, live: Name, constraint_name: str) -> Iterator[Danger]:
    try:
        row = judge.rows.first(_CONSTRAINT, [live.quoted, constraint_name]) if judge.rows else None
    except NotSeen as exc:
        yield unseen(name, f"Whether a row breaks {constraint_name} {exc}.")
        return
    if row is None:
        return
    kind, expression, other, columns, keys = row
    if kind == "c":
        yield from _broken_check(judge, name, expression, columns or ())
    elif kind == "f":
        schema, _, table = other.rpartition(".")
        target = Name(schema.strip('"'), table.strip('"'))
        yield from _orphans(judge, name, columns, (target, keys))


def _note_not_null(judge: Judge, name: Name, constraint: Any) -> None:
    """Note the column of `CHECK (column IS NOT NULL)`."""
    node = constraint.raw_expr
    if node.HasField("null_test") and node.null_test.nulltesttype == constants().IS_NOT_NULL:
        judge.planned(name).not_null.update(named_columns(node))
