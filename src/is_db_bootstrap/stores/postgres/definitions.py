"""The statements that make the objects of a schema, as the server itself writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.postgres.connection import identifier

if TYPE_CHECKING:
    import psycopg

# pg_get_functiondef and pg_get_indexdef always write the schema. It is left out where it is the
# one with which the search path begins, because the blueprint's schema has another name elsewhere.
_SQL = """
WITH own AS (
    SELECT c.oid, c.relname, c.relkind,
           CASE WHEN pg_table_is_visible(c.oid) THEN quote_ident(c.relname)
                ELSE format('%%I.%%I', %(name)s::text, c.relname) END AS place
    FROM pg_class c WHERE c.relnamespace = to_regnamespace(%(schema)s)
)
SELECT 'constraint', own.relname || '.' || c.conname,
       format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', place, c.conname,
              pg_get_constraintdef(c.oid)),
       format('ALTER TABLE %%s DROP CONSTRAINT %%I', place, c.conname)
FROM own JOIN pg_constraint c ON c.conrelid = own.oid AND c.contype IN ('p', 'u', 'c', 'f', 'x')
WHERE c.conislocal
UNION ALL
SELECT 'index', own.relname || '.' || x.relname,
       regexp_replace(pg_get_indexdef(i.indexrelid), ' ON (ONLY )?(.*?) USING ',
                      format(' ON %%s USING ', replace(place, '\\', '\\\\'))),
       'DROP INDEX ' || CASE WHEN pg_table_is_visible(x.oid) THEN quote_ident(x.relname)
                             ELSE format('%%I.%%I', %(name)s::text, x.relname) END
FROM own JOIN pg_index i ON i.indrelid = own.oid JOIN pg_class x ON x.oid = i.indexrelid
WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid
                  AND c.contype IN ('p', 'u', 'x'))
UNION ALL
SELECT 'trigger', own.relname || '.' || g.tgname, pg_get_triggerdef(g.oid, true),
       format('DROP TRIGGER %%I ON %%s', g.tgname, place)
FROM own JOIN pg_trigger g ON g.tgrelid = own.oid AND NOT g.tgisinternal
UNION ALL
SELECT 'view', relname::text,
       format('CREATE OR REPLACE VIEW %%s AS%%s%%s', place, chr(10), pg_get_viewdef(oid, true)),
       'DROP VIEW ' || place
FROM own WHERE relkind = 'v'
UNION ALL
SELECT 'materialized view', relname::text,
       format('CREATE MATERIALIZED VIEW %%s AS%%s%%s', place, chr(10), pg_get_viewdef(oid, true)),
       'DROP MATERIALIZED VIEW ' || place
FROM own WHERE relkind = 'm'
UNION ALL
SELECT 'sequence', relname::text,
       format('CREATE SEQUENCE %%s AS %%s START %%s INCREMENT %%s', place,
              format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement),
       'DROP SEQUENCE ' || place
FROM own JOIN pg_sequence s ON s.seqrelid = own.oid
UNION ALL
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END,
       p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
       CASE WHEN %(name)s::text = current_schema()
            THEN replace(pg_get_functiondef(p.oid),
                         format(' %%I.%%I(', %(name)s::text, p.proname), format(' %%I(', p.proname))
            ELSE pg_get_functiondef(p.oid) END,
       format('DROP %%s %%s(%%s)', CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
              CASE WHEN %(name)s::text = current_schema() THEN quote_ident(p.proname)
                   ELSE format('%%I.%%I', %(name)s::text, p.proname) END,
              pg_get_function_identity_arguments(p.oid))
FROM pg_proc p
WHERE p.pronamespace = to_regnamespace(%(schema)s) AND p.prokind IN ('f', 'p')
UNION ALL
SELECT 'enum', t.typname::text,
       format('CREATE TYPE %%s AS ENUM (%%s)', place, (
           SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
           FROM pg_enum e WHERE e.enumtypid = t.oid)),
       'DROP TYPE ' || place
FROM pg_type t CROSS JOIN LATERAL (
    SELECT CASE WHEN pg_type_is_visible(t.oid) THEN quote_ident(t.typname)
                ELSE format('%%I.%%I', %(name)s::text, t.typname) END AS place) AS written
WHERE t.typnamespace = to_regnamespace(%(schema)s) AND t.typtype = 'e'
"""
_LABELS = """
SELECT t.typname::text, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
FROM pg_type t JOIN pg_enum e ON e.enumtypid = t.oid
WHERE t.typnamespace = to_regnamespace(%s) GROUP BY t.typname
"""


@dataclass(frozen=True, slots=True)
class Definition:
    """The statement that makes an object, and the one that drops it."""

    create: str
    drop: str


@dataclass(frozen=True, slots=True)
class Definitions:
    """The statements of one schema by kind and name, as in its catalogue; the values of enums."""

    statements: Mapping[tuple[str, str], Definition]
    labels: Mapping[str, list[str]]

    @classmethod
    def read(cls, connection: psycopg.Connection[Any], schema: str) -> Definitions:
        """Ask the server. The session's search path must begin with the blueprint's schema."""
        wanted = {"schema": identifier(schema), "name": schema}
        rows = connection.execute(_SQL.encode(), wanted).fetchall()
        found = {(kind, name): Definition(*made) for kind, name, *made in rows}
        labels = connection.execute(_LABELS.encode(), [identifier(schema)]).fetchall()
        return cls(found, dict(labels))
