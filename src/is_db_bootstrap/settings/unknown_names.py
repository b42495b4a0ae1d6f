"""Variables that look like ours, and that nobody reads: most likely mistyped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from is_db_bootstrap.nearest import nearest
from is_db_bootstrap.settings.service_links import is_link_name, links_of
from is_db_bootstrap.settings.sources import plain_variables
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.kind import StoreKind

_PREFIX = "IS_DB_BOOTSTRAP_"
#: What the local stack, the servers of tests and the pools of services read (docs/reference).
_OF_LOCAL_STACK = ("MAVEN_URL", "DATA", "CACHE", *(f"{name.upper()}_IMAGE" for name in KINDS))
_OF_POOLS = (
    "POOL_MIN_SIZE",
    "POOL_MAX_SIZE",
    "POOL_TIMEOUT",
    "POOL_RECYCLE",
    "POOL_SIZE",
    "MAX_OVERFLOW",
    "COMMAND_TIMEOUT",
    "PREPARE_THRESHOLD",
    "ECHO",
)
#: What holds a secret, or an address, for every store.
_SECRETS = ("URL", "PASSWORD", "KEY_PASSWORD")


def known_variables(blueprint: Blueprint) -> set[str]:
    """Every variable that is read, by any part of this package, for `blueprint`."""
    known = {*plain_variables(), *(setting.name for setting in blueprint.settings)}
    known |= {f"{_PREFIX}{name}" for name in _OF_LOCAL_STACK}
    for kind in KINDS.values():
        known |= {f"{kind.name.upper()}_{name}" for name in _SECRETS}
        known |= {*kind.url_variables, *kind.part_variables.values(), *kind.import_variables}
        known |= {kind.auth_variable, kind.session_variable} - {""}
        known |= {f"{prefix}_{name}" for prefix in _part_prefixes(kind) for name in _OF_POOLS}
    return known


def mistyped(variables: Mapping[str, str], blueprint: Blueprint) -> Iterator[str]:
    """A sentence on each variable that nobody reads and that was most likely meant for us.

    A variable that begins with `IS_DB_BOOTSTRAP_` is always named. One that begins as those of a
    store, or of the blueprint, is named when it is a slip away from one that is not set, and no
    other tool has that name.
    """
    known = known_variables(blueprint)
    links = links_of(variables)
    unread = [name for name in variables if name not in known and name not in links]
    for name in sorted(unread):
        if is_link_name(name):
            continue
        meant = _meant(name, known)
        if name.startswith(_PREFIX):
            yield f"The variable {name} is unknown, so it changes nothing.{_question(meant)}"
        elif meant and meant not in variables and not _is_of_another_tool(name):
            yield f"The variable {name} is not read.{_question(meant)}"


def _question(meant: str) -> str:
    return f" Is {meant} meant?" if meant else ""


def _meant(name: str, known: set[str]) -> str:
    """The known variable with the same first word of which `name` is a slip away. Else empty."""
    prefix = _PREFIX if name.startswith(_PREFIX) else f"{name.partition('_')[0]}_"
    rests = {each.removeprefix(prefix): each for each in known if each.startswith(prefix)}
    found = nearest(name.removeprefix(prefix), rests)
    return rests.get(found, "")


def _is_of_another_tool(name: str) -> bool:
    for kind in KINDS.values():
        of_addresses = (name.removesuffix("_URL") for name in kind.url_variables)
        prefixes = (kind.name.upper(), *of_addresses, *_part_prefixes(kind))
        names = {f"{prefix}_{rest}" for prefix in prefixes for rest in kind.foreign_variables}
        if name in names:
            return True
    return False


def _part_prefixes(kind: StoreKind) -> set[str]:
    """How the variables of an address's parts begin, such as `DB`."""
    return {name.partition("_")[0] for name in kind.part_variables.values()}
