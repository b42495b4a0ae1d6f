"""The statements that give a role of a PostgreSQL what it lacks.

The refusals of what was looked at before a change name these, so that what a message asks for is
what `grants` prints. `missing_privilege` has the statements for what the server itself has refused.
"""

from __future__ import annotations

from is_db_bootstrap.stores.postgres.connection import identifier


def create_in_database(database: str, role: str) -> str:
    """What lets a role make schemas, publications and trusted extensions."""
    return f"GRANT CREATE ON DATABASE {identifier(database)} TO {identifier(role)};"


def create_in_schema(schema: str, role: str) -> str:
    """What lets a role make tables in a schema, and use what is there."""
    return f"GRANT USAGE, CREATE ON SCHEMA {identifier(schema)} TO {identifier(role)};"


def use_schema(schema: str, role: str) -> str:
    """What lets a role use a schema."""
    return f"GRANT USAGE ON SCHEMA {identifier(schema)} TO {identifier(role)};"


def own_schema_of(schema: str, role: str) -> str:
    """What makes a schema that belongs to a role, unless there is one of that name."""
    return f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)} AUTHORIZATION {identifier(role)};"


def read_table(table: str, role: str) -> str:
    """What lets a role read a table, whose name is quoted already."""
    return f"GRANT SELECT ON {table} TO {identifier(role)};"


def write_records(table: str, role: str) -> str:
    """What lets a role record revisions in a version table, whose name is quoted already."""
    return f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {identifier(role)};"


def own_table(table: str, role: str) -> str:
    """What gives a table to a role, so that the role may alter the table."""
    return f"ALTER TABLE {table} OWNER TO {identifier(role)};"


def let_create_database(role: str) -> str:
    """What lets a role make databases."""
    return f"ALTER ROLE {identifier(role)} CREATEDB;"


def create_extension(name: str) -> str:
    """What makes an extension, unless it is there."""
    return f"CREATE EXTENSION IF NOT EXISTS {identifier(name)};"
