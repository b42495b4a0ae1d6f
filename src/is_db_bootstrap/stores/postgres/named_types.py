"""The types that a generated revision makes by itself: enums and domains.

Alembic makes such a type with the first table that has it. It makes none for a column that is
added, makes one twice for two new tables, and leaves it behind in a downgrade (alembic#278, #886).
So a generated revision makes each type once, before its tables, and drops it after them. Packages
such as alembic-postgresql-enum do so too. A revision that they write needs them wherever it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from alembic.operations import ops
from sqlalchemy import Connection, TypeDecorator, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.named_types import (
    CreateDomainType,
    CreateEnumType,
    DropDomainType,
    DropEnumType,
)
from sqlalchemy.types import TypeEngine

from is_db_bootstrap.stores.postgres.connection import identifier

#: With parameters by name, a percent sign stays as it is.
_DIALECT: Any = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # its own

NamedType = postgresql.ENUM | postgresql.DOMAIN


def named_type(found: TypeEngine[Any] | None) -> NamedType | None:
    """The enum or domain that PostgreSQL gets from a column's type. None for every other type."""
    while isinstance(found, postgresql.ARRAY | TypeDecorator) or _is_array(found):
        if isinstance(found, TypeDecorator):
            found = found.load_dialect_impl(_DIALECT)
        else:
            found = found.item_type  # type: ignore[union-attr]  # it is an array
    if found is None:
        return None
    native = found.dialect_impl(_DIALECT)
    if isinstance(native, postgresql.DOMAIN):
        return native
    is_enum = isinstance(native, postgresql.ENUM) and native.native_enum and native.name
    return cast("postgresql.ENUM", native) if is_enum else None


def _is_array(found: Any) -> bool:
    return hasattr(found, "item_type")


def missing_types(found: ops.OpContainer, connection: Connection) -> list[NamedType]:
    """The types that columns of `found` have and the database lacks, in their order."""
    needed: dict[str, NamedType] = {}
    for column_type in _column_types(found):
        named = named_type(column_type)
        # With `create_type=False`, a model says that the type is made by other means.
        if named is not None and getattr(named, "create_type", True):
            needed.setdefault(place_of(named), named)
    return [named for named in needed.values() if not is_made(connection, named)]


def _column_types(found: ops.OpContainer) -> Iterator[TypeEngine[Any] | None]:
    for each in found.ops:
        if isinstance(each, ops.OpContainer):
            yield from _column_types(each)
        elif isinstance(each, ops.CreateTableOp):
            yield from (getattr(column, "type", None) for column in each.columns)
        elif isinstance(each, ops.AddColumnOp):
            yield each.column.type
        elif isinstance(each, ops.AlterColumnOp):
            yield each.modify_type


def place_of(named: NamedType) -> str:
    """The quoted name of a type, with its schema if it names one."""
    name = str(named.name)
    return identifier(named.schema, name) if named.schema else identifier(name)


def is_made(connection: Connection, named: NamedType) -> bool:
    """Whether the database has the type."""
    found = func.to_regtype(place_of(named))
    return bool(connection.scalar(select(found.is_not(None))))


def create_statement(named: NamedType) -> str:
    """The statement that makes the type."""
    make: Any = CreateDomainType if isinstance(named, postgresql.DOMAIN) else CreateEnumType
    return str(make(named).compile(dialect=_DIALECT)).strip()


def drop_statement(named: NamedType) -> str:
    """The statement that drops the type."""
    drop: Any = DropDomainType if isinstance(named, postgresql.DOMAIN) else DropEnumType
    return str(drop(named).compile(dialect=_DIALECT)).strip()
