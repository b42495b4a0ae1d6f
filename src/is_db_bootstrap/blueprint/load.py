"""Finding a blueprint: by the name of an entry point, as a folder, or as `module:ATTRIBUTE`.

An entry point of the group `is_db_bootstrap.blueprints` names each blueprint that an installed package brings. The five
reference systems are found that way, and so are the blueprints of any other package.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from is_db_bootstrap.blueprint.beside import file_kinds, files_module, refuse_unread
from is_db_bootstrap.blueprint.check import check
from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.stores.kind import StoreKind

#: The blueprint of a call that names none.
DEFAULT = "novel_genesis"
#: The group of entry points that name blueprints.
GROUP = "is_db_bootstrap.blueprints"
#: Where a folder may define BLUEPRINT.
_FILES = ("blueprint.py", "__init__.py")
#: Modules beside a blueprint that may hold its metadata, the first one first.
_MODELS = ("tables", "models")
_WRITE = "Write my_pkg.my_module:BLUEPRINT."


@cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """The blueprints that installed packages bring, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


def blueprint_names() -> list[str]:
    """The names of the blueprints that installed packages bring, sorted."""
    return sorted(_entry_points())


def load_blueprint(name: str | Path, *, may_have_no_files: bool = False) -> Blueprint:
    """The blueprint of an entry point's name, of a folder, or of `module:ATTRIBUTE`.

    In an entry point's name, `-` counts as `_`. The folders `migrations` and `cypher` of a team's blueprint are relative
    to the folder of its module. Where the blueprint names none, the folders of these names are taken.
    A folder without any migration is an error unless it `may_have_no_files`, as before the first one is written.
    Raises `ConfigurationError` when nothing has that name, when the module fails on import, with file and line, and when
    a file that looks as if it were to be applied would not be read.
    """
    text = str(name)
    installed = text.replace("-", "_")
    if installed in _entry_points():
        return _installed(installed)
    if is_path(text):
        return _checked(from_folder(Path(text)), may_have_no_files=may_have_no_files)
    if ":" in text:
        return _checked(from_module(text), may_have_no_files=may_have_no_files)
    raise ConfigurationError(
        f"There is no blueprint {text!r}.",
        hint=f"Installed: {', '.join(blueprint_names())}. Your own: path/to/folder, or my_pkg.my_module:BLUEPRINT.",
    )


@cache
def _installed(name: str) -> Blueprint:
    """The blueprint of an entry point, placed as a team's own is: its folders may lie beside its module."""
    point = _entry_points()[name]
    with _told(name):
        module = importlib.import_module(point.module)
        blueprint = found(name, module, point.attr)
    if module.__file__ is None:
        return blueprint
    return _placed(blueprint, Path(module.__file__).parent, module.__package__ or "")


def _checked(blueprint: Blueprint, *, may_have_no_files: bool) -> Blueprint:
    """A team's blueprint after its check. Those of installed packages are checked by their own tests."""
    if blueprint.name in _entry_points() and _installed(blueprint.name) != blueprint:
        raise ConfigurationError(
            f"A blueprint of your own is called {blueprint.name}, as an installed one is.",
            hint="Rename it.",
        )
    check(blueprint)
    for kind in file_kinds():
        folder = getattr(blueprint, kind.folder)
        if folder is not None:
            _check_files(kind, folder, may_have_no_files=may_have_no_files)
    return blueprint


def _check_files(kind: StoreKind, folder: Path, *, may_have_no_files: bool) -> None:
    files = files_module(kind)
    if not files.count_files(folder) and not may_have_no_files:
        raise ConfigurationError(
            f"{folder} has no {files.PLURAL}.",
            hint="Write the first one with is-db-bootstrap revision, or remove the folder.",
        )


def is_path(name: str) -> bool:
    """Whether a folder is meant: one that is there, or a name that can be nothing but a path."""
    return Path(name).is_dir() or "/" in name or "\\" in name or name.endswith(".py")


def from_folder(folder: Path) -> Blueprint:
    """The blueprint of a folder of any name; its modules see each other by relative imports."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ConfigurationError(
            f"The blueprint folder {folder} {what}.", hint="Give a folder that holds blueprint.py."
        )
    folder = folder.resolve()
    files = [folder / name for name in _FILES if (folder / name).is_file()]
    package = _package(folder)
    modules = {
        path: _loaded(path, package) for path in reversed(files)
    }  # the package before its blueprint.py
    declared = {path: vars(m)["BLUEPRINT"] for path, m in modules.items() if "BLUEPRINT" in vars(m)}
    if not declared:
        raise _without_blueprint(folder, modules)
    if len({id(value) for value in declared.values()}) > 1:
        raise ConfigurationError(
            f"{folder}: {' and '.join(path.name for path in sorted(declared))} each define a BLUEPRINT.",
            hint="Keep one.",
        )
    path = next(iter(declared))
    blueprint = _placed(found(str(path), modules[path], "BLUEPRINT"), folder, package)
    refuse_unread(folder, blueprint)
    return blueprint


def from_module(name: str) -> Blueprint:
    """The blueprint of `module:ATTRIBUTE`, also of a module in the working directory."""
    dotted, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if (
        here not in sys.path
    ):  # an installed command does not look in the working directory by itself
        sys.path.insert(0, here)
    with _told(name):
        module = importlib.import_module(dotted)
        blueprint = found(name, module, attribute)
    if module.__file__ is None:
        return blueprint
    folder = Path(module.__file__).parent
    blueprint = _placed(blueprint, folder, module.__package__ or "")
    if (
        str(folder) not in sysconfig.get_paths().values()
    ):  # there lie all packages that are installed
        refuse_unread(folder, blueprint)
    return blueprint


def found(name: str, module: object, attribute: str) -> Blueprint:
    """The attribute, if it is a blueprint."""
    if not hasattr(module, attribute):
        raise ConfigurationError(f"{name!r}: the module has no {attribute}.", hint=_WRITE)
    value = getattr(module, attribute)
    if not isinstance(value, Blueprint):
        raise ConfigurationError(
            f"{name!r} is not a Blueprint but {type(value).__name__}.", hint=_WRITE
        )
    return value


def _package(folder: Path) -> str:
    """The name under which the folder is imported: its own, unless something else has it."""
    name = re.sub(r"\W", "_", folder.name)
    name = name if name.isidentifier() else f"_{name}"
    loaded = sys.modules.get(name)
    places = list(getattr(loaded, "__path__", ())) if loaded else _places(name)
    return name if (not places and loaded is None) or str(folder) in places else f"blueprint_{name}"


def _places(name: str) -> list[str]:
    """The folders of a package, or the file of a module, that an import of `name` would find."""
    spec = importlib.util.find_spec(name)
    return [] if spec is None else list(spec.submodule_search_locations or [str(spec.origin)])


def _loaded(path: Path, package: str) -> ModuleType:
    """The module of a file below `package`, which is created from its `__init__.py` or empty."""
    if package not in sys.modules or str(path.parent) not in getattr(
        sys.modules[package], "__path__", ()
    ):
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            del sys.modules[name]  # of another folder with this name
        init = path.parent / "__init__.py"
        _executed(init, package) if init.is_file() else _empty_package(package, path.parent)
    if path.name == "__init__.py":
        return sys.modules[package]
    name = f"{package}.{path.stem}"
    return sys.modules.get(name) or _executed(path, name)


def _empty_package(package: str, folder: Path) -> None:
    module = ModuleType(package)
    module.__path__ = [str(folder)]
    sys.modules[package] = module


def _executed(path: Path, name: str) -> ModuleType:
    places = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _told(str(path)):
            spec.loader.exec_module(module)
    except ConfigurationError:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What an import raises, `SystemExit` included, becomes a `ConfigurationError` with its file and line."""
    try:
        with strict_guest():
            yield
    except GuestFailed as exc:
        raise ConfigurationError(f"The blueprint {name!r} cannot be imported: {exc}.") from exc


def _without_blueprint(folder: Path, modules: dict[Path, ModuleType]) -> ConfigurationError:
    if not modules:
        return ConfigurationError(
            f"{folder} holds no blueprint: neither {' nor '.join(_FILES)} is there.",
            hint="Begin one: is-db-bootstrap new NAME.",
        )
    others = sorted(
        {
            n
            for m in modules.values()
            for n, value in vars(m).items()
            if isinstance(value, Blueprint)
        }
    )
    instead = f", but {' and '.join(others)}" if others else ""
    names = " and ".join(sorted(path.name for path in modules))
    return ConfigurationError(
        f"{folder}: no BLUEPRINT is defined in {names}{instead}.",
        hint="Write BLUEPRINT = Blueprint(…).",
    )


def _placed(blueprint: Blueprint, folder: Path, package: str) -> Blueprint:
    """With its folders made absolute and its models found."""
    migrations = _inside(folder, blueprint.migrations, "migrations")
    cypher = _inside(folder, blueprint.cypher, "cypher")
    beside = next((name for name in _MODELS if (folder / f"{name}.py").is_file()), "")
    models = blueprint.models or (f"{package}.{beside}" if package and beside else beside)
    return replace(blueprint, migrations=migrations, cypher=cypher, models=models)


def _inside(folder: Path, given: Path | None, default: str) -> Path | None:
    if given is None:
        return folder / default if (folder / default).is_dir() else None
    if not (folder / given).is_dir():
        raise ConfigurationError(
            f"{folder}: the folder {given}, which the blueprint names, is not there."
        )
    return folder / given
