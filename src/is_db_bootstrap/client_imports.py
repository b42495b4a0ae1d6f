"""Imports the clients, without pandas, pyarrow and requests when the command asks for that.

Importing pandas takes longer than a run with nothing to do. Both neo4j and pymilvus import pandas,
and a run hardly ever uses pandas. The same is true of requests, which pymilvus asks only for global
endpoints. So the modules of these clients, and no other modules, get proxies while the clients are
imported:

* `sys.modules` never holds a proxy. Whatever else imports pandas, before, meanwhile or later, gets
  the real module.
* A proxy that is called, or is asked for a value, imports the real module and forwards to it.
* A package that is already imported, or that is not installed, is left alone. The client gets the
  package, or its `ImportError`.
* When anybody imports pandas for real, the proxies in the clients' modules are replaced by what
  they stand for.

Meanwhile, Python's garbage collector rests, which takes a seventh of the time of these imports. It
would look through the same modules again and again, and modules are no garbage. Afterwards it
leaves out of its looks what was imported.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from is_db_bootstrap.settings.hidden import without_dotenv

#: The packages that are kept out, and the clients that do not get them.
KEPT_OUT = ("pandas", "pyarrow", "requests")
CLIENTS = ("neo4j", "pymilvus")

_import = builtins.__import__


class _State:
    """Whether `keep_out` was called, and how many imports of clients are under way.

    `collects` says whether the garbage collector was at work before these.
    """

    asked_for = False
    imports = 0
    collects = False
    lock = threading.Lock()


def keep_out() -> None:
    """From now on, `import_module` keeps the packages of `KEPT_OUT` out of the clients.

    Only the command calls this, for its own process.
    """
    _State.asked_for = True


def import_module(name: str) -> ModuleType:
    """The module `name`, which may import clients. Raises what importing it raises.

    No client reads a `.env` file meanwhile.
    """
    if name in sys.modules:
        return importlib.import_module(name)
    with without_dotenv():
        if not _State.asked_for:
            return importlib.import_module(name)
        with _proxies_for_clients():
            return importlib.import_module(name)


def forget(package: str) -> None:
    """Let a package whose import failed be imported from its beginning.

    What was made of protocol files stays, because a message cannot be registered twice.
    """
    for name in list(sys.modules):
        is_of_package = name == package or name.startswith(f"{package}.")
        if is_of_package and ".grpc_gen" not in name:
            del sys.modules[name]


@contextmanager
def _proxies_for_clients() -> Iterator[None]:
    """Watch import statements meanwhile.

    Several threads may do so at once. The last one that is done ends the watch.
    """
    with _State.lock:
        if _State.imports == 0:
            builtins.__import__ = _client_import
            _State.collects = gc.isenabled()
            gc.disable()
        _State.imports += 1
    try:
        yield
    finally:
        with _State.lock:
            _State.imports -= 1
            if _State.imports == 0:
                _end_watch()


def _end_watch() -> None:
    if builtins.__import__ is _client_import:
        builtins.__import__ = _import
    if _State.collects:
        gc.freeze()
        gc.enable()


def _client_import(
    name: str,
    globals: Mapping[str, object] | None = None,  # noqa: A002 - the signature of __import__
    locals: Mapping[str, object] | None = None,  # noqa: A002 - the signature of __import__
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """What an import statement calls: a client's module gets a proxy, any other the real module."""
    root = name.partition(".")[0]
    importing_module = str((globals or {}).get("__name__", ""))
    is_client = importing_module.partition(".")[0] in CLIENTS
    is_kept_out = level == 0 and root in KEPT_OUT
    if is_client and is_kept_out and _can_wait(root):
        _Replacement.install()
        return _proxy_module(name if fromlist else root)
    return _import(name, globals, locals, fromlist or (), level)


def _can_wait(root: str) -> bool:
    """Whether the package `root` is installed and nobody has imported it yet."""
    return root not in sys.modules and importlib.util.find_spec(root) is not None


# --- proxies


class _ProxyModule(ModuleType):
    """Stands for a module.

    The names in this module are proxies until the real package is imported. From then on, the names
    are those of the real module.
    """

    def __repr__(self) -> str:
        return f"<a proxy of the module {self.__name__}>"

    def __getattr__(self, name: str) -> Any:
        path = f"{self.__name__}.{name}"
        if name.startswith("__"):
            return getattr(importlib.import_module(self.__name__), name)
        found = _loaded_object(path)
        return _proxy_object(path) if found is _ABSENT else found


class _Proxy(type):
    """A class that stands for an object of a package.

    The object may be of any kind. A class stands for it, because clients write `isinstance` and
    `Union[…]` with the object.
    """

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{_PATHS[cls]}.{name}"
        found = _loaded_object(path)
        return _proxy_object(path) if found is _ABSENT else found

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return _import_object(_PATHS[cls])(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        """No object is an instance of a class whose package nobody has imported."""
        found = _loaded_object(_PATHS[cls])
        return found is not _ABSENT and isinstance(instance, found)

    def __subclasscheck__(cls, subclass: type) -> bool:
        found = _loaded_object(_PATHS[cls])
        return found is not _ABSENT and issubclass(subclass, found)


#: Stands for an object that nobody has imported.
_ABSENT = object()
#: The proxies of modules, by the names of these.
_MODULES: dict[str, _ProxyModule] = {}
#: The proxies of objects by path, such as `pandas.api.types`, and their paths.
_PROXIES: dict[str, _Proxy] = {}
_PATHS: dict[_Proxy, str] = {}


def _proxy_module(name: str) -> _ProxyModule:
    """The one proxy of the module `name`."""
    return _MODULES.setdefault(name, _ProxyModule(name))


def _proxy_object(path: str) -> _Proxy:
    """The one proxy of the object at `path`."""
    name = path.rpartition(".")[2]
    proxy = _PROXIES.setdefault(path, _Proxy(name, (), {}))
    _PATHS.setdefault(proxy, path)
    return proxy


def _loaded_object(path: str) -> Any:
    """The real object at `path`, or `_ABSENT` when its package has not been imported.

    This function imports nothing itself.
    """
    parts = path.split(".")
    found: Any = sys.modules.get(parts[0], _ABSENT)
    for number, part in enumerate(parts[1:], 2):
        if found is _ABSENT:
            break
        submodule = sys.modules.get(".".join(parts[:number]), _ABSENT)
        found = getattr(found, part, submodule)
    return found


def _import_object(path: str) -> Any:
    """The real object at `path`, for which all modules on the way are imported.

    Raises `ImportError` or `AttributeError`, as an import statement in its place would.
    """
    parts = path.split(".")
    found: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(found, part) and isinstance(found, ModuleType):
            importlib.import_module(".".join(parts[:number]))
        found = getattr(found, part)
    return found


# --- when the real package comes


class _Replacement:
    """A finder that waits for the real packages.

    The finder finds each package as usual, and puts it in the place of its proxies. Clients keep
    some proxies as values, for which forwarding is not enough: `neo4j` compares with `pandas.NA`
    by identity.
    """

    def __init__(self) -> None:
        self._looking = threading.local()

    @classmethod
    def install(cls) -> None:
        if not any(isinstance(finder, cls) for finder in sys.meta_path):
            sys.meta_path.insert(0, cls())

    def find_spec(
        self,
        name: str,
        path: Any = None,  # noqa: ARG002 - the signature of a finder
        target: Any = None,  # noqa: ARG002 - the signature of a finder
    ) -> ModuleSpec | None:
        if name not in KEPT_OUT or getattr(self._looking, "name", None) == name:
            return None
        self._looking.name = name
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.name = None
        if spec is not None and spec.loader is not None:
            loader: Any = _Loader(spec.loader)  # has what the import system calls
            spec.loader = loader
        return spec


class _Loader:
    """Loads a package with its own loader, and replaces its proxies afterwards."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._real.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._real
        if module.__spec__ is not None:
            module.__spec__.loader = self._real
        self._real.exec_module(module)
        _replace_proxies()


def _replace_proxies() -> None:
    """Put real objects in the place of proxies in the modules of the clients."""
    for name, module in list(sys.modules.items()):
        is_of_client = name.partition(".")[0] in CLIENTS
        if not is_of_client or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            real = _real_value(value)
            if real is not value:
                setattr(module, key, real)


def _real_value(value: Any) -> Any:
    """What a proxy stands for, as far as that is imported. Any other value is returned as it is.

    A tuple that holds proxies is replaced by one that holds what they stand for.
    """
    if isinstance(value, _ProxyModule):
        return sys.modules.get(value.__name__, value)
    if type(value) is _Proxy:
        found = _loaded_object(_PATHS[value])
        return value if found is _ABSENT else found
    if type(value) is tuple:
        replaced = tuple(_real_value(each) for each in value)
        is_changed = any(new is not old for new, old in zip(replaced, value, strict=True))
        return replaced if is_changed else value
    return value
