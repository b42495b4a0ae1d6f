"""What lets a role do what the server has just refused, as statements for an administrator."""

from __future__ import annotations

import re
from urllib.parse import unquote

_ANY = "Grant the privilege, or use a role that has it."
#: The server's words in English. In another language, the statement is left to the administrator.
_REFUSED = re.compile(r"permission denied for (?P<kind>schema|table|database) (?P<name>.+)")
_NOT_OWNER = re.compile(r"must be owner of (?P<kind>table|schema) (?P<name>.+)")
_NO_EXTENSION = re.compile(r'permission denied to create extension "(?P<name>.+)"')
_USER = re.compile(r"//(?P<user>[^:@/]*)(?::[^@/]*)?@")


def missing_privilege(primary: str, target: str, about: str, *, is_look: bool) -> str:
    """The hint of a refusal. `primary` is the server's message, `target` the address.

    `about` is what was looked at or changed: a table's name with its schema tells where it is.
    `is_look` says that nothing was to be changed, so that reading is what is missing.
    """
    statements = _statements(primary, _role_of(target), about, is_look=is_look)
    return f"{_ANY} Let an administrator run: {statements}" if statements else _ANY


def _statements(primary: str, role: str, about: str, *, is_look: bool) -> str:
    """What an administrator runs. Empty where the message does not tell."""
    if not role:
        return ""
    if found := _NO_EXTENSION.fullmatch(primary):
        return f"CREATE EXTENSION IF NOT EXISTS {_quoted(found['name'])};"
    if found := _NOT_OWNER.fullmatch(primary):
        place = _place(found["name"], about if found["kind"] == "table" else "")
        return f"ALTER {found['kind'].upper()} {place} OWNER TO {role};"
    found = _REFUSED.fullmatch(primary)
    return _grant(found["kind"], found["name"], role, about, is_look=is_look) if found else ""


def _grant(kind: str, name: str, role: str, about: str, *, is_look: bool) -> str:
    """What grants the right to an object of this kind."""
    if kind == "database":
        return f"GRANT CREATE ON DATABASE {_quoted(name)} TO {role};"
    if kind == "table":
        right = "SELECT" if is_look else "SELECT, INSERT, UPDATE, DELETE"
        return f"GRANT {right} ON {_place(name, about)} TO {role};"
    end = f"ON SCHEMA {_quoted(name)} TO {role};"
    return f"GRANT USAGE, CREATE {end} For a role that only looks: GRANT USAGE {end}"


def _place(table: str, about: str) -> str:
    """The table's quoted name, with its schema where that is known."""
    schema, _, known = about.rpartition(".")
    return f"{_quoted(schema)}.{_quoted(table)}" if known == table and schema else _quoted(table)


def _role_of(target: str) -> str:
    """The quoted name of the user of an address. Empty where it names none."""
    found = _USER.search(target)
    return _quoted(unquote(found["user"])) if found and found["user"] else ""


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
