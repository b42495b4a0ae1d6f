"""Declarations as the Python source that makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

#: Columns of the source that is written.
_WIDTH = 100
_INDENT = 4


def source_of(value: Any, *, indent: int = 0, before: int = 0) -> str:
    """The expression that makes `value`, with what is left at its default left out.

    `indent` is the column where the statement begins. `before` counts the characters that stand
    before and behind the expression on its line. Raises `TypeError` for a value that has no source.
    """
    on_one_line = _flat(value)
    if indent + before + len(on_one_line) <= _WIDTH:
        return on_one_line
    parts = _parts(value)
    if parts is None:
        return on_one_line
    opening, closing, entries = parts
    inner = indent + _INDENT
    lines = [opening]
    for prefix, entry in entries:
        text = source_of(entry, indent=inner, before=len(prefix) + 1)
        lines.append(f"{' ' * inner}{prefix}{text},")
    lines.append(f"{' ' * indent}{closing}")
    return "\n".join(lines)


def class_names(value: Any) -> set[str]:
    """The names of the classes whose values are in `value`, for an import."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = {type(value).__name__}
        for _, each in _given_fields(value):
            names |= class_names(each)
        return names
    if isinstance(value, Mapping):
        return set().union(*(class_names(each) for each in value.values()))
    if isinstance(value, tuple | list):
        return set().union(*(class_names(each) for each in value))
    return set()


def _flat(value: Any) -> str:
    """The expression on one line."""
    parts = _parts(value)
    if parts is None:
        return _atom(value)
    opening, closing, entries = parts
    inner = ", ".join(f"{prefix}{_flat(entry)}" for prefix, entry in entries)
    is_lone = isinstance(value, tuple) and len(value) == 1
    return f"{opening}{inner}{',' if is_lone else ''}{closing}"


def _parts(value: Any) -> tuple[str, str, list[tuple[str, Any]]] | None:
    """Opening and closing text of a compound value, and its entries with what stands before each.

    None for a value that has no parts.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}(", ")", list(_arguments(value))
    if isinstance(value, Mapping):
        return "{", "}", [(f"{_atom(key)}: ", each) for key, each in value.items()]
    if isinstance(value, tuple):
        return "(", ")", [("", each) for each in value]
    if isinstance(value, list):
        return "[", "]", [("", each) for each in value]
    return None


def _arguments(value: Any) -> Iterator[tuple[str, Any]]:
    """The arguments of a declaration: those before the first gap without their names."""
    all_names = [each.name for each in dataclasses.fields(value)]
    is_in_order = True
    for position, (name, given) in enumerate(_given_fields(value)):
        is_in_order = is_in_order and all_names[position] == name and _is_plain(given)
        yield ("" if is_in_order else f"{name}="), given


def _is_plain(value: Any) -> bool:
    """Whether a value says by itself what it is: a text, or a mapping after texts."""
    return isinstance(value, str | Mapping)


def _given_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a declaration that are not at their default."""
    for each in dataclasses.fields(value):
        given = getattr(value, each.name)
        default = each.default
        if each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        if _is_default(given, default):
            continue
        yield each.name, given


def _is_default(given: Any, default: Any) -> bool:
    """Whether a value is the default. `0` and `False` are two values."""
    if isinstance(given, Mapping) and isinstance(default, Mapping):
        return dict(given) == dict(default)
    return type(given) is type(default) and bool(given == default)


def _atom(value: Any) -> str:
    """The source of a value without parts."""
    if isinstance(value, PurePath):
        return f"Path({_atom(str(value))})"
    if isinstance(value, str):
        text = repr(value)
        is_simple = text[0] == "'" and '"' not in text and "\\" not in text
        return f'"{text[1:-1]}"' if is_simple else text
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    raise TypeError(f"{type(value).__name__} has no source")
