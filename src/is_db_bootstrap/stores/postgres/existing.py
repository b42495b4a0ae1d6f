"""What a running PostgreSQL is declared by: a team's own Alembic environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.blueprint import AlembicEnvironment
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.existing import Existing, Request
from is_db_bootstrap.stores.postgres.connection import connect
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing

_TABLES = """
SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_' AND nspname <> ALL (%s)
"""
_NOT_THEIRS = ["information_schema", "is_db_bootstrap"]


def read_existing(url: StoreUrl, timing: Timing, request: Request) -> Existing:
    """The environment that was named or found, else a first revision of what is there."""
    try:
        with connect(url, timing.connect_timeout_s) as connection, errors(str(url)):
            row = connection.execute(_TABLES.encode(), [_NOT_THEIRS]).fetchone()
    except DatabaseMissing as exc:
        raise ConfigurationError(
            f"postgres: there is no database {url.database} at {url}.",
            hint="Name the application's database in the address.",
        ) from exc
    tables = row[0] if row else 0
    found = f"{tables} tables"
    if request.environment is not None:
        return Existing(
            declared={"alembic": AlembicEnvironment(request.environment)},
            found=found,
            guesses=[f"{request.environment} is taken for what made these tables."],
        )
    without_files = "Give the alembic.ini of the application with --alembic."
    return Existing(found=found, unread=[without_files] if tables else [])
