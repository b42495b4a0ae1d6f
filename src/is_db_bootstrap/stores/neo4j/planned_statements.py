"""The Cypher that each planned change would send."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.statement_secrets import without_secrets

if TYPE_CHECKING:
    from is_db_bootstrap.stores.neo4j.cypher_text import Statement


def shown_statements(statements: Iterable[Statement]) -> tuple[str, ...]:
    """The statements of a file, each with its semicolon and without passwords."""
    return tuple(f"{without_secrets(each.text.strip())};" for each in statements)


def shown_query(text: str, parameters: Mapping[str, Any]) -> str:
    """A statement of ours with its parameters as literals, the longest names first."""
    for name in sorted(parameters, key=len, reverse=True):
        text = text.replace(f"${name}", _literal(parameters[name]))
    return f"{without_secrets(text)};"


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quoted(str(k))}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if value is None or isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}'"
