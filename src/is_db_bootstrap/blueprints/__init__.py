"""The built-in blueprints, found by name, and the way in for one's own."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from is_db_bootstrap import declaration_check
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprints import _own
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.neo4j import cypher_file
from is_db_bootstrap.stores.postgres import revisions

#: The blueprint of a call that names none.
DEFAULT = "novel_genesis"


def names() -> list[str]:
    """The built-in blueprints, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str | Path) -> Blueprint:
    """The blueprint of a built-in name (`-` counts as `_`), of a folder, or of `module:ATTRIBUTE`.

    Of one's own, `migrations` and `cypher` are relative to the folder of its module, which has both names by default.
    Raises `ConfigurationError` for none of these, and for a module that fails on import, with file and line.
    """
    text = str(name)
    known = names()
    wanted = text.replace("-", "_")
    if wanted in known:
        return _own.found(text, importlib.import_module(f"{__name__}.{wanted}"), "BLUEPRINT")
    if _own.is_path(text):
        return _not_built_in(_own.from_folder(Path(text)))
    if ":" in text:
        return _not_built_in(_own.from_module(text))
    raise ConfigurationError(
        f"There is no blueprint {text!r}.",
        hint=f"Built in: {', '.join(known)}. Your own: path/to/folder, or my_pkg.my_module:BLUEPRINT.",
    )


def _not_built_in(blueprint: Blueprint) -> Blueprint:
    """One's own, checked; built-in ones are checked by tests."""
    if blueprint.name in names() and not blueprint.is_built_in:
        raise ConfigurationError(
            f"A blueprint of your own is called {blueprint.name}, as a built-in one is.",
            hint="Rename it.",
        )
    declaration_check.check(blueprint)
    if blueprint.migrations_dir is not None:
        revisions.Chain.read(blueprint.migrations_dir)
    if blueprint.cypher_dir is not None:
        cypher_file.load(blueprint.cypher_dir)
    return blueprint
