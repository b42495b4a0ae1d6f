"""A digest of what a blueprint makes of a store: two that are equal need not be applied twice."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn

from is_db_bootstrap import __version__
from is_db_bootstrap.blueprint.beside import brings_environment, files_module
from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.kinds import KINDS


def fingerprint(blueprint: Blueprint, settings: Settings, resolved: Blueprint | None = None) -> str:
    """Twelve hexadecimal digits of everything that decides what a store looks like.

    That is: the declarations, the files, the Python sources that revisions may import, the
    settings, and the version of this package. `resolved` is the blueprint for these settings, where
    it is known already. The digits are the same in every process and in every folder.
    """
    digest = hashlib.sha256(
        f"{__version__} {settings.schema} {sorted(settings.values.items())}".encode()
    )
    resolved = resolved or blueprint.resolve(settings.values)
    digest.update(repr(_printable(resolved)).encode())
    if blueprint.baseline and blueprint.baseline.file:
        digest.update(_name_and_content(blueprint.baseline.file))
    for folder in _folders(blueprint):
        for path in (*_files_in(folder), *sorted(folder.parent.glob("*.py"))):
            digest.update(_name_and_content(path))
    for path in sorted(_sources_beside_models(blueprint)):
        digest.update(_name_and_content(path))
    return digest.hexdigest()[:12]


def _folders(blueprint: Blueprint) -> Iterator[Path]:
    """The folders whose files decide what a store looks like."""
    yield from filter(None, (blueprint.migrations, blueprint.cypher))
    for kind in KINDS.values():
        if brings_environment(kind, blueprint):
            environment = getattr(blueprint, kind.environment)
            yield from files_module(kind).environment_folders(environment)


def _files_in(folder: Path) -> Iterator[Path]:
    """The files of a folder and of the folders in it, without hidden and compiled ones.

    Raises `ConfigurationError` for a folder that cannot be read.
    """
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(each for each in folders if not each.startswith((".", "__pycache__")))
        counted = (each for each in names if not each.startswith(".") and not _is_compiled(each))
        yield from (Path(parent, each) for each in sorted(counted))


def _is_compiled(name: str) -> bool:
    return name.endswith((".pyc", ".pyo"))


def _name_and_content(path: Path) -> bytes:
    """The name of a file and what it holds. The name alone of what is no file.

    Raises `ConfigurationError` for a file that cannot be read.
    """
    name = os.fsencode(path.name)
    try:
        return name + path.read_bytes() if path.is_file() else name
    except OSError as exc:
        raise _unreadable(str(path), exc) from exc


def _refuse_folder(error: OSError) -> NoReturn:
    raise _unreadable(str(error.filename), error) from error


def _unreadable(path: str, error: OSError) -> ConfigurationError:
    """What nobody can read may be anything, so it is not passed over.

    Its size and its time would do on one machine, but they differ where a folder was copied.
    """
    return ConfigurationError(
        f"{path} belongs to the blueprint and cannot be read: {error.strerror or error}.",
        hint="Let this user read it, or take it out of the blueprint's folder.",
    )


def _printable(value: Any) -> Any:
    """A declaration in a form that prints the same in every process and in every folder.

    Sets and functions do not print the same twice. A path is different on every machine, and its
    files are read anyway.
    """
    if is_dataclass(value):
        return [(f.name, _printable(getattr(value, f.name))) for f in fields(value) if f.repr]
    if isinstance(value, Mapping):
        return sorted((str(k), _printable(v)) for k, v in value.items())
    if isinstance(value, AbstractSet):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_printable(v) for v in value]
    return _printable_plain(value)


def _printable_plain(value: Any) -> str:
    """A value that holds no others."""
    if isinstance(value, Path):
        return value.name
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return str(value)


def _sources_beside_models(blueprint: Blueprint) -> list[Path]:
    """The Python files of the package that holds the blueprint's models.

    The package was imported with the blueprint. The models themselves need not be.
    """
    package = sys.modules.get(blueprint.models.rpartition(".")[0])
    folders = list(getattr(package, "__path__", ()))
    return [path for folder in folders for path in Path(folder).glob("*.py")]
