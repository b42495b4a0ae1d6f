"""Whether each field of a blueprint's declarations has a value of its declared type.

Python does not look at annotations, so a forgotten comma or a number in quotes would end in a
traceback later, perhaps after something was created. The types themselves are compared by msgspec.
It takes an integer for a float and a list for a tuple, and no bool for an integer.
"""

from __future__ import annotations

import inspect
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from is_db_bootstrap.blueprint import declarations
from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.settings.secrets import shown

#: A name with its module, as Python writes a type: `collections.abc.Mapping`.
_MODULE_OF_NAME = re.compile(r"\b(?:\w+\.)+(?=\w)")

#: The classes of declarations.
_DECLARATIONS = {
    kind
    for kind in vars(declarations).values()
    if isinstance(kind, type) and kind.__module__ == declarations.__name__
}


def wrong_types(blueprint: Blueprint) -> Iterator[str]:
    """Each field whose value is of another type, as `keys[0] 'session': ttl='60' is not int`."""
    yield from _wrong_fields(blueprint, "")


def _wrong_fields(declared: Any, place: str) -> Iterator[str]:
    """The wrong fields of one declaration and of all declarations below it."""
    prefix = f"{place}: " if place else ""
    for name, hint in _declared_types(declared).items():
        value = getattr(declared, name)
        if _is_of_type(value, hint):
            yield from _wrong_below(value, f"{place}.{name}" if place else name)
        else:
            found = f"{prefix}{name}={_SHORT.repr(value)}"
            yield f"{found} is not {_expected(hint)}{_reason(value, hint)}"


def _wrong_below(value: Any, place: str) -> Iterator[str]:
    """The wrong fields of the declarations that a value of the right type holds."""
    if _declared_types(value):
        yield from _wrong_fields(value, place)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _wrong_below(item, f"{place}[{number}]{_name_of(item)}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _wrong_below(item, f"{place}[{key!r}]")


def _declared_types(value: object) -> Mapping[str, Any]:
    """The fields of a declaration, each with its type; none for any other value."""
    kind = next((kind for kind in type(value).__mro__ if kind in _DECLARATIONS), None)
    return {} if kind is None else get_type_hints(kind)


def _is_of_type(value: object, hint: Any) -> bool:
    import msgspec

    try:
        msgspec.convert(value, hint, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def _reason(value: object, hint: Any) -> str:
    """More about a tuple: the comma that is missing, or the items that do not belong there."""
    if get_origin(hint) is not tuple or get_args(hint)[1:] != (...,):
        return ""
    item_type = get_args(hint)[0]
    if isinstance(value, list | tuple):
        wrong = (number for number, item in enumerate(value) if not _is_of_type(item, item_type))
        return f" (item {', '.join(map(str, wrong))})"
    if _is_of_type(value, item_type):
        return f" (one {_type_text(item_type)} alone is written with a comma behind it: (…,))"
    return ""


def _name_of(item: object) -> str:
    """A blank and the name of a declaration that has one."""
    name = getattr(item, "name", None)
    return f" {name!r}" if isinstance(name, str) else ""


class _ShortText(reprlib.Repr):
    """Values for a message: short, and without the secret of an address."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(shown(x), level)

    def repr_instance(self, x: Any, level: int) -> str:
        is_declaration = bool(_declared_types(x))
        return f"{type(x).__name__}(…)" if is_declaration else super().repr_instance(x, level)


_SHORT = _ShortText()


def _expected(hint: Any) -> str:
    """What a field takes: one of some words, or a type."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return _type_text(hint)


def _type_text(hint: Any) -> str:
    """A type as its declaration writes it: `tuple[KeyPattern, ...]`."""
    return _MODULE_OF_NAME.sub("", inspect.formatannotation(hint))
