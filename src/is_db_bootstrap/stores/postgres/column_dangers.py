"""Dangers in the columns of a table: what is lost, and what writes the table anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from is_db_bootstrap.results import Danger, DangerKind
from is_db_bootstrap.stores.postgres.danger_judge import Judge, drops, unseen
from is_db_bootstrap.stores.postgres.live_rows import LiveRows, NotSeen
from is_db_bootstrap.stores.postgres.server_words import told
from is_db_bootstrap.stores.postgres.sql_syntax import (
    Name,
    called_functions,
    constants,
    expression_text,
    literal,
    named_columns,
    quoted,
    strings,
    type_text,
)
from is_db_bootstrap.stores.postgres.type_change import TypeChange, type_change

_SERIAL = {"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"}
#: Functions that have one value for all rows of a statement, as far as no server is asked.
_STEADY = {
    "array_to_json",
    "concat",
    "current_setting",
    "date_trunc",
    "json_build_array",
    "json_build_object",
    "jsonb_build_array",
    "jsonb_build_object",
    "lower",
    "make_interval",
    "md5",
    "now",
    "statement_timestamp",
    "timezone",
    "to_timestamp",
    "transaction_timestamp",
    "upper",
}
_VOLATILE = """
    SELECT f.name FROM unnest(%s::text[]) f(name)
    LEFT JOIN pg_proc p ON p.proname = f.name
    GROUP BY 1 HAVING bool_or(p.oid IS NULL OR p.provolatile = 'v')
"""
_COLUMN = "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = %s"


def added(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    """What to look at before a column is added."""
    column = getattr(command, "def").column_def
    planned = judge.planned(name)
    if command.missing_ok and _is_there(judge, name, column.colname):
        return
    kinds = constants()
    by_kind = {each.constraint.contype: each.constraint for each in column.constraints}
    default = by_kind.get(kinds.CONSTR_DEFAULT)
    has_null_default = default is not None and _is_null(default.raw_expr)
    is_serial = strings(column.type_name.names)[-1] in _SERIAL
    filling = {kinds.CONSTR_IDENTITY, kinds.CONSTR_GENERATED} & by_kind.keys()
    has_value = bool(filling) or is_serial or (default is not None and not has_null_default)
    why = _why_anew(judge, default, by_kind.get(kinds.CONSTR_GENERATED))
    if is_serial or kinds.CONSTR_IDENTITY in by_kind:
        why = "each row takes the next number"
    if why:
        text = f"The table is written anew for column {column.colname}, because {why}"
        yield from judge.rewrites(name, text)
    refuses_null = {kinds.CONSTR_NOTNULL, kinds.CONSTR_PRIMARY} & by_kind.keys()
    if refuses_null and not has_value and judge.rows is not None and judge.extent(name):
        text = (
            f"Column {column.colname} refuses NULL and has no default, and the table has rows"
            f"{judge.in_brackets(name)}."
        )
        yield Danger(DangerKind.REFUSED, str(name), text)
    planned.new_columns[column.colname] = has_value
    yield from _with_column(judge, name, column, by_kind, has_value=has_value)


def _with_column(
    judge: Judge, name: Name, column: Any, by_kind: dict[Any, Any], *, has_value: bool
) -> Iterator[Danger]:
    """What the constraints of a new column need: an index is built, and rows are checked."""
    kinds = constants()
    if {kinds.CONSTR_UNIQUE, kinds.CONSTR_PRIMARY} & by_kind.keys():
        text = f"Readers and writers wait while the index on {column.colname} is built ({{}})."
        yield from judge.locks(name, text)
    check = by_kind.get(kinds.CONSTR_CHECK)
    if check is not None:
        yield from judge.locks(name, "Readers and writers wait while each row is checked ({}).")
    if kinds.CONSTR_FOREIGN in by_kind and has_value:
        yield from judge.locks(name, "Writers wait while each row is checked ({}).")


def _is_null(expression: Any) -> bool:
    while expression.HasField("type_cast"):
        expression = expression.type_cast.arg
    return bool(expression.HasField("a_const") and expression.a_const.isnull)


def _why_anew(judge: Judge, default: Any, generated: Any) -> str:
    """Why a new column writes its table anew. Empty when it does not."""
    if generated is not None and generated.generated_kind != "v":
        return "its values are computed and stored"
    if default is None:
        return ""
    called = called_functions(default.raw_expr)
    changing = _volatile(judge.rows, called)
    return f"{', '.join(changing)}() has another value in each row" if changing else ""


def _volatile(rows: LiveRows | None, called: set[str]) -> list[str]:
    """Those of some functions that may have another value for each row."""
    if not called:
        return []
    if rows is None:
        return sorted(called - _STEADY)
    query = f"SELECT array_agg(name ORDER BY name) FROM ({_VOLATILE}) found"
    try:
        row = rows.first(query, [sorted(called)])
    except NotSeen:
        return sorted(called - _STEADY)
    return list(row[0] or ()) if row else []


def _is_there(judge: Judge, name: Name, column: str) -> bool:
    live = judge.planned(name).live
    if judge.rows is None or live is None:
        return False
    try:
        live_column = judge.planned(name).live_column(column)
        return judge.rows.first(_COLUMN, [live.quoted, live_column]) is not None
    except NotSeen:
        return False


def dropped(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    """What is lost with a column. Nothing, when the plan has added it."""
    planned = judge.planned(name)
    column = command.name
    if planned.is_new or planned.new_columns.pop(column, None) is not None:
        return
    if judge.rows is None:
        yield drops(f"{name}.{column}", f"Column {column} is dropped, and its values are lost.")
        return
    if command.missing_ok and not _is_there(judge, name, column):
        return
    if not judge.is_there(name):
        return
    query = f"SELECT 1 FROM {judge.source(name)} WHERE {quoted(column)} IS NOT NULL LIMIT 1"
    if judge.has(query) is False:
        text = f"Column {column} is dropped. It holds no value now."
    else:
        size = judge.in_brackets(name)
        text = f"Column {column} is dropped, and its values are lost{size}."
    yield drops(f"{name}.{column}", text)


def retyped(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    """What a new type of a column does to the table and to its values."""
    definition = getattr(command, "def").column_def
    column, new_type = command.name, type_text(definition.type_name)
    using = definition.raw_default if definition.HasField("raw_default") else None
    planned = judge.planned(name)
    if planned.is_new:
        return
    text = f"The table is written anew, because {column} becomes {new_type}"
    if judge.rows is None:
        text = f"The table may be written anew, because {column} becomes {new_type}"
        yield from judge.rewrites(name, text)
        return
    if not judge.is_there(name) or planned.live is None:
        return
    values = judge.tables.enum_values(strings(definition.type_name.names)[-1])
    if values is not None:
        yield from _to_new_enum(judge, name, column, (new_type, values), using)
        return
    try:
        found = type_change(judge.rows, planned.live, planned.live_column(column), new_type)
    except NotSeen as exc:
        yield unseen(name, f"What becomes of {column} as {new_type} {exc}.")
        return
    except psycopg.DataError as exc:
        yield unseen(
            name, f"What becomes of {column} as {new_type} could not be seen: {told(exc)[0]}."
        )
        return
    is_plain = using is None or _is_cast_of(using, column, new_type)
    if found.rewrites or not is_plain:
        yield from judge.rewrites(name, text)
    if using is None and not found.is_cast:
        text = f"Values of {column} are not converted to {new_type} without USING."
        yield Danger(DangerKind.REFUSED, str(name), text)
    elif found.rewrites or not is_plain:
        value = expression_text(using) if using is not None else quoted(column)
        yield from _lost_values(judge, name, column, (value, new_type), found, is_plain=is_plain)


def _to_new_enum(
    judge: Judge, name: Name, column: str, enum: tuple[str, list[str]], using: Any
) -> Iterator[Danger]:
    """What becomes of a column whose new type is an enum that the plan creates."""
    new_type, values = enum
    if using is None:
        text = f"Values of {column} are not converted to {new_type} without USING."
        yield Danger(DangerKind.REFUSED, str(name), text)
        return
    text = f"The table is written anew, because {column} becomes {new_type}"
    yield from judge.rewrites(name, text)
    is_cast = using.HasField("type_cast") and type_text(using.type_cast.type_name) == new_type
    if not is_cast:
        if judge.extent(name):
            text = f"Whether each {column} becomes {new_type} could not be seen."
            yield unseen(name, text)
        return
    value = using.type_cast.arg
    allowed = ", ".join(literal(each) for each in values)
    yield from judge.refused(
        name,
        f"SELECT 1 FROM {judge.source(name)} "
        f"WHERE ({expression_text(value)})::text <> ALL (ARRAY[{allowed}]::text[]) LIMIT 1",
        f"At least one {column} is no value of the new {new_type}",
        f"each {column} is a value of the new {new_type}",
        sorted(named_columns(value)),
    )


def _is_cast_of(using: Any, column: str, new_type: str) -> bool:
    """Whether an expression is only the column, or its cast to the new type."""
    if using.HasField("type_cast") and type_text(using.type_cast.type_name) == new_type:
        using = using.type_cast.arg
    return bool(using.HasField("column_ref") and strings(using.column_ref.fields) == [column])


def _lost_values(  # what is known of one change of a type
    judge: Judge,
    name: Name,
    column: str,
    converted: tuple[str, str],
    found: TypeChange,
    *,
    is_plain: bool,
) -> Iterator[Danger]:
    """Values that the new type refuses, cuts or rounds."""
    value, new_type = converted
    table = judge.source(name)
    is_assigned = value == quoted(column)
    if found.misfit and is_assigned:
        yield from judge.refused(
            name,
            f"SELECT 1 FROM {table} WHERE {found.misfit.format(value)} LIMIT 1",
            f"At least one {column} is longer than {new_type} holds",
            f"each {column} fits in {new_type}",
            [column],
        )
        return
    query = f"SELECT 1 FROM (SELECT count(({value})::{new_type}) AS n FROM {table}) f WHERE n < 0"
    refusals = list(
        judge.refused(
            name,
            query,
            f"At least one {column} does not become {new_type}",
            f"each {column} becomes {new_type}",
            [column],
        )
    )
    yield from refusals
    if refusals or not is_plain or not found.is_comparable:
        return
    back = f"(({value})::{new_type})::{found.old_type}"
    query = f"SELECT 1 FROM {table} WHERE {back} IS DISTINCT FROM {quoted(column)} LIMIT 1"
    if judge.extent(name) is not None and judge.has(query):
        text = f"At least one {column} is cut or rounded to {new_type}, without an error."
        yield drops(f"{name}.{column}", text)
