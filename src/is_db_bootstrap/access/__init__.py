"""Asynchronous access to a blueprint's PostgreSQL database, for applications.

The access goes through SQLAlchemy on psycopg 3, with a real pool.
"""

from is_db_bootstrap.access.database import Database, Health, PoolStatus
from is_db_bootstrap.access.registry import close_db, get_db, init_db
from is_db_bootstrap.blueprint import PoolProfile

__all__ = ["Database", "Health", "PoolProfile", "PoolStatus", "close_db", "get_db", "init_db"]
