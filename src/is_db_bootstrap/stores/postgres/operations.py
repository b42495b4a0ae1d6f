"""What autogenerate found, operation by operation: told in words.

Drops are left out, unless they are allowed.

Autogenerate proposes to drop whatever the models do not declare: tables made by SQL, indexes of an
expression, and columns that another release still writes (alembic#539, caura#1602). A drop is
therefore left out and told, unless it makes room for an object of the same revision, such as an
index whose definition has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alembic.operations import ops
from sqlalchemy import types
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeEngine

from is_db_bootstrap.stores.postgres.statements import Remark, Statement

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's is
_DROPS = (ops.DropTableOp, ops.DropColumnOp, ops.DropIndexOp, ops.DropConstraintOp)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a revision, such as `add column orders.total`.

    `left_out` when it is not written. `by_hand` when only a person can write it; then `detail` says
    how models and revisions differ. `danger` says what the operation may lose, or when it fails.
    """

    verb: str
    subject: str
    detail: str = ""
    left_out: bool = False
    by_hand: bool = False
    danger: str = ""

    def __str__(self) -> str:
        told = f"{self.verb} {self.subject}{f' ({self.detail})' if self.detail else ''}"
        return f"{told}: {self.danger}" if self.danger else told

    def to_dict(self) -> dict[str, str]:
        """The operation in a JSON document."""
        found = {"operation": self.verb, "object": self.subject, "detail": self.detail}
        return found | {"danger": self.danger} if self.danger else found


def without_drops(found: ops.OpContainer) -> list[Operation]:
    """Take every drop out of `found` that makes room for nothing; these drops."""
    left_out: list[Operation] = []
    kept: list[Any] = []
    for each in found.ops:
        if isinstance(each, ops.OpContainer):
            left_out += without_drops(each)
            if each.ops:
                kept.append(each)
        elif isinstance(each, _DROPS) and not _makes_room(each, found.ops):
            left_out.append(_described(each, found.ops, left_out=True))
        else:
            kept.append(each)
    found.ops[:] = kept
    return left_out


def described(found: ops.OpContainer) -> Iterator[Operation]:
    """Each operation in words, in the order in which it is written."""
    for each in found.ops:
        if isinstance(each, ops.OpContainer):
            yield from described(each)
        elif not isinstance(each, Remark | Statement):
            yield _described(each, found.ops)


def mark_dangers(found: ops.OpContainer) -> None:
    """Put a comment above each operation of `found` that may lose something, or fail."""
    marked: list[Any] = []
    for each in found.ops:
        if isinstance(each, ops.OpContainer):
            mark_dangers(each)
        elif danger := _danger(each, found.ops):
            marked.append(Remark(f"Look at this: {danger}."))
        marked.append(each)
    found.ops[:] = marked


def _makes_room(drop: Any, beside: Sequence[Any]) -> bool:
    """Whether an index or constraint of the same table is created again.

    It is the same one by its name, or by its columns.
    """
    if isinstance(drop, ops.DropIndexOp):
        indexes = [each for each in beside if isinstance(each, ops.CreateIndexOp)]
        return any(each.index_name == drop.index_name for each in indexes)
    if not isinstance(drop, ops.DropConstraintOp):
        return False
    created: list[Any] = [each for each in beside if isinstance(each, ops.AddConstraintOp)]
    if any(each.constraint_name == drop.constraint_name for each in created):
        return True
    try:
        gone = drop.reverse()
    except ValueError:  # Alembic does not know what the constraint was
        return False
    return any(type(each) is type(gone) and _columns(each) == _columns(gone) for each in created)


def _columns(constraint: Any) -> list[str]:
    columns = getattr(constraint, "local_cols", None) or getattr(constraint, "columns", None) or ()
    return _names(columns)


def _described(each: Any, beside: Sequence[Any], *, left_out: bool = False) -> Operation:
    verb, subject, detail = _words(each)
    danger = "" if left_out else _danger(each, beside)
    return Operation(verb, subject, detail, left_out, danger=danger)


def _danger(each: Any, beside: Sequence[Any]) -> str:
    """What an operation may lose, or when it fails. Empty when it does neither."""
    if isinstance(each, _DROPS):
        is_made_again = not isinstance(each, ops.DropTableOp) and _makes_room(each, beside)
        return "" if is_made_again else _LOST[type(each)]
    if isinstance(each, ops.AddColumnOp):
        column = each.column
        is_filled = column.nullable or column.server_default is not None
        return "" if is_filled else "fails where the table has rows, because it has no default"
    if isinstance(each, ops.AlterColumnOp):
        return "; ".join(_column_dangers(each))
    return ""


#: What goes with a drop.
_LOST: dict[Any, str] = {
    ops.DropTableOp: "its rows are lost",
    ops.DropColumnOp: "its values are lost",
    ops.DropIndexOp: "what it made fast or unique is so no longer",
    ops.DropConstraintOp: "what it refused is taken from then on",
}


def _column_dangers(each: ops.AlterColumnOp) -> Iterator[str]:
    if each.modify_type is not None and not _holds_all(each.existing_type, each.modify_type):
        yield "values that the new type does not hold are changed, or refused"
    if each.modify_nullable is False:
        yield "fails where the column has NULL"


#: Types of whole numbers, each of which holds those before it.
_INTEGERS = ("SMALLINT", "INTEGER", "BIGINT", "NUMERIC")


def _holds_all(before: TypeEngine[Any] | None, after: TypeEngine[Any]) -> bool:
    """Whether the type `after` is sure to hold every value of the type `before`."""
    old, new = _type(before) if before is not None else "", _type(after)
    if old == new:
        return True
    if old in _INTEGERS and new in _INTEGERS:
        return _INTEGERS.index(old) < _INTEGERS.index(new)
    if isinstance(before, types.Numeric) and isinstance(after, types.Numeric):
        return _has_all_digits(before, after)
    if isinstance(before, types.String) and isinstance(after, types.String):
        return _has_all_characters(before, after)
    return False


def _has_all_characters(before: types.String, after: types.String) -> bool:
    if isinstance(after, types.CHAR):  # PostgreSQL fills it up with blanks
        return False
    return after.length is None or (before.length is not None and before.length <= after.length)


def _has_all_digits(before: types.Numeric[Any], after: types.Numeric[Any]) -> bool:
    if isinstance(before, types.Float) or isinstance(after, types.Float):
        return False
    if after.precision is None:
        return True
    if before.precision is None:
        return False
    old_scale, new_scale = before.scale or 0, after.scale or 0
    has_whole_digits = before.precision - old_scale <= after.precision - new_scale
    return has_whole_digits and old_scale <= new_scale


def _words(each: Any) -> tuple[str, str, str]:
    """Verb, object and detail of one operation."""
    table = _table(each)
    for kind, words in _WORDS.items():
        if isinstance(each, kind):
            verb, part, detail = words(each)
            return verb, f"{table}.{part}" if part else table, detail
    return type(each).__name__, table, ""


#: Of each kind of operation: the verb, the part of the table that it is about, and a detail.
_WORDS: dict[Any, Callable[[Any], tuple[str, str, str]]] = {
    ops.CreateTableOp: lambda o: (
        "create table",
        "",
        ", ".join(c.name for c in o.columns if hasattr(c, "type")),
    ),
    ops.DropTableOp: lambda _: ("drop table", "", ""),
    ops.AddColumnOp: lambda o: ("add column", o.column.name, _type(o.column.type)),
    ops.DropColumnOp: lambda o: ("drop column", o.column_name, ""),
    ops.AlterColumnOp: lambda o: ("alter column", o.column_name, ", ".join(_altered(o))),
    ops.CreateIndexOp: lambda o: (
        "create index",
        o.index_name,
        ", ".join(["unique"] * bool(o.unique) + _names(o.columns)),
    ),
    ops.DropIndexOp: lambda o: ("drop index", o.index_name, ""),
    ops.AddConstraintOp: lambda o: (
        "add constraint",
        o.constraint_name or "(without a name)",
        ", ".join(_columns(o)),
    ),
    ops.DropConstraintOp: lambda o: ("drop constraint", o.constraint_name, ""),
    ops.CreateTableCommentOp: lambda _: ("comment on table", "", ""),
    ops.DropTableCommentOp: lambda _: ("comment on table", "", ""),
}


def _names(columns: Sequence[Any]) -> list[str]:
    return [str(getattr(column, "name", column)) for column in columns]


def _table(each: Any) -> str:
    name = getattr(each, "table_name", None) or getattr(each, "source_table", None) or ""
    schema = getattr(each, "schema", None) or getattr(each, "source_schema", None)
    return f"{schema}.{name}" if schema else str(name)


def _type(found: Any) -> str:
    """A type as PostgreSQL calls it; a type that SQLAlchemy cannot write, as its class says."""
    try:
        return str(found.compile(dialect=_DIALECT))
    except CompileError:
        return str(found)


def _altered(each: ops.AlterColumnOp) -> Iterator[str]:
    if each.modify_type is not None:
        yield f"type {_type(each.existing_type)} becomes {_type(each.modify_type)}"
    if each.modify_nullable is not None:
        yield "takes NULL" if each.modify_nullable else "NOT NULL"
    if each.modify_server_default is not False:
        yield "default" if each.modify_server_default is not None else "no default"
    if each.modify_comment is not False:
        yield "comment"
