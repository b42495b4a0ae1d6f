"""The relational store of the Multi-Agent Project Lifecycle Protocol (MPLP).

The tables are computed from the six JSON Schemas of the protocol.
"""

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, PoolProfile

BLUEPRINT = Blueprint(
    name="mplp",
    summary=(
        "The Multi-Agent Project Lifecycle Protocol: "
        "contexts, plans, roles, confirmations, traces and extensions."
    ),
    migrations=files.migrations("mplp"),
    models="is_db_bootstrap.blueprints.mplp.tables",
    pool=PoolProfile(5, 20),
    portable=True,
)
