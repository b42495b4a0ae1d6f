"""Whether a new type of a column writes its table anew, by PostgreSQL's rules.

The rules are those of `ATColumnChangeRequiresRewrite` in PostgreSQL's `tablecmds.c`, and of the
support functions that take away a cast which changes no value (`varchar_support`,
`numeric_support`, `varbit_support`, `temporal_support`).
"""

from __future__ import annotations

from dataclasses import dataclass

from is_db_bootstrap.stores.postgres.live_rows import LiveRows
from is_db_bootstrap.stores.postgres.sql_syntax import Name, quoted

#: Numbers of types, which `pg_type.dat` of PostgreSQL fixes for good.
_BPCHAR, _VARCHAR, _NUMERIC, _BIT, _VARBIT = 1042, 1043, 1700, 1560, 1562
_TIMESTAMP, _TIMESTAMPTZ = 1114, 1184
_TIMES = {_TIMESTAMP, _TIMESTAMPTZ, 1083, 1266}
#: The modifier of a type without a length counts four more than the length does.
_HEADER = 4
_SCALE_BITS = 0xFFFF
#: Zones in which a time with a zone and one without are the same bytes.
_UTC = {"UTC", "Etc/UTC", "GMT"}
#: Categories of types (`pg_type.typcategory`) whose values can be compared: numbers, texts, times.
_COMPARABLE = {"N", "S", "D"}

_CAST = """
    SELECT (SELECT castmethod::text FROM pg_cast WHERE castsource = %s AND casttarget = %s),
           (SELECT castcontext::text FROM pg_cast WHERE castsource = %s AND casttarget = %s),
           (SELECT typcategory::text FROM pg_type WHERE oid = %s),
           (SELECT typcategory::text FROM pg_type WHERE oid = %s),
           format_type(%s, %s), current_setting('TimeZone')
"""
#: A domain whose constraints each value is held against. The column may be of it already.
_DOMAIN = """
    SELECT 1 FROM pg_type t WHERE t.oid = to_regtype(%s) AND t.typtype = 'd'
    AND (t.typnotnull OR EXISTS (SELECT 1 FROM pg_constraint c WHERE c.contypid = t.oid))
    AND t.oid <> (SELECT a.atttypid FROM pg_attribute a
                  WHERE a.attrelid = to_regclass(%s) AND a.attname = %s)
"""


@dataclass(frozen=True, slots=True)
class TypeChange:
    """What becomes of a column.

    `is_cast` says that a value is converted without `USING`, and `is_comparable` that a value which
    was converted and back can be compared with what it was. `misfit` is a condition on a value
    that the new type refuses because of its length, with `{}` for the value.
    """

    rewrites: bool
    is_cast: bool
    old_type: str
    is_comparable: bool
    misfit: str


def type_change(rows: LiveRows, table: Name, column: str, new_type: str) -> TypeChange:
    """What a new type means for a live column. Raises `NotSeen`."""
    query = f"SELECT NULL::{new_type} AS new, {quoted(column)} FROM {table.quoted} LIMIT 0"
    (new, new_modifier), (old, old_modifier) = rows.result_types(query)
    values = [old, new, old, new, new, old, old, old_modifier]
    row = rows.first(_CAST, values) or (None, None, "", "", "", "")
    method, context, category, old_category, old_type, zone = row
    is_domain = rows.first(_DOMAIN, [new_type, table.quoted, column]) is not None
    if old == new:
        keeps_bytes, is_cast = _is_wider(old, old_modifier, new_modifier), True
    else:
        keeps_bytes = method == "b" and new_modifier == -1
        is_cast = context in {"a", "i"} or (method is None and category == "S")
        if {old, new} == {_TIMESTAMP, _TIMESTAMPTZ} and zone in _UTC:
            keeps_bytes = new_modifier == -1
    return TypeChange(
        rewrites=is_domain or not keeps_bytes,
        is_cast=is_cast,
        old_type=old_type,
        is_comparable=old_category in _COMPARABLE,
        misfit=_misfit(new, new_modifier),
    )


def _misfit(new: int, modifier: int) -> str:
    """A condition on a value `{}` that a type with a length refuses, where a cast would cut it."""
    if modifier < 0:
        return ""
    if new in {_BPCHAR, _VARCHAR}:  # blanks at the end are cut without an error
        return f"length(rtrim({{}}::text, ' ')) > {modifier - _HEADER}"
    if new == _BIT:
        return f"length({{}}::varbit) <> {modifier}"
    return f"length({{}}::varbit) > {modifier}" if new == _VARBIT else ""


def _is_wider(type_: int, old: int, new: int) -> bool:
    """Whether each value of a type with the modifier `old` is one with `new`, byte by byte.

    -1 stands for no length.
    """
    if new in {-1, old}:
        return True
    if old == -1 or type_ == _BPCHAR:
        return False
    if type_ == _NUMERIC:
        return _precision(old) <= _precision(new) and _scale(old) == _scale(new)
    if type_ in {_VARCHAR, _VARBIT} | _TIMES:
        return old <= new
    return False


def _precision(modifier: int) -> int:
    return ((modifier - _HEADER) >> 16) & _SCALE_BITS


def _scale(modifier: int) -> int:
    return (modifier - _HEADER) & 0x7FF
