"""The constraints and indexes of a running Neo4j, as Cypher files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.existing import Existing, Request
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import quoted, split
from is_db_bootstrap.stores.neo4j.database import Database
from is_db_bootstrap.stores.neo4j.errors import Translation
from is_db_bootstrap.stores.neo4j.history import LABEL
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing

#: Labels and types of what neo4j-migrations keeps for itself.
_OF_MIGRATIONS = {"__Neo4jMigration", "__Neo4jMigrationsLock", "REPEATED", "MIGRATED_TO"}
_CONSTRAINTS = "SHOW CONSTRAINTS YIELD name, labelsOrTypes, createStatement"
_INDEXES = """
SHOW INDEXES YIELD name, type, labelsOrTypes, owningConstraint, createStatement
WHERE owningConstraint IS NULL
"""
_RECORDED = f"MATCH (m:{LABEL}) RETURN count(m) AS nodes"
#: What a server makes itself in each database.
_MADE_BY_SERVER = "LOOKUP"
#: The part of a statement before which `IF NOT EXISTS` belongs.
_BEFORE_FOR = re.compile(
    r"^(?P<start>CREATE (?:\w+ )*(?:CONSTRAINT|INDEX) (?:`(?:``|[^`])*`|\w+)) FOR ", re.IGNORECASE
)
#: Options in which a server writes its own defaults: a range index has no others.
_RANGE_OPTIONS = re.compile(
    r" OPTIONS \{indexConfig: \{\}, indexProvider: 'range-1\.0'\}$", re.IGNORECASE
)
_DECLARED_BY_FILES = (
    "The database records migrations, so their files declare it. Give the folder of these files: "
    "cypher=Path(…)."
)
#: A quoted name as a whole, with the doubled backticks in it.
_QUOTED_NAME = re.compile(r"`((?:``|[^`])*)`")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_existing(url: StoreUrl, timing: Timing, request: Request) -> Existing:
    """Every constraint and index of the database in `url`, apart from what servers make."""
    del request
    errors = Translation(url)
    database = Database(url, timing.connect_timeout_s, errors)
    try:
        database.open(timing.connect_timeout_s)
        with errors("SHOW CONSTRAINTS"), database.session() as session:
            live = database.look(session)
            constraints = database.rows(session, _CONSTRAINTS)
            indexes = database.rows(session, _INDEXES)
            recorded = database.rows(session, _RECORDED)[0]["nodes"]
    finally:
        database.close()
    if recorded:
        return Existing(
            found=counted(recorded, "recorded migration"),
            unread=[_DECLARED_BY_FILES],
        )
    unread: list[str] = []
    files = {
        "cypher/V001__constraints.cypher": _file_text(constraints, live, unread),
        "cypher/V002__indexes.cypher": _file_text(indexes, live, unread),
    }
    written = {path: text for path, text in files.items() if text}
    numbers = [len(_own(rows)) for rows in (constraints, indexes)]
    newest = max(written, default="").partition("V")[2].partition("__")[0]
    return Existing(
        files=written,
        found=f"{counted(numbers[0], 'constraint')} and {counted(numbers[1], 'index', 'indexes')}",
        unread=unread,
        next_steps=[f"is-db-bootstrap migrate stamp {newest} --cypher --blueprint {{folder}}"]
        if written
        else [],
    )


def _own(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of what somebody has declared, in the order of their names."""
    return sorted(
        (
            row
            for row in rows
            if row.get("type") != _MADE_BY_SERVER
            and _OF_MIGRATIONS.isdisjoint(row["labelsOrTypes"] or ())
        ),
        key=lambda row: str(row["name"]),
    )


def _file_text(rows: Sequence[Mapping[str, Any]], live: LiveSchema, unread: list[str]) -> str:
    """A Cypher file with a statement for each row. Empty when there is none."""
    return "\n".join(_statements(_own(rows), live, unread))


def _statements(
    rows: Sequence[Mapping[str, Any]], live: LiveSchema, unread: list[str]
) -> Iterator[str]:
    for row in rows:
        name = str(row["name"])
        text = _guarded(str(row["createStatement"] or ""))
        if text is None or not _is_true(text, live.objects.get(name)):
            unread.append(f"{quoted(name)} is left out: its statement is not understood here.")
            continue
        yield f"{text};\n"


def _guarded(statement: str) -> str | None:
    """The statement with `IF NOT EXISTS`, and without what a server says beside it.

    None when it has another form than the manual gives.
    """
    plain = _RANGE_OPTIONS.sub("", statement.strip())
    found = _BEFORE_FOR.match(plain)
    if found is None:
        return None
    rest = plain[len(found["start"]) :]
    return _QUOTED_NAME.sub(_unquoted, f"{found['start']} IF NOT EXISTS{rest}")


def _unquoted(found: re.Match[str]) -> str:
    """A name without backticks where it needs none."""
    return found[1] if _PLAIN_NAME.fullmatch(found[1]) else found[0]


def _is_true(text: str, live: SchemaObject | None) -> bool:
    """Whether this tool reads the statement as what the server shows under that name."""
    try:
        statements = list(split(f"{text};"))
    except ValueError:
        return False
    if len(statements) != 1 or live is None:
        return False
    found = recognise(statements[0].tokens)
    return isinstance(found, SchemaObject) and found.name == live.name and found.matches(live)
