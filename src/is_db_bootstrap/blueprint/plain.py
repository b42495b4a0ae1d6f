"""Declarations as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def plain_value(value: Any) -> Any:
    """Frozen values as dictionaries and lists.

    Fields of a declaration that say nothing are left out.
    """
    if is_dataclass(value) and not isinstance(value, type):
        held = {each.name: getattr(value, each.name) for each in fields(value)}
        return {name: plain_value(each) for name, each in held.items() if not _says_nothing(each)}
    if isinstance(value, Mapping):
        return {str(key): plain_value(held) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [plain_value(held) for held in value]
    return value


def _says_nothing(value: Any) -> bool:
    return value in (None, (), "", False) or value == {}
