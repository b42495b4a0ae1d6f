"""What this session's role lacks for a plan, found out before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.stores.postgres import grant_statements
from is_db_bootstrap.stores.postgres.connection import identifier
from is_db_bootstrap.stores.postgres.errors import NAME

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.stores.postgres.sure_needs import SureNeeds

#: Whether the role may record in a version table. No row: the table is still to be made.
_RECORDS = """
    SELECT has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
               AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
    FROM pg_class c WHERE c.oid = to_regclass(%s)
"""
#: The tables of which the role is not the owner, and no member of the owner.
_OTHERS_TABLES = """
    SELECT n.nspname::text, c.relname::text
    FROM unnest(%s::text[], %s::text[]) AS given(schema, name)
    JOIN pg_namespace n ON n.nspname = given.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = given.name
    WHERE c.relkind IN ('r', 'p') AND NOT pg_has_role(c.relowner, 'USAGE') ORDER BY 1, 2
"""
#: Extensions that are missing and that the role may not make. A trusted one needs CREATE on the
#: database. Services in a cloud let roles of their own make others too, so there nobody can tell.
_EXTENSIONS = """
    SELECT v.name::text
    FROM pg_available_extensions a
    JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version
    WHERE v.name = ANY(%(names)s) AND v.superuser
        AND (%(is_new)s OR a.installed_version IS NULL)
        AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        AND CASE WHEN v.trusted
                THEN NOT (%(is_new)s OR has_database_privilege(current_database(), 'CREATE'))
            ELSE NOT EXISTS (SELECT FROM pg_roles
                             WHERE rolname ~ '^(rds_|cloudsql|azure_|alloydb|neon_|supabase_)') END
    ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class _Missing:
    """What a role may not do, as the end of a sentence, and the statement that lets it."""

    what: str
    statement: str
    subject: str


def refuse_missing(
    session: psycopg.Connection[Any], schema: str, version_table: str, needs: SureNeeds
) -> None:
    """Raise `AccessDenied` when the role lacks what pending revisions are sure to need.

    Everything that is missing is named at once. `version_table` is a quoted name. Raises what
    psycopg raises.
    """
    role = _role_of(session)
    missing = [
        *_missing_record(session, version_table, role),
        *_missing_tables(session, schema, needs, role),
        *_missing_extensions(session, needs, is_new=False),
    ]
    if missing:
        raise _denied(role, missing)


def refuse_extensions(session: psycopg.Connection[Any], needs: SureNeeds) -> None:
    """Raise `AccessDenied` when a role may not make an extension in a database of its own.

    The database is still to be made. `session` is in another one of the server. Raises what psycopg
    raises.
    """
    missing = list(_missing_extensions(session, needs, is_new=True))
    if missing:
        raise _denied(_role_of(session), missing)


def _role_of(session: psycopg.Connection[Any]) -> str:
    row = session.execute("SELECT current_user::text").fetchone()
    return str(row[0]) if row else ""


def _denied(role: str, missing: Sequence[_Missing]) -> AccessDenied:
    return AccessDenied(
        NAME,
        f"{role} may not {', nor '.join(each.what for each in missing)}.",
        subject=missing[0].subject,
        hint=f"Let an administrator run: {' '.join(each.statement for each in missing)}",
    )


def _missing_record(session: psycopg.Connection[Any], table: str, role: str) -> Iterator[_Missing]:
    row = session.execute(_RECORDS.encode(), [table]).fetchone()
    if row is not None and not row[0]:
        yield _Missing(f"write to {table}", grant_statements.write_records(table, role), table)


def _missing_tables(
    session: psycopg.Connection[Any], schema: str, needs: SureNeeds, role: str
) -> Iterator[_Missing]:
    revisions = {
        (own or schema, table): revision for (own, table), revision in needs.tables.items()
    }
    given = [[place[0] for place in revisions], [place[1] for place in revisions]]
    for place in session.execute(_OTHERS_TABLES.encode(), given).fetchall():
        table = identifier(*place)
        what = f"alter {table}, as revision {revisions[place]} does"
        yield _Missing(what, grant_statements.own_table(table, role), table)


def _missing_extensions(
    session: psycopg.Connection[Any], needs: SureNeeds, *, is_new: bool
) -> Iterator[_Missing]:
    """`is_new` says that the database is still to be made, and that its owner will be the role."""
    given = {"names": list(needs.extensions), "is_new": is_new}
    for (name,) in session.execute(_EXTENSIONS.encode(), given).fetchall():
        what = f"create the extension {name}, as revision {needs.extensions[name]} does"
        yield _Missing(what, grant_statements.create_extension(name), name)
