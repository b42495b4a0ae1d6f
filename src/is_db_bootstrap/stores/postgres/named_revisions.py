"""The revisions that a target names by itself, such as an id, its beginning, or `heads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.errors import StoreConflict

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.revisions import Chain

#: The targets that are all heads.
HEADS = ("head", "heads")


def known(chain: Chain, revision: str) -> str:
    """The revision of that name or unmistakable beginning.

    A `StoreConflict` names the known ones.
    """
    found = [r for r in chain.order if r == revision] or [
        r for r in chain.order if r.startswith(revision)
    ]
    if len(found) != 1 or not revision:
        raise StoreConflict(
            "postgres",
            f"There is no revision {revision!r}.",
            hint=f"Known: {', '.join(chain.order)}.",
        )
    return found[0]


def is_simple(chain: Chain, target: str) -> bool:
    """Whether `target` is an id or its beginning, and nothing that only Alembic can resolve."""
    return any(revision.startswith(target) for revision in chain.order)


def named_revisions(blueprint: Blueprint, chain: Chain, target: str) -> tuple[str, ...]:
    """The revisions that a target of a stamp names. None for `base`."""
    if target == "base":
        return ()
    if target in HEADS:
        return chain.heads(chain.order)
    if is_simple(chain, target):
        return (known(chain, target),)
    from is_db_bootstrap.stores.postgres.revision_syntax import RevisionSyntax

    return RevisionSyntax(blueprint, chain).named(target)
