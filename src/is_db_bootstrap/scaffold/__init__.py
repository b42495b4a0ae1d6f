"""A blueprint folder to begin with: what `is-db-bootstrap new` writes."""

from is_db_bootstrap.scaffold.folder import check_stores, create_folder
from is_db_bootstrap.scaffold.from_stores import write_from_stores

__all__ = ["check_stores", "create_folder", "write_from_stores"]
