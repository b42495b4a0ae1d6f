"""Declarations as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain_value(value: Any) -> Any:
    """Frozen values as what JSON can hold; empty fields of a declaration are left out.

    A function is told by its name.
    """
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: plain_value(held) for name, held in named.items() if not _is_empty(held)}
    if isinstance(value, Mapping):
        return {str(key): plain_value(held) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [plain_value(held) for held in value]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    return value


def _is_empty(value: Any) -> bool:
    """Whether a field says nothing; the number 0 counts as nothing too."""
    return value in (None, (), "", False) or value == {}
