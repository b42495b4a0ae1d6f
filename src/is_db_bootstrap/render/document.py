"""Results as one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.wording import visible_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from is_db_bootstrap.results import BootstrapResult


def document(result: BootstrapResult) -> str:
    """The document of `docs/reference/result.schema.json`."""
    return as_json(result.to_dict())


def as_json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """A document as commands print it: indented, in its own letters, with a line end."""
    return visible_json(json.dumps(value, indent=2, ensure_ascii=False)) + "\n"
