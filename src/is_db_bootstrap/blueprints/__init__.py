"""The built-in blueprints, found by name, and the way in for one's own."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError


def names() -> list[str]:
    """The built-in blueprints, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> Blueprint:
    """The blueprint of a built-in name (`-` counts as `_`) or of `module:ATTRIBUTE`; `ConfigurationError` for neither."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        return _checked(name, _imported(module, name), attribute)
    known = names()
    wanted = name.replace("-", "_")
    if wanted not in known:
        raise ConfigurationError(
            f"There is no blueprint {name!r}.", hint=f"Built in: {', '.join(known)}. Your own: my_pkg.my_module:BLUEPRINT."
        )
    return _checked(name, importlib.import_module(f"{__name__}.{wanted}"), "BLUEPRINT")


def _imported(module: str, name: str) -> object:
    here = str(Path.cwd())
    if here not in sys.path:  # an installed command does not look in the working directory by itself
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ConfigurationError(f"The blueprint {name!r} cannot be imported: {exc}.") from exc


def _checked(name: str, module: object, attribute: str) -> Blueprint:
    if not hasattr(module, attribute):
        raise ConfigurationError(f"{name!r}: the module has no {attribute}.", hint="Write my_pkg.my_module:BLUEPRINT.")
    found = getattr(module, attribute)
    if not isinstance(found, Blueprint):
        raise ConfigurationError(
            f"{name!r} is not a Blueprint but {type(found).__name__}.", hint="Write my_pkg.my_module:BLUEPRINT."
        )
    return found
