"""The database of a service that plans work for AI agents.

The database holds agents, tasks, a queue, tools, results and reviews.
"""

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, PoolProfile
from is_db_bootstrap.blueprints.context_service import _seed

BLUEPRINT = Blueprint(
    name="context_service",
    summary=(
        "A service that plans work for AI agents: "
        "tasks cut into slices, a queue, a tool catalogue, results and reviews."
    ),
    migrations=files.migrations("context_service"),
    models="is_db_bootstrap.blueprints.context_service.models",
    pool=PoolProfile(10, 30),
    seed_rows=_seed.ROWS,
)
