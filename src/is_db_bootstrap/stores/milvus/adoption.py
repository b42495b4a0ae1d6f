"""Collections that a script has made, as an adoption finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.store import RECORD, Adoption
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Change, Drift, Nature
from is_db_bootstrap.stores.milvus.kind import KIND

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection
    from is_db_bootstrap.stores.milvus.compare import Live

#: Milvus has no record of what was made. So what is missing is made, and what differs is refused.
_NO_RECORD = (
    "Milvus records no difference: let `apply` make what is missing, and make a new version of a "
    "collection that differs (`is-db-bootstrap vector upgrade`)."
)


def newer_version(declared: Collection, live: Live) -> StoreConflict:
    """The refusal of a collection of which a newer release of the blueprint has made a version."""
    return StoreConflict(
        KIND.name,
        f"Alias {declared.alias} leads to {live.target}, a later version of {declared.name}.",
        hint="Adopt with the version of the blueprint that declares it.",
        subject=declared.name,
    )


def adoption(
    found: Mapping[str, Live],
    differences: Sequence[Drift],
    unmarked: Sequence[Collection],
    contracts: Mapping[str, str],
) -> Adoption:
    """What an adoption finds of the declared collections, of which `found` has the live ones.

    `unmarked` are those without our property, which is to hold their entry of `contracts`.
    """
    is_blank = all(live.described is None and live.target is None for live in found.values())
    if is_blank:
        return Adoption(is_blank=True)
    changes = tuple(
        Change(
            each.name, RECORD, f"marked as {contracts[each.name]} by a property", Nature.REPEATABLE
        )
        for each in unmarked
    )
    return Adoption(changes, tuple(differences), refusal=_NO_RECORD)
