"""Where an alias that is missing has to lead, so that applications find the rows that are there.

A collection that another tool has made often has no alias. Its first declared version must not take
the alias away from its rows before `vector upgrade` has copied them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pymilvus.client.types import LoadState

from is_db_bootstrap.stores.milvus.schema import version_of

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection
    from is_db_bootstrap.stores.milvus.server import Server


@dataclass(frozen=True, slots=True)
class AliasHome:
    """The collection to which a missing alias is to lead.

    `rival` is an earlier version that is there too, when the declared version has rows and no
    alias tells which of both is in use. Nobody but a person knows it then.
    """

    name: str
    rival: str = ""


def alias_home(server: Server, declared: Collection) -> AliasHome:
    """The newest earlier version that is there, as long as the declared one has no rows."""
    earlier = _earlier_versions(server, declared)
    if not earlier:
        return AliasHome(declared.name)
    newest = earlier[-1]
    if server.described(declared.name) is None:
        return AliasHome(newest)
    is_in_use = bool(server.aliases(declared.name))
    if is_in_use:
        return AliasHome(declared.name)
    if _has_rows(server, declared.name):
        return AliasHome(declared.name, rival=newest)
    return AliasHome(newest)


def _earlier_versions(server: Server, declared: Collection) -> Sequence[str]:
    """Earlier versions that are there, oldest first, without those that are declared as well."""
    family, number = version_of(declared.name)
    names = server.client.list_collections(**server.look_options)
    standings = {name: version_of(name) for name in names if name != declared.alias}
    earlier = [
        name
        for name, (its_family, its_number) in standings.items()
        if its_family == family and its_number < number and name not in server.declared_names
    ]
    return sorted(earlier, key=version_of)


def _has_rows(server: Server, name: str) -> bool:
    """Whether a collection has rows. One that is not loaded tells only what it has sealed."""
    if server.load_state(name) is LoadState.Loaded:
        return server.count(name) > 0
    told = server.client.get_collection_stats(name, **server.look_options)
    return int(told.get("row_count", 0)) > 0
