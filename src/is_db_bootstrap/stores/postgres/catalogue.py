"""The catalogue of PostgreSQL schemas as comparable text, and the file `catalogue.json`.

A catalogue maps each kind of object to names, and each name to a definition as the server itself
writes it, without schema names, so that PostgreSQL 14 to 18 agree. `catalogue.sql` has the query.
What of the server's own catalogue is compared, and what is not and why, is in `catalogue.toml`.
Comments are no part of it: their wording is free. Objects of an extension belong to the extension.
`scratch` generates the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import ConfigurationError, StoreBusy
from is_db_bootstrap.stores.postgres.revisions import TABLE

if TYPE_CHECKING:
    import psycopg

FILE_NAME = "catalogue.json"
#: What `catalogue.json` says of its own form. A file without that word is of format 1: it has fewer
#: kinds, and of some kinds less. It is compared as far as it goes.
FORMAT = 2
#: Of a live schema only, no part of `catalogue.json`: each partition, and the table at the top of
#: its partitions.
PARTITION = "partition"
#: Of a live database only: that a schema is there, and that a role is there.
SCHEMA = "schema"
ROLE = "role"
_LIVE_ONLY = frozenset({PARTITION, SCHEMA, ROLE})

#: What has an owner and privileges, as the kinds of these begin. Empty for a table or a view.
_POSSESSIONS = ("", "sequence ", "function ", "type ", "schema ", "foreign server ")
OWNERS = tuple(f"{what}owner" for what in _POSSESSIONS)
GRANTS = tuple(f"{what}grant" for what in _POSSESSIONS)
POLICY_ROLES = "policy roles"
DEFAULT_PRIVILEGES = "default privileges"
#: Kinds that name roles. A setting leaves them out.
PRIVILEGES = frozenset({*OWNERS, *GRANTS, POLICY_ROLES, DEFAULT_PRIVILEGES})
#: Kinds that are no objects: they say more of an object that has a kind of its own.
ATTRIBUTES = PRIVILEGES | {"view option", "view column", "table option", "replica identity"}
#: Kinds whose definition is a query, which the server writes in another way from 16 on.
QUERIES = ("view", "materialized view")
#: The first major version that leaves out the table of a column where a query has one table only.
_PLAIN_COLUMNS = 16

Objects = Mapping[str, Mapping[str, str]]

_PLAIN_NAME = re.compile(r"[\w$-]+")
_FIRST_PART = re.compile(r'"(?:[^"]|"")*"|.*?(?=\.| to |$)', re.DOTALL)
_CONFLICT = re.compile(r"^(<<<<<<<|=======|>>>>>>>)( |$)", re.MULTILINE)
_BLOCK = "-- kind: "
_NAMED = "-- with: "


def written(part: str) -> str:
    """A part of a name as a catalogue has it: in quotes where its end could not be seen else."""
    if _PLAIN_NAME.fullmatch(part):
        return part
    return '"' + part.replace('"', '""') + '"'


def first_part(name: str) -> str:
    """The table or view of the name of one of its parts, as the catalogue writes it."""
    found = _FIRST_PART.match(name)
    return found[0] if found else name


def plain(part: str) -> str:
    """The name that `written` has put in quotes."""
    if len(part) > 1 and part[0] == part[-1] == '"':
        return part[1:-1].replace('""', '"')
    return part


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of the query: the kinds that it finds, and the first major version that takes it."""

    kinds: tuple[str, ...]
    since: int
    query: str

    @classmethod
    def read(cls, text: str) -> _Block:
        """From its text, whose first line names kinds and may name a version."""
        title, _, query = text.partition("\n")
        kinds, _, since = title.partition("; from ")
        return cls(tuple(kinds.split(", ")), int(since or 0), query)


@cache
def _blocks() -> tuple[dict[str, str], list[_Block]]:
    """The queries that blocks refer to, by name and in their order, and the blocks."""
    text = resources.files(__package__).joinpath("catalogue.sql").read_text(encoding="utf-8")
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith("--") or line.startswith((_NAMED, _BLOCK))
    ]
    beginning, *blocks = "\n".join(lines).split(_BLOCK)
    named = {}
    for each in beginning.split(_NAMED)[1:]:
        name, _, query = each.partition("\n")
        named[name] = query.strip()
    return named, [_Block.read(block) for block in blocks]


def all_kinds() -> tuple[str, ...]:
    """Every kind that the query can find, in its order."""
    return tuple(kind for block in _blocks()[1] for kind in block.kinds)


@cache
def _query(kinds: frozenset[str], major: int) -> str:
    """The query for these kinds, for a server of this major version.

    It has no named query that nothing refers to, because the server would analyse it nevertheless.
    """
    named, blocks = _blocks()
    wanted = [
        block.query for block in blocks if kinds.intersection(block.kinds) and block.since <= major
    ]
    whole = "UNION ALL\n".join(wanted)
    needed: list[str] = []
    for name, query in reversed(named.items()):
        if re.search(rf"\b{name}\b", "\n".join([whole, *needed])):
            needed.insert(0, query)
    return "WITH " + ",\n".join(needed) + "\n" + whole


def look(
    connection: psycopg.Connection[Any],
    schemas: Sequence[str],
    *,
    form: int = FORMAT,
    kinds: Collection[str] | None = None,
    roles: Sequence[str] = (),
    record: str | None = None,
) -> dict[str, dict[str, dict[str, str]]]:
    """Each of `schemas` that is there, with its objects by kind and name, in one query.

    What belongs to the whole database is told with the first of `schemas`, and under an empty name
    when that schema is not there. `form` is the format of a file that the objects are compared
    with. `kinds` are the only ones to look for. `roles` are role names of which the catalogue says
    something. `record` is the quoted name of a team's version table, which is left out. The
    session's search path must begin with the first of `schemas`.

    Raises `StoreBusy` when the server no longer knows an object of which it has just told the name:
    functions such as `pg_get_indexdef` read it later than the query has seen it.
    """
    wanted = frozenset(all_kinds() if kinds is None else {*kinds, SCHEMA})
    major = connection.info.server_version // 10000
    parameters = {
        "schemas": [*schemas],
        "version": TABLE,
        "roles": [*roles],
        "record": record,
    }
    rows = connection.execute(_query(wanted, major).encode(), parameters).fetchall()
    there = {schema for kind, schema, *_ in rows if kind == SCHEMA}
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in schemas if name in there}
    for kind, schema, parts, called, first, second in rows:
        if first is None and second is None:
            raise _gone(kind, _name(parts, called, form))
        definition = second if form > 1 else first
        if kind == SCHEMA or kind not in wanted or definition is None:
            continue
        place = schema or (schemas[0] if schemas[0] in there else "")
        name = _name(parts, called, form)
        if kind == PARTITION and form > 1:
            definition = written(definition)
        found.setdefault(place, {}).setdefault(kind, {})[name] = definition
    return {name: _in_order(objects) for name, objects in found.items()}


def _gone(kind: str, name: str) -> StoreBusy:
    from is_db_bootstrap.stores.postgres.errors import changed_meanwhile

    return changed_meanwhile("the catalogue", f"{kind} {name} has gone")


def _name(parts: Iterable[str], called: str, form: int) -> str:
    """The name of an object, as a file of this format has it."""
    return ".".join(parts if form == 1 else map(written, parts)) + called


def _in_order(objects: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {kind: dict(sorted(objects[kind].items())) for kind in sorted(objects)}


def live(connection: psycopg.Connection[Any], schema: str) -> Objects:
    """The catalogue of `schema` in one query.

    The session's search path must begin with that schema.
    """
    return look(connection, [schema]).get(schema, {})


#: Schemas beside one's own, in which anything may be: none of PostgreSQL, of an extension, or of
#: is-db-bootstrap's own records.
_OTHER_SCHEMAS = """
    SELECT nspname::text FROM pg_namespace n
    WHERE nspname !~ '^pg_' AND NOT nspname = ANY(%s) AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
    ORDER BY nspname
"""


def live_with_others(
    connection: psycopg.Connection[Any], schema: str, record: str | None = None
) -> tuple[Objects, dict[str, Objects]]:
    """The catalogue of `schema`, and that of each other schema of the database.

    `record` is the quoted name of a team's version table, which is left out. The session's
    search path must begin with `schema`.
    """
    from is_db_bootstrap.stores.postgres import (
        own_schema,
    )  # with psycopg, which no reader of files needs

    left_out = [schema, "information_schema", own_schema.SCHEMA]
    names = [name for (name,) in connection.execute(_OTHER_SCHEMAS, [left_out]).fetchall()]
    found: dict[str, Objects] = {**look(connection, [schema, *names], record=record)}
    return found.pop(schema, {}), found


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The declared objects of a blueprint at its head revision.

    `objects` are those of its own schema, and of the whole database. `schemas` are those that
    revisions make in schemas which they name. A file of an earlier version has none. `versions`
    are the major versions of PostgreSQL that write the same text for a query as the server did
    that the catalogue was made on; empty where there is no query.
    """

    blueprint: str
    head: str
    objects: Objects
    schemas: Mapping[str, Objects] = field(default_factory=dict)
    form: int = FORMAT
    versions: str = ""

    @classmethod
    def read(cls, folder: Path) -> Catalogue | None:
        """The file beside the revisions.

        None when the blueprint has none, and then only revisions are verified.

        Raises `ConfigurationError` for a file that is not a catalogue, such as one with conflict
        markers.
        """
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        try:
            text = path.read_text(encoding="utf-8")
            _refuse_conflict(path, text)
            return cls._of(json.loads(text), path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise ConfigurationError(
                f"{path} is not a catalogue: it was not generated by is-db-bootstrap, or was "
                "edited.",
                hint="Rename or remove it, then: is-db-bootstrap revision --refresh",
            ) from exc

    @classmethod
    def _of(cls, document: Mapping[str, Any], path: Path) -> Catalogue:
        """The catalogue of a document. Raises what a document of another form makes it raise."""
        form = int(document.get("format", 1))
        if form > FORMAT:
            raise ConfigurationError(
                f"{path} is of format {form}, which a newer version of is-db-bootstrap has "
                f"written; this one reads up to {FORMAT}.",
                hint="Install that version, or write the file again: is-db-bootstrap revision "
                "--refresh",
            )
        return cls(
            blueprint=document["blueprint"],
            head=document["head"],
            objects=_checked(document["objects"]),
            schemas={
                name: _checked(objects) for name, objects in document.get("schemas", {}).items()
            },
            form=form,
            versions=str(document.get("queries_of_postgresql", "")),
        )

    @classmethod
    def made(
        cls,
        connection: psycopg.Connection[Any],
        blueprint: str,
        head: str,
        schema: str,
        record: str | None = None,
    ) -> Catalogue:
        """The catalogue of a database that was made by the revisions alone.

        `record` is the quoted name of a team's version table, which is left out. The role that
        made it stands for whoever applies them elsewhere. So what the revisions give to it is left
        out.
        """
        (role,) = connection.execute("SELECT current_user::text").fetchone() or ("",)
        objects, schemas = live_with_others(connection, schema, record)
        return cls(
            blueprint,
            head,
            _without_role(objects, role),
            {name: _without_role(found, role) for name, found in schemas.items()},
            versions=_versions([objects, *schemas.values()], connection.info.server_version),
        )

    def text(self) -> str:
        """The file's content."""
        document: dict[str, Any] = {"blueprint": self.blueprint, "head": self.head}
        if self.form > 1:
            document["format"] = self.form
        if self.versions:
            document["queries_of_postgresql"] = self.versions
        document["objects"] = _without_live_only(self.objects)
        if self.schemas:
            document["schemas"] = {
                name: _without_live_only(objects) for name, objects in self.schemas.items()
            }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def tables(self) -> list[str]:
        """The names of the tables in the blueprint's own schema, as the server has them."""
        return self.tables_of(self.objects)

    def tables_of(self, objects: Objects) -> list[str]:
        """The names of the tables among these objects, as the server has them."""
        names = objects.get("table", {})
        return [plain(name) for name in names] if self.form > 1 else [*names]

    def without_privileges(self) -> Catalogue:
        """The same catalogue without owners, grants and the roles of policies."""
        return replace(
            self,
            objects=_without_kinds(self.objects, PRIVILEGES),
            schemas={
                name: _without_kinds(objects, PRIVILEGES) for name, objects in self.schemas.items()
            },
        )

    def kinds(self) -> frozenset[str]:
        """The kinds of which it has objects."""
        return frozenset(
            kind for objects in (self.objects, *self.schemas.values()) for kind in objects
        )

    def roles(self) -> list[str]:
        """The roles that it names, in order."""
        found = {
            role
            for objects in (self.objects, *self.schemas.values())
            for kind in PRIVILEGES.intersection(objects)
            for name, definition in objects[kind].items()
            for role in named_roles(kind, name, definition)
        }
        return sorted(found)

    def is_exact_on(self, server_version: int) -> bool:
        """Whether a server of this version (such as 150017) writes queries as the file has them."""
        return not self.versions or self.versions == _same_queries(server_version)


def named_roles(kind: str, name: str, definition: str) -> list[str]:
    """The roles that an entry of such a kind names. PUBLIC is none."""
    if kind in OWNERS:
        return [definition]
    if kind == POLICY_ROLES:
        return [role for role in definition.split(", ") if role != "PUBLIC"]
    if kind in PRIVILEGES:
        role = name.rpartition(" to ")[2]
        return [] if role == "PUBLIC" else [role]
    return []


def _versions(catalogues: Iterable[Objects], server_version: int) -> str:
    has_query = any(objects.get(kind) for objects in catalogues for kind in QUERIES)
    return _same_queries(server_version) if has_query else ""


def _same_queries(server_version: int) -> str:
    """The major versions that write the text of a query like this one, which is as 150017."""
    is_plain = server_version // 10000 >= _PLAIN_COLUMNS
    return f"{_PLAIN_COLUMNS} and later" if is_plain else f"14 to {_PLAIN_COLUMNS - 1}"


def _without_role(objects: Objects, role: str) -> Objects:
    """The same objects without what is said of `role` alone."""
    return {
        kind: kept
        for kind, found in objects.items()
        if (kept := dict(_not_of_role(kind, found, role)))
    }


def _not_of_role(kind: str, found: Mapping[str, str], role: str) -> Iterator[tuple[str, str]]:
    for name, definition in found.items():
        if role not in named_roles(kind, name, definition):
            yield name, definition


def _without_kinds(objects: Objects, kinds: Collection[str]) -> Objects:
    return {kind: found for kind, found in objects.items() if kind not in kinds}


def _without_live_only(objects: Objects) -> Objects:
    return _without_kinds(objects, _LIVE_ONLY)


def _checked(objects: Any) -> Objects:
    """The same objects. Raises `TypeError` when it is not kind to name to definition.

    An earlier version wrote null for an enum without labels.
    """
    for found in objects.values():
        if not all(isinstance(text, str | None) for text in found.values()):
            raise TypeError("a definition is not a text")
    return {
        kind: {name: text or "" for name, text in found.items()} for kind, found in objects.items()
    }


def _refuse_conflict(path: Path, text: str) -> None:
    """Raise `ConfigurationError` for a file that a merge has left with conflict markers."""
    found = _CONFLICT.search(text)
    if found is None:
        return
    line = text.count("\n", 0, found.start()) + 1
    raise ConfigurationError(
        f"{path} has the conflict markers of a merge (line {line}).",
        hint="It is generated, so there is nothing to merge by hand: is-db-bootstrap revision "
        "--refresh",
    )


def available_extensions(
    connection: psycopg.Connection[Any], folder: Path | None
) -> dict[str, bool]:
    """Each extension that the catalogue beside the revisions declares.

    The value is whether the server has it to install.
    """
    declared = Catalogue.read(folder) if folder else None
    wanted = list(declared.objects.get("extension", ())) if declared else []
    names = [plain(name) for name in wanted]
    found = connection.execute(
        "SELECT name FROM pg_available_extensions WHERE name = ANY(%s)", [names]
    ).fetchall()
    return {name: (name,) in found for name in names}
