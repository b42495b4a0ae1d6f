"""Values of rows as SQL text, for statements that are shown and not sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import CompileError
from sqlalchemy.types import JSON, NullType, String

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


def literal_compiler(known: type[SQLCompiler]) -> type[SQLCompiler]:
    """A compiler that also writes values of which SQLAlchemy 2.0 and 2.1 say that they cannot.

    These are documents (`JSON`, `JSONB`), values of a column that has no type, as `op.bulk_insert`
    is often given, intervals, and more. Such a value is written as psycopg would send it. So are
    bytes and an empty array, which SQLAlchemy writes in a way that PostgreSQL refuses.
    """

    class LiteralCompiler(known):  # type: ignore[valid-type, misc]  # the compiler of a dialect
        """`known`, with more values."""

        def render_literal_value(self, value: Any, type_: Any) -> str:
            """One value as SQL."""
            if isinstance(type_, JSON) and value is not None:
                serializer = getattr(self.dialect, "_json_serializer", None) or json.dumps
                value, type_ = serializer(value), String()
            if isinstance(type_, NullType) or isinstance(value, bytes) or value == []:
                return _of_psycopg(value)
            try:
                found: str = super().render_literal_value(value, type_)
            except CompileError:
                return _of_psycopg(value)
            return found

    return LiteralCompiler


def _of_psycopg(value: Any) -> str:
    """A value as psycopg writes it. Raises `CompileError` for one that psycopg does not know."""
    try:
        return psycopg.sql.Literal(value).as_string().strip()
    except psycopg.Error as exc:
        raise CompileError(str(exc)) from exc
