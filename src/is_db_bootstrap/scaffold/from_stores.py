"""Writes a blueprint of what running stores hold."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from is_db_bootstrap import client_imports
from is_db_bootstrap.blueprint.check import check
from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.engine.deadlines import Deadline
from is_db_bootstrap.engine.retry import RetryPolicy, until
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.scaffold.folder import module_name, refuse_used_folder, write_files
from is_db_bootstrap.scaffold.source import class_names, source_of
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.existing import Existing, Request
from is_db_bootstrap.stores.kinds import KINDS

#: Seconds that a look gets at least.
_LEAST_LOOK_S = 1.0
#: Characters of names that fit on the line of an import.
_LONGEST_IMPORT = 60
_SUMMARY = "What {names} held when this was written."
_TOML = '# Read by every command that is run here.\nblueprint = "."\n'


@dataclass(slots=True)
class Written:
    """What was written, and what a person has to know of it."""

    folder: Path
    paths: list[Path] = field(default_factory=list)
    stores: dict[StoreName, Existing] = field(default_factory=dict)

    @property
    def next_steps(self) -> list[str]:
        """The commands that come next, in order."""
        name = self.folder.name
        steps = [step for found in self.stores.values() for step in found.next_steps]
        check_all = [f"is-db-bootstrap {what} --blueprint {{folder}}" for what in ("check", "plan")]
        return [step.replace("{folder}", name) for step in [*steps, *check_all]]


def write_from_stores(
    name: str,
    settings: Settings,
    stores: Sequence[StoreName],
    environment: Path | None = None,
    parent: Path | None = None,
) -> Written:
    """Read `stores` at their addresses in `settings`, and write the folder `name` into `parent`.

    Nothing is written into a store, nothing is overwritten, and no file is written before every
    store was read. Raises `ConfigurationError` for a name that cannot be, for a folder that holds
    something, and when no store holds anything. Raises the errors of stores that cannot be read.
    """
    module = module_name(name)
    folder = (parent or Path.cwd()) / module
    refuse_used_folder(folder)
    written = Written(folder)
    named = None if environment is None else Path(os.path.relpath(environment, folder))
    request = Request(module, named)
    for store in (each for each in STORE_ORDER if each in stores):
        written.stores[store] = _read(store, settings, request)
    texts = {folder / path: text for path, text in dict(_texts(module, written.stores)).items()}
    write_files(folder, texts)
    written.paths.extend(texts)
    return written


def _read(store: StoreName, settings: Settings, request: Request) -> Existing:
    """What one store holds. A store that is not ready is waited for."""
    reader = client_imports.import_module(KINDS[store].module_name("existing"))
    url, timing = settings.need(store), settings.timing

    def read(left_s: float) -> Existing:
        limit_s = max(_LEAST_LOOK_S, min(left_s, timing.connect_timeout_s))
        limited = replace(timing, connect_timeout_s=limit_s)
        found: Existing = reader.read_existing(url, limited, request)
        return found

    return until(RetryPolicy.of(timing), Deadline(timing.timeout_s), read)


def _texts(module: str, found: Mapping[StoreName, Existing]) -> dict[str, str]:
    """Path and text of each file."""
    filled = {store: existing for store, existing in found.items() if not existing.is_empty}
    if not filled:
        reasons = [sentence for existing in found.values() for sentence in existing.unread]
        raise ConfigurationError(
            f"There is nothing to declare: {_all_found(found)}.",
            hint=" ".join(reasons) or "See the addresses and their databases.",
        )
    declared: dict[str, Any] = {}
    for existing in filled.values():
        declared |= existing.declared
    names = ", ".join(KINDS[store].label for store in filled)
    blueprint = Blueprint(module, _SUMMARY.format(names=names), **declared)
    check(blueprint)
    texts = {"blueprint.py": _blueprint_text(blueprint, filled)}
    for existing in filled.values():
        texts |= existing.files
    return texts | {"is-db-bootstrap.toml": _TOML}


def _all_found(found: Mapping[StoreName, Existing]) -> str:
    return "; ".join(f"{store} has {existing.found}" for store, existing in found.items())


def _blueprint_text(blueprint: Blueprint, found: Mapping[StoreName, Existing]) -> str:
    """The source of `blueprint.py`, with what was guessed as comments before it."""
    names = sorted(class_names(blueprint))
    needs_path = any("alembic" in each.declared for each in found.values())
    lines = [f'"""{blueprint.summary}"""', ""]
    if needs_path:
        lines += ["from pathlib import Path", ""]
    lines += [f"from is_db_bootstrap.blueprint import {_import_list(names)}", ""]
    for existing in found.values():
        lines += [f"# Guessed: {sentence}" for sentence in existing.guesses]
        lines += [f"# Not declared: {sentence}" for sentence in existing.unread]
    lines += ["", f"BLUEPRINT = {source_of(blueprint, before=len('BLUEPRINT = '))}"]
    return _checked_source("\n".join(lines) + "\n")


def _checked_source(text: str) -> str:
    """The source, if it has imports and one declaration, and nothing else.

    Names of a store stand in it, and whoever may write into a store chooses these. So this is
    looked at once more before the text becomes a file that is run.
    """
    docstring, *statements = ast.parse(text).body
    kinds = [type(each) for each in statements]
    is_plain = isinstance(docstring, ast.Expr) and kinds[-1] is ast.Assign
    if not is_plain or any(kind is not ast.ImportFrom for kind in kinds[:-1]):
        raise AssertionError(text)
    return text


def _import_list(names: Sequence[str]) -> str:
    on_one_line = ", ".join(names)
    if len(on_one_line) <= _LONGEST_IMPORT:
        return on_one_line
    return "(\n" + "".join(f"    {name},\n" for name in names) + ")"
