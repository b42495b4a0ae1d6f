"""Pytest imports our modules as Python does, and rewrites no assertion in them.

Pytest rewrites each module of a package that brings a plugin. For that it parses the module into
syntax nodes. CPython 3.11 counts how deep these are nested for all threads together, so two threads
that import two of our modules may end in a `SystemError` ("AST constructor recursion depth
mismatch", seen on 3.11.7). Our threads do import modules, and no module of ours has an assertion.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

#: How the names of our modules begin.
_OURS = f"{__name__.partition('.')[0]}."


class PlainFinder:
    """Finds the modules of our package, before the finder of pytest does."""

    @staticmethod
    def find_spec(
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The module's specification, whose loader is Python's own. None for other packages."""
        if path is None or not name.startswith(_OURS):
            return None
        return PathFinder.find_spec(name, path, target)


def import_plainly() -> None:
    """From now on, our modules are imported as they are."""
    if PlainFinder not in sys.meta_path:
        sys.meta_path.insert(0, PlainFinder)
