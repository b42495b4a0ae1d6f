"""Which table of a database is a blueprint's version table."""

from __future__ import annotations

from dataclasses import dataclass, field

from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.own_schema import literal
from is_db_bootstrap.stores.postgres.revisions import TABLE

#: The schema by whose name things are called where the search path decides.
_USUAL_SCHEMA = "public"


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """A version table. Where `schema` is None, the search path of the session finds its schema.

    `has_key` says whether it is made with a primary key: Alembic's option `version_table_pk`.
    """

    schema: str | None = _USUAL_SCHEMA
    table: str = TABLE
    has_key: bool = field(default=True, compare=False)

    @property
    def quoted(self) -> str:
        """Its name as statements have it."""
        return identifier(*filter(None, (self.schema, self.table)))

    @property
    def create_statement(self) -> str:
        """The statement that creates it as Alembic would, unless it is there."""
        key = f" CONSTRAINT {identifier(f'{self.table}_pkc')} PRIMARY KEY" if self.has_key else ""
        return f"CREATE TABLE IF NOT EXISTS {self.quoted} (version_num varchar(32) NOT NULL{key})"

    @property
    def shown(self) -> str:
        """Its name as messages have it."""
        return ".".join(filter(None, (self.schema, self.table)))

    @property
    def schema_query(self) -> str:
        """The query of the schema in which a session finds the table, or would create it."""
        return f"""
            SELECT coalesce(
                (SELECT n.nspname::text
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = to_regclass({literal(self.quoted)})),
                current_schema()::text)
        """  # noqa: S608 - quoted

    @property
    def key(self) -> str:
        """What tells its lock and its marks from those of other version tables of the database."""
        schema = self.schema or _USUAL_SCHEMA
        return schema if self.table == TABLE else f"{schema}.{self.table}"
