"""The blueprint of the contract suite, loaded as a user's folder is."""

from pathlib import Path

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.store import DatabaseBootstrapper

SHOP = load_blueprint(str(Path(__file__).parents[1] / "shop"))


def run(store: DatabaseBootstrapper) -> None:
    """Bring `store` to its blueprint."""
    BootstrapOrchestrator([store]).run().raise_for_failure()
