"""The smallest privileges that the stores of a blueprint ask for, by its settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.engine.store import CanTellGrants
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.grant_list import GrantWish, Purpose, RoleGrants
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import Settings

#: The longest name of a role that PostgreSQL keeps.
_LONGEST = 63
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


def wishes(
    blueprint: str, purposes: Sequence[Purpose], role: str = "", *, creates_database: bool = False
) -> list[GrantWish]:
    """The roles of a call: one that was named, or one for each purpose.

    Raises `ConfigurationError` for a name that no client takes without quotes.
    """
    if role and (not _NAME.fullmatch(role) or len(role) > _LONGEST):
        raise ConfigurationError(
            f"A role cannot be called {role!r} here.",
            hint="Letters, digits, underscores, hyphens and dots make its name, at most "
            f"{_LONGEST}, and a letter or an underscore is the first.",
        )
    if role:
        return [GrantWish(role, frozenset(purposes), creates_database)]
    name = re.sub(r"\W", "_", blueprint, flags=re.ASCII)
    return [
        GrantWish(f"{name}_{purpose}", frozenset({purpose}), _makes(purpose, creates_database))
        for purpose in purposes
    ]


def _makes(purpose: Purpose, creates_database: bool) -> bool:
    return creates_database and purpose is Purpose.APPLY


def list_grants(
    resolved: Blueprint,
    settings: Settings,
    stores: Sequence[StoreName],
    wanted: Sequence[GrantWish],
) -> list[RoleGrants]:
    """What an administrator runs on each store, for one role after the other.

    `resolved` is what `app.checked` returns. No server is asked. A store without an address is
    taken to be where a new one would be. Raises `ConfigurationError` for a store whose client is
    not installed, and for a role that it cannot have.
    """
    found: list[RoleGrants] = []
    for name in stores:
        store = app.bootstrapper(name, _address(name, settings), resolved, settings)
        try:
            if isinstance(store, CanTellGrants):
                found += [store.grants(wish) for wish in wanted]
        finally:
            store.close()
    return found


def _address(store: StoreName, settings: Settings) -> StoreUrl:
    """The address of the settings, or one of this machine, to which nobody connects."""
    known = settings.stores.get(store)
    if known is not None:
        return known
    kind = KINDS[store]
    local = StoreUrl.parse(store, f"{kind.schemes[0]}://localhost:{kind.default_port}")
    return replace(local, database=kind.default_database)
