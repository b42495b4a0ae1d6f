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
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's is
_DROPS = (ops.DropTableOp, ops.DropColumnOp, ops.DropIndexOp, ops.DropConstraintOp)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a revision, such as `add column orders.total`.

    `left_out` when it is not written.
    """

    verb: str
    subject: str
    detail: str = ""
    left_out: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}{f' ({self.detail})' if self.detail else ''}"

    def to_dict(self) -> dict[str, str]:
        """The operation in a JSON document."""
        return {"operation": self.verb, "object": self.subject, "detail": self.detail}


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
            left_out.append(_described(each, left_out=True))
        else:
            kept.append(each)
    found.ops[:] = kept
    return left_out


def described(found: ops.OpContainer) -> Iterator[Operation]:
    """Each operation in words, in the order in which it is written."""
    for each in found.ops:
        if isinstance(each, ops.OpContainer):
            yield from described(each)
        else:
            yield _described(each)


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


def _described(each: Any, *, left_out: bool = False) -> Operation:
    verb, subject, detail = _words(each)
    return Operation(verb, subject, detail, left_out)


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
