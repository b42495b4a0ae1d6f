"""A stand-in for pandas in the command's own process: both neo4j and pymilvus import it, and nothing that we call uses it.

Importing pandas takes longer than a run with nothing to do. Neither client lets us choose, so the stand-in gives them
what they touch while they are imported: names of classes that nothing is an instance of.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Name(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []  # makes it a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})


def keep_out() -> None:
    """Let later imports of pandas find the stand-in, and imports of pyarrow (neo4j's other option) find nothing."""
    if "pandas" in sys.modules:
        return
    for name in ("pandas", "pandas.api", "pandas.api.types"):
        sys.modules[name] = _StandIn(name)
    sys.modules.setdefault("pyarrow", None)  # type: ignore[arg-type]  # None makes `import pyarrow` fail
