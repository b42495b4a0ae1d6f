"""The memory of a software-building agent.

The memory holds projects, the changes that people asked for, and templates for new projects.
"""

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, PoolProfile
from is_db_bootstrap.blueprints.agentic_projects import _seed

BLUEPRINT = Blueprint(
    name="agentic_projects",
    summary=(
        "The memory of a software-building agent: "
        "projects, the changes people asked for, templates for new ones."
    ),
    migrations=files.migrations("agentic_projects"),
    models="is_db_bootstrap.blueprints.agentic_projects.tables",
    pool=PoolProfile(10, 50, command_timeout=60),
    seed_rows=_seed.ROWS,
)
