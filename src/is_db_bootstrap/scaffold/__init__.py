"""A small, complete blueprint folder to begin with: `is-db-bootstrap new`."""

from is_db_bootstrap.scaffold.folder import create

__all__ = ["create"]
