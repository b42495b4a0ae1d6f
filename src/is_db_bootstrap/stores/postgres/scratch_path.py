"""The search path of a scratch database: that of the database for which it stands.

What an address, PGOPTIONS or a role sets holds there too. What the database itself was given
(ALTER DATABASE … SET search_path) does not, so the address of the scratch database gets it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.stores.postgres.search_path import names_in

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl

_USUAL_SCHEMA = "public"
_OPTION = "options"
_SETTING = "-csearch_path="
#: The path that the server's own configuration gives to everybody.
_USUAL_SOURCES = ("default", "configuration file")
#: The path of this session, where it is from, and what a database was given for everybody.
_PATHS = """
    SELECT setting, source, (
        SELECT substr(given, length('search_path=') + 1)
        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase,
             unnest(s.setconfig) AS given
        WHERE d.datname = %s AND starts_with(given, 'search_path=')
          AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
        ORDER BY s.setrole DESC LIMIT 1
    ) FROM pg_settings WHERE name = 'search_path'
"""


def with_path_of(
    maintenance: psycopg.Connection[Any], target: StoreUrl, scratch: StoreUrl
) -> StoreUrl:
    """The address of a scratch database, with the search path that sessions of `target` have.

    `maintenance` is a session of the same server and role. The address stays as it is where the
    path is the server's usual one, or does not lead to `public`, which is all that a scratch
    database has at first.
    """
    row = maintenance.execute(_PATHS.encode(), [target.database]).fetchone()
    own, source, of_database = row or ("", "default", None)
    is_by_session = source in {"client", "user", "database user"}
    path = own if is_by_session else of_database
    if path is None or _USUAL_SCHEMA not in names_in(path):
        return scratch
    others = [(name, value) for name, value in scratch.query if name != _OPTION]
    given = dict(scratch.query).get(_OPTION, "")
    escaped = path.replace("\\", "\\\\").replace(" ", "\\ ")
    return replace(scratch, query=(*others, (_OPTION, f"{given} {_SETTING}{escaped}".strip())))


def path_schema_of(scratch: StoreUrl, schema: str = _USUAL_SCHEMA) -> str | None:
    """The schema with which a session's path in a scratch database begins.

    None where the address of that database has a path of its own (`with_path_of`).
    """
    has_path = _SETTING in dict(scratch.query).get(_OPTION, "")
    return None if has_path and schema == _USUAL_SCHEMA else schema
