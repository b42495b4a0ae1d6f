"""Values of rows as SQL text, for statements that are shown and not sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import literal
from sqlalchemy.types import JSON, NullType, String

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


def literal_compiler(known: type[SQLCompiler]) -> type[SQLCompiler]:
    """A compiler that also writes values of which SQLAlchemy 2.0 and 2.1 say that they cannot.

    These are documents (`JSON`, `JSONB`), and values of a column that has no type, as
    `op.bulk_insert` is often given. Such a value has the type that SQLAlchemy finds
    for it anywhere else.
    """

    class LiteralCompiler(known):  # type: ignore[valid-type, misc]  # the compiler of a dialect
        """`known`, with more values."""

        def render_literal_value(self, value: Any, type_: Any) -> str:
            """One value as SQL."""
            if isinstance(type_, NullType):
                type_ = literal(value).type
            if isinstance(type_, JSON) and value is not None:
                serializer = getattr(self.dialect, "_json_serializer", None) or json.dumps
                value, type_ = serializer(value), String()
            found: str = super().render_literal_value(value, type_)
            return found

    return LiteralCompiler
