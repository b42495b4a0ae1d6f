"""A digest of what a blueprint makes of a store: two that are equal need not be applied twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from is_db_bootstrap import __version__, blueprints
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.settings import Settings


def contract(blueprint: Blueprint, settings: Settings) -> str:
    """Twelve hexadecimal digits of everything that decides what a store looks like: declarations, files, settings, version."""
    digest = hashlib.sha256(
        f"{__version__} {settings.schema} {sorted(settings.values.items())}".encode()
    )
    digest.update(repr(_plain(blueprint.resolve(settings.values))).encode())
    for folder in filter(None, (blueprint.migrations_dir, blueprint.cypher_dir)):
        beside = folder.parent.glob("*.py") if not blueprint.is_built_in else ()
        for path in sorted({*folder.rglob("*"), *beside, *_modules(blueprint)}):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _plain(value: Any) -> Any:
    """A declaration in a form that prints the same in every process, which sets and functions do not."""
    if is_dataclass(value):
        return [(f.name, _plain(getattr(value, f.name))) for f in fields(value) if f.repr]
    if isinstance(value, Mapping):
        return sorted((str(k), _plain(v)) for k, v in value.items())
    if isinstance(value, AbstractSet):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value)


def _modules(blueprint: Blueprint) -> list[Path]:
    """The sources of a built-in blueprint, which its revisions may import."""
    folder = Path(next(iter(blueprints.__path__))) / blueprint.name
    return list(folder.glob("*.py")) if blueprint.is_built_in else []
