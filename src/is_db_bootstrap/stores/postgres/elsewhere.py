"""Revisions of our chain that are recorded in another table, or in another schema, than the one that we write.

Teams give Alembic another `version_table` or `version_table_schema`. To a run that only looks into its own table such a
database seems empty, and everything would be run a second time. A table `alembic_version` of another schema that
carries our mark is another deployment and stays beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.revisions import TABLE, marked_blueprint

if TYPE_CHECKING:
    import psycopg

#: Alembic keeps one row for each head. A table with more rows than this is no version table and is not searched.
_MOST_ROWS = 10_000
#: Every table with a column `version_num` of characters. `pg_class` may be read by every role.
_CANDIDATES = """
    SELECT n.nspname::text, c.relname::text, obj_description(c.oid, 'pg_class'),
           has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
               AND NOT (c.relrowsecurity AND row_security_active(c.oid))
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attname = 'version_num' AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('varchar'::regtype, 'text'::regtype, 'bpchar'::regtype)
      AND c.reltuples < %(most)s
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT (n.nspname = %(schema)s AND c.relname = %(table)s)
    ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other version tables of the database say.

    `table` records `revisions` of our chain; both are empty when none does. `unreadable` are tables that may be version
    tables and that we may not read.
    """

    schema: str = ""
    table: str = ""
    revisions: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()


def find(reader: psycopg.Connection[Any], schema: str, revisions: Iterable[str]) -> Elsewhere:
    """Look for `revisions` in every version table of the database but our own in `schema`.

    One query names the tables that may be some, a second one reads those, if there are any.
    """
    found = reader.execute(
        _CANDIDATES, {"schema": schema, "table": TABLE, "most": _MOST_ROWS}
    ).fetchall()
    others = [
        (space, name, readable)
        for space, name, comment, readable in found
        if not _is_ours(space, name, comment, schema)
    ]
    unreadable = tuple((space, name) for space, name, readable in others if not readable)
    recorded = _recorded(
        reader, [(space, name) for space, name, readable in others if readable], list(revisions)
    )
    for (space, name), known in recorded.items():
        return Elsewhere(space, name, known, unreadable)
    return Elsewhere(unreadable=unreadable)


def _is_ours(space: str, name: str, comment: str | None, schema: str) -> bool:
    """Whether it is the record of another deployment, which says so itself."""
    return name == TABLE and space != schema and bool(marked_blueprint(comment))


def _recorded(
    reader: psycopg.Connection[Any], tables: Sequence[tuple[str, str]], revisions: list[str]
) -> dict[tuple[str, str], tuple[str, ...]]:
    """The tables that name any of `revisions`, and which."""
    if not tables:
        return {}
    parts = [
        f"SELECT {number}, version_num::text FROM {identifier(*table)} WHERE version_num = ANY(%(revisions)s)"  # noqa: S608 - quoted
        for number, table in enumerate(tables)
    ]
    quoted = " UNION ALL ".join(
        part.replace("%", "%%").replace("%%(revisions)s", "%(revisions)s") for part in parts
    )
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, revision in reader.execute(
        f"{quoted} ORDER BY 1, 2".encode(), {"revisions": revisions}
    ).fetchall():
        found[tables[number]] = (*found.get(tables[number], ()), revision)
    return found
