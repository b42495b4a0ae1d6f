"""What is wrong with a blueprint's declarations, found before any store is touched.

Each kind of store looks at its own declarations, in its module `check`.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from is_db_bootstrap.blueprint.declarations import Blueprint
from is_db_bootstrap.blueprint.field_types import wrong_types
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.kinds import KINDS

#: The name of a blueprint, or of something in a store that takes the same names.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


def check(blueprint: Blueprint) -> None:
    """Raise one `ConfigurationError` that names every wrong field of the declarations.

    Only fields of the right types can be looked at further.
    """
    check_types(blueprint)
    _refuse(blueprint, problems(blueprint))


def check_types(blueprint: Blueprint) -> None:
    """Raise one `ConfigurationError` that names every field with a value of another type."""
    _refuse(blueprint, wrong_types(blueprint))


def _refuse(blueprint: Blueprint, found: Iterable[str]) -> None:
    wrong = list(found)
    if wrong:
        raise ConfigurationError(f"The blueprint {blueprint.name} cannot be: {'; '.join(wrong)}.")


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, as `collections[0].fields[2] 'embedding': …`."""
    if not NAME.fullmatch(blueprint.name):
        yield f"name {blueprint.name!r}: letters, digits and _ only"
    for kind in KINDS.values():
        module = importlib.import_module(kind.module_name("check"))
        yield from module.problems(blueprint)
    for name in repeated_names(setting.name for setting in blueprint.settings):
        yield f"settings: the name {name!r} is there twice"


def repeated_names(names: Iterable[str]) -> list[str]:
    """The names that are there more than once, each of them once."""
    return [name for name, count in Counter(names).items() if count > 1]


def comma_list(names: Iterable[str]) -> str:
    """The names as a message lists them."""
    return ", ".join(sorted(names))
