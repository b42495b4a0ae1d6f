"""A small, complete blueprint folder to begin with: what `is-db-bootstrap new` writes."""

from is_db_bootstrap.scaffold.folder import create_folder

__all__ = ["create_folder"]
