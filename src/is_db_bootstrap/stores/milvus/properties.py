"""The properties of a collection, in typed normal forms.

A server keeps texts: `True`, `"true"` and `"True"` are one value, and so are `100`, `"100"` and
`100.0`. The lifetime of rows may be declared as `ttl_seconds` or as the property itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection

TTL_PROPERTY = "collection.ttl.seconds"
_NO_LIFETIME = "0"


@dataclass(frozen=True, slots=True)
class PropertyDifference:
    """A declared property that has another value. `actual` is None when the server has none."""

    key: str
    expected: str
    actual: str | None

    @property
    def words(self) -> str:
        """Such as `is absent, declared true`."""
        found = "absent" if self.actual is None else self.actual
        return f"is {found}, declared {self.expected}"


def normal_text(value: Any) -> str:
    """The one text that stands for all spellings of a value."""
    text = str(value).strip()
    if text.lower() in {"true", "false"}:
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        return str(value)
    is_whole = math.isfinite(number) and number == int(number)
    return str(int(number)) if is_whole else str(number)


def declared_properties(declared: Collection) -> dict[str, str]:
    """The declared properties as Milvus keeps them, the lifetime included if one is declared."""
    wanted = {key: normal_text(value) for key, value in declared.properties.items()}
    if declared.ttl_seconds:
        wanted[TTL_PROPERTY] = str(declared.ttl_seconds)
    return wanted


def property_differences(
    declared: Collection, properties: Mapping[str, Any]
) -> Iterator[PropertyDifference]:
    """Each declared property that is absent or has another value.

    A lifetime that is not declared is one of 0 seconds: rows do not expire.
    """
    wanted = {TTL_PROPERTY: _NO_LIFETIME, **declared_properties(declared)}
    for key, expected in wanted.items():
        actual = _shown_property(key, properties)
        if actual != expected:
            yield PropertyDifference(key, expected, actual)


def _shown_property(key: str, properties: Mapping[str, Any]) -> str | None:
    """What the server shows of a property, in its normal form.

    No lifetime, and a negative one, are 0.
    """
    shown = properties.get(key)
    text = None if shown is None else normal_text(shown)
    is_endless = key == TTL_PROPERTY and (not text or text.startswith("-"))
    return _NO_LIFETIME if is_endless else text
