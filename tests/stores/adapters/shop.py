"""The blueprint of the contract suite, loaded as a user's folder is."""

from pathlib import Path

from is_db_bootstrap.blueprint.load import load_blueprint

SHOP = load_blueprint(str(Path(__file__).parents[1] / "shop"))
