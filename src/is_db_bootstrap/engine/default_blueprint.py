"""The blueprint that a run takes when nobody names one is not for stores that carry another one."""

from __future__ import annotations

from collections.abc import Collection

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.names import StoreName


def refuse_other_blueprints(
    store: StoreName, target: str, recorded: Collection[str], default: str
) -> None:
    """Raise `StoreConflict` when `recorded` names other blueprints, and not the default one.

    `recorded` are the blueprints that the store at `target` carries by its own records.
    """
    others = sorted(set(recorded))
    if not others or default in others:
        return
    named = " and ".join(others)
    raise StoreConflict(
        store,
        f"{target} carries the blueprint {named}, and nothing names the blueprint of this run, "
        f"so that it would be {default}.",
        hint=f"Say which one is meant: --blueprint {others[0]}, IS_DB_BOOTSTRAP_BLUEPRINT, or "
        f"blueprint in is-db-bootstrap.toml. To add it there, say --blueprint {default}.",
        subject=others[0],
    )
