"""Finding a blueprint: by the name of an entry point, as a folder, or as `module:ATTRIBUTE`.

An entry point of the group `is_db_bootstrap.blueprints` names each blueprint that an installed
package brings. The five reference systems are found that way, and so are the blueprints of any
other package.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from is_db_bootstrap.blueprint.beside import (
    brings_environment,
    file_kinds,
    files_module,
    holds_installed_packages,
    refuse_unread,
)
from is_db_bootstrap.blueprint.check import check, check_types
from is_db_bootstrap.blueprint.declarations import AlembicEnvironment, Baseline, Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.nearest import nearest
from is_db_bootstrap.settings.choice import Choice
from is_db_bootstrap.settings.sources import Table, refuse_address
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.kinds import KINDS

#: The group of entry points that name blueprints.
GROUP = "is_db_bootstrap.blueprints"
#: The files of a folder that may define its blueprint. The package is imported before its module.
_PACKAGE_FILE = "__init__.py"
_MODULE_FILE = "blueprint.py"
#: The name by which such a file defines it.
_ATTRIBUTE = "BLUEPRINT"
#: The name of a blueprint that a TOML file declares, unless the file says another one. The name
#: must not hang on the folder: an image has the same file in another one.
_NAME_OF_PROJECT = "application"
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


def load_chosen(choice: Choice, *, may_have_no_files: bool = False) -> Blueprint:
    """The blueprint that a call has chosen. Everything else is as for `load_blueprint`.

    A module that a file names is looked for in the folder of that file first.
    """
    name = loadable_name(choice)
    if choice.folder is not None and ":" in name:
        _look_for_modules_in(choice.folder)
    return load_blueprint(name, may_have_no_files=may_have_no_files)


def loadable_name(choice: Choice) -> str:
    """What `load_blueprint` takes for a chosen blueprint, in the working directory of this process.

    An installed name wins over a folder of that name.
    """
    name = choice.path_in_folder()
    if choice.folder is None or name != choice.name or _is_installed(name):
        return name
    folder = choice.folder / name
    return str(folder) if folder.is_dir() else name


def _is_installed(name: str) -> bool:
    return name.replace("-", "_") in _entry_points()


def load_blueprint(name: str | Path, *, may_have_no_files: bool = False) -> Blueprint:
    """The blueprint of an entry point's name, a folder, a TOML file, or of `module:ATTRIBUTE`.

    In an entry point's name, `-` counts as `_`. The folders that a team's blueprint names are
    relative to the folder of its module. Where the blueprint names none, the folders `migrations`
    and `cypher` beside the module are taken. A folder without any migration is an error unless the
    blueprint `may_have_no_files`, as before the first one is written.

    Raises `ConfigurationError`

    - when nothing has that name
    - when the module fails on import, with file and line
    - when a declaration or a file of the blueprint is wrong
    - when a file that looks as if it were to be applied would not be read
    """
    text = str(name)
    refuse_address("The name of a blueprint", text)
    installed_name = text.replace("-", "_")
    if installed_name in _entry_points():
        if not may_have_no_files:
            _check_installed_files(installed_name)
        return _installed_blueprint(installed_name)
    if text.endswith(".toml"):
        blueprint = from_toml(Path(text))
    elif is_path(text):
        blueprint = from_folder(Path(text))
    elif ":" in text:
        blueprint = from_module(text)
    else:
        near = nearest(installed_name, blueprint_names())
        suggestion = f" Did you mean {near!r}?" if near else ""
        raise ConfigurationError(
            f"There is no blueprint {text!r}.{suggestion}",
            hint=(
                f"Installed: {', '.join(blueprint_names())}. "
                "Your own: path/to/folder, or my_pkg.my_module:BLUEPRINT."
            ),
        )
    _check_own_blueprint(blueprint, may_have_no_files=may_have_no_files)
    return blueprint


@cache
def _installed_blueprint(name: str) -> Blueprint:
    """The blueprint of an entry point. As with a team's own, its folders may lie beside its module.

    Its declarations are not checked: the tests of the package that brings it do that. What would
    be passed over in silence is refused, as with a team's own.
    """
    point = _entry_points()[name]
    module, blueprint = _imported_blueprint(name, point.module, point.attr)
    return _with_what_lies_beside(blueprint, module, is_trusted=is_reference_system(name))


@cache
def _check_installed_files(name: str) -> None:
    """Refuse a blueprint of another package with a folder without any migration."""
    if is_reference_system(name):
        return
    blueprint = _installed_blueprint(name)
    for kind, folder in _folders_of(blueprint):
        _check_files(kind, folder, may_have_no_files=False)


def is_reference_blueprint(blueprint: Blueprint) -> bool:
    """Whether it is one of those that this package brings, as it brings it."""
    name = blueprint.name
    is_ours = name in _entry_points() and is_reference_system(name)
    return is_ours and _installed_blueprint(name) == blueprint


def is_reference_system(name: str) -> bool:
    """Whether this package brings the blueprint. Its own tests look at the files then."""
    return _entry_points()[name].module.partition(".")[0] == __name__.partition(".")[0]


def _check_own_blueprint(blueprint: Blueprint, *, may_have_no_files: bool) -> None:
    """Refuse a team's blueprint with the name of another one, or with something wrong in it."""
    name = blueprint.name
    if name in _entry_points() and _installed_blueprint(name) != blueprint:
        raise ConfigurationError(
            f"A blueprint of your own is called {name}, as an installed one is.",
            hint="Rename it.",
        )
    check(blueprint)
    for kind, folder in _folders_of(blueprint):
        _check_files(kind, folder, may_have_no_files=may_have_no_files)


def _folders_of(blueprint: Blueprint) -> Iterator[tuple[StoreKind, Path]]:
    """The folders of files that the blueprint has, each with its kind of store."""
    for kind in file_kinds():
        folder = getattr(blueprint, kind.folder)
        if folder is not None:
            yield kind, folder


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


# --- from a folder


def from_folder(folder: Path) -> Blueprint:
    """The blueprint of a folder of any name.

    Modules of the folder see each other by relative imports.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ConfigurationError(
            f"The blueprint folder {folder} {what}.", hint="Give a folder that holds blueprint.py."
        )
    folder = folder.resolve()
    package = _free_package_name(folder)
    modules = _modules_of_folder(folder, package)
    path = _defining_file(folder, modules)
    declared = blueprint_attribute(str(path), modules[path], _ATTRIBUTE)
    check_types(declared)
    blueprint = _with_folders(declared, folder, package)
    refuse_unread(folder, blueprint)
    return blueprint


def _modules_of_folder(folder: Path, package: str) -> dict[Path, ModuleType]:
    """The modules of the files that may define the blueprint, in the order of their import."""
    paths = [folder / name for name in (_PACKAGE_FILE, _MODULE_FILE)]
    return {path: _imported_file(path, package) for path in paths if path.is_file()}


def _defining_file(folder: Path, modules: Mapping[Path, ModuleType]) -> Path:
    """The file that defines the blueprint. Both may, as long as it is the same object."""
    defined = {
        path: vars(module)[_ATTRIBUTE]
        for path, module in modules.items()
        if _ATTRIBUTE in vars(module)
    }
    if not defined:
        raise _error_without_blueprint(folder, modules)
    if len({id(value) for value in defined.values()}) > 1:
        names = " and ".join(sorted(path.name for path in defined))
        raise ConfigurationError(f"{folder}: {names} each define a BLUEPRINT.", hint="Keep one.")
    return next(iter(defined))


def _error_without_blueprint(
    folder: Path, modules: Mapping[Path, ModuleType]
) -> ConfigurationError:
    """The error of a folder that defines no BLUEPRINT. It names blueprints of other names."""
    if not modules:
        return ConfigurationError(
            f"{folder} holds no blueprint: neither {_MODULE_FILE} nor {_PACKAGE_FILE} is there.",
            hint="Begin one: is-db-bootstrap new NAME.",
        )
    others = sorted(
        {
            name
            for module in modules.values()
            for name, value in vars(module).items()
            if isinstance(value, Blueprint)
        }
    )
    instead = f", but {' and '.join(others)}" if others else ""
    names = " and ".join(sorted(path.name for path in modules))
    return ConfigurationError(
        f"{folder}: no BLUEPRINT is defined in {names}{instead}.",
        hint="Write BLUEPRINT = Blueprint(…).",
    )


# --- from a TOML file


def from_toml(path: Path) -> Blueprint:
    """The blueprint of a TOML file that names a team's own environment of Alembic.

    The environment's file is relative to the TOML file.
    """
    table = Table.read(path)
    for name, kind in KINDS.items():
        section = table.section(name)
        if kind.environment not in section:
            continue
        environment = AlembicEnvironment(
            ini=Path(section[kind.environment]),
            **{key: _tuple(section[key], key) for key in kind.environment_keys if key in section},
        )
        name_of_project = table.top.get("name", _NAME_OF_PROJECT)
        named: dict[str, Any] = {kind.environment: environment}
        given = [section.get(key, "") for key in kind.baseline_keys]
        if any(given):
            named["baseline"] = Baseline(*given)
        declared = replace(Blueprint(name_of_project, f"What {path.name} names."), **named)
        check_types(declared)
        return _with_environment(declared, path.resolve().parent)
    raise ConfigurationError(
        f"{path} declares no blueprint.",
        hint='Name the environment of Alembic there, as in: alembic = "alembic.ini".',
    )


def _tuple(value: Any, key: str) -> Any:
    """What a declaration takes for a value of the file. One argument may stand without a list."""
    if key == "x":
        return (value,) if isinstance(value, str) else tuple(value)
    return value


# --- from a module


def from_module(name: str) -> Blueprint:
    """The blueprint of `module:ATTRIBUTE`, also of a module in the working directory."""
    dotted, _, attribute = name.partition(":")
    _look_for_modules_in(Path.cwd())
    module, blueprint = _imported_blueprint(name, dotted, attribute)
    return _with_what_lies_beside(blueprint, module)


def _look_for_modules_in(folder: Path) -> None:
    """Let Python find modules in a folder, where an installed command does not look by itself."""
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)


def _with_what_lies_beside(
    blueprint: Blueprint, module: ModuleType, *, is_trusted: bool = False
) -> Blueprint:
    """The blueprint with its folders and models.

    Unless it `is_trusted`, its types are checked, and what lies beside its module and would be
    passed over is refused.
    """
    if not is_trusted:
        check_types(blueprint)
    folder = _module_folder(module)
    if folder is None:
        return blueprint
    blueprint = _with_folders(blueprint, folder, module.__package__ or "")
    if not is_trusted and not holds_installed_packages(folder):
        refuse_unread(folder, blueprint)
    return blueprint


def _imported_blueprint(name: str, dotted: str, attribute: str) -> tuple[ModuleType, Blueprint]:
    """The module `dotted` and its blueprint; `name` is what messages call it."""
    with _import_errors(name):
        module = importlib.import_module(dotted)
        return module, blueprint_attribute(name, module, attribute)


def _module_folder(module: ModuleType) -> Path | None:
    """The folder of the module's file; None for a module without a file."""
    return None if module.__file__ is None else Path(module.__file__).parent


def blueprint_attribute(name: str, module: object, attribute: str) -> Blueprint:
    """The attribute of the module.

    Raises `ConfigurationError` unless it is there and a blueprint.
    """
    if not hasattr(module, attribute):
        raise ConfigurationError(f"{name!r}: the module has no {attribute}.", hint=_WRITE)
    value = getattr(module, attribute)
    if not isinstance(value, Blueprint):
        raise ConfigurationError(
            f"{name!r} is not a Blueprint but {type(value).__name__}.", hint=_WRITE
        )
    return value


@contextmanager
def _import_errors(name: str) -> Iterator[None]:
    """Whatever an import raises becomes a `ConfigurationError` with file and line."""
    try:
        with strict_guest():
            yield
    except GuestFailed as exc:
        raise ConfigurationError(f"The blueprint {name!r} cannot be imported: {exc}.") from exc


# --- importing the files of a folder


def _free_package_name(folder: Path) -> str:
    """The name under which the folder is imported: its own, unless something else has it."""
    name = re.sub(r"\W", "_", folder.name)
    if not name.isidentifier():
        name = f"_{name}"
    loaded = sys.modules.get(name)
    places = list(getattr(loaded, "__path__", ())) if loaded else _import_places(name)
    is_unused = loaded is None and not places
    return name if is_unused or str(folder) in places else f"blueprint_{name}"


def _import_places(name: str) -> list[str]:
    """The folders of a package, or the file of a module, that an import of `name` would find."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    return list(spec.submodule_search_locations or [str(spec.origin)])


def _imported_file(path: Path, package: str) -> ModuleType:
    """The module of a file in the folder whose package is called `package`."""
    if not _is_loaded_from(path.parent, package):
        _forget_package(package)
        _load_package(path.parent, package)
    if path.name == _PACKAGE_FILE:
        return sys.modules[package]
    name = f"{package}.{path.stem}"
    return sys.modules.get(name) or _executed_file(path, name)


def _is_loaded_from(folder: Path, package: str) -> bool:
    loaded = sys.modules.get(package)
    return loaded is not None and str(folder) in getattr(loaded, "__path__", ())


def _forget_package(package: str) -> None:
    """Forget the modules of another folder with this name."""
    for name in list(sys.modules):
        if name == package or name.startswith(f"{package}."):
            del sys.modules[name]


def _load_package(folder: Path, package: str) -> None:
    """Create the package from its `__init__.py`, or an empty one."""
    init = folder / _PACKAGE_FILE
    if init.is_file():
        _executed_file(init, package)
        return
    module = ModuleType(package)
    module.__path__ = [str(folder)]
    sys.modules[package] = module


def _executed_file(path: Path, name: str) -> ModuleType:
    """The module `name`, made by running the file; nothing is left of it when that fails."""
    places = [str(path.parent)] if path.name == _PACKAGE_FILE else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _import_errors(str(path)):
            spec.loader.exec_module(module)
    except ConfigurationError:
        del sys.modules[name]
        raise
    return module


# --- folders and models beside the module


def _with_folders(blueprint: Blueprint, folder: Path, package: str) -> Blueprint:
    """The blueprint with its folders made absolute and its models found."""
    folders: dict[str, Any] = {
        kind.folder: _absolute_folder(folder, getattr(blueprint, kind.folder), kind.folder)
        for kind in file_kinds()
        if not brings_environment(kind, blueprint)
    }
    models = blueprint.models or _models_beside(folder, package)
    return replace(_with_environment(blueprint, folder), models=models, **folders)


def _with_environment(blueprint: Blueprint, folder: Path) -> Blueprint:
    """The blueprint with the file of its environment made absolute. Raises when it is not there."""
    if blueprint.baseline is not None and blueprint.baseline.folder is None:
        begun = replace(blueprint.baseline, folder=folder.resolve())
        blueprint = replace(blueprint, baseline=begun)
    for kind in KINDS.values():
        environment = getattr(blueprint, kind.environment) if kind.environment else None
        if environment is None:
            continue
        path = folder / environment.ini
        if not path.is_file():
            raise ConfigurationError(
                f"{folder}: the file {environment.ini}, which the blueprint names, is not there."
            )
        made = replace(environment, ini=path.resolve())
        return replace(blueprint, **{kind.environment: made})
    return blueprint


def _models_beside(folder: Path, package: str) -> str:
    """The dotted name of the module with models in the folder; empty without one."""
    for name in _MODELS:
        if (folder / f"{name}.py").is_file():
            return f"{package}.{name}" if package else name
    return ""


def _absolute_folder(folder: Path, given: Path | None, usual_name: str) -> Path | None:
    """The folder that a blueprint names, else the one with the usual name if that is there."""
    if given is None:
        usual = folder / usual_name
        return usual if usual.is_dir() else None
    if not (folder / given).is_dir():
        raise ConfigurationError(
            f"{folder}: the folder {given}, which the blueprint names, is not there."
        )
    return folder / given
