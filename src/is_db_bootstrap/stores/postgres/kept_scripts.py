"""What Alembic has read of revisions, kept for the next target of this process.

Alembic reads every file of a folder before it runs the first revision. A worker reads them once.
What a revision keeps in its module is no other target's. So a module is executed anew when a run
has left one of its names, or one of its lists, dictionaries and sets, other than it was.

Imported only when there is something to apply.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from weakref import WeakKeyDictionary

from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from is_db_bootstrap.stores.postgres.revisions import Chain

#: Folders of revisions that are kept.
_MOST_KEPT = 8

#: When each file of a chain was changed, in nanoseconds, and its bytes. A file may be missing.
_Stamp = tuple[tuple[int, int] | None, ...]

#: The folders that were read, the last one at the end, each with the chain that was read of it, and
#: how its files were then.
_kept: list[tuple[Chain, _Stamp, ScriptDirectory]] = []
#: What each module of a revision held before it ran for the first time.
_held: WeakKeyDictionary[ModuleType, list[object]] = WeakKeyDictionary()


def script_of(config: Config, chain: Chain) -> ScriptDirectory:
    """The folder of scripts of `config`, whose revisions are `chain`.

    It is read anew for another chain, and when a file has changed: a store that is used again has
    the chain of before.
    """
    stamp = _stamp(chain)
    for known, before, script in _kept:
        if known is chain and before == stamp:
            return script
    found = ScriptDirectory.from_config(config)
    _kept.append((chain, stamp, found))
    del _kept[:-_MOST_KEPT]
    return found


def _stamp(chain: Chain) -> _Stamp:
    return tuple(map(_changed, chain.files.values()))


def _changed(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # Alembic tells of it
    return found.st_mtime_ns, found.st_size


def renew_module(revision: Script) -> None:
    """Give `revision` a new module if a run has changed what the one that it has holds.

    Raises what the code of the module raises.
    """
    spec = revision.module.__spec__
    before = _held.get(revision.module)
    has_changed = before is not None and not _is_same(before, _contents(revision.module))
    if has_changed and spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        revision.module = module
    if revision.module not in _held:
        _held[revision.module] = _contents(revision.module)


def _contents(module: ModuleType) -> list[object]:
    """The names of a module with what they mean, and what is in its plain containers."""
    found: list[object] = []
    for name, value in vars(module).items():
        found += [name, value]
        if name.startswith("__"):
            continue
        if isinstance(value, dict):
            found += [*value, *value.values()]
        elif isinstance(value, list | set):
            found += value
    return found


def _is_same(before: Sequence[object], now: Sequence[object]) -> bool:
    """Whether all are the very same objects. Some of SQLAlchemy cannot be compared by `==`."""
    return len(before) == len(now) and all(map(operator.is_, before, now))
