"""The privileges that a role of a Neo4j needs, as administration commands of Cypher.

Roles are a part of the Enterprise Edition. In the Community Edition each user may do everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from is_db_bootstrap.grant_list import Grant, GrantWish, Purpose, RoleGrants
from is_db_bootstrap.stores.neo4j import begun, history, lock
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.neo4j.kind import STORE


@dataclass(frozen=True, slots=True)
class Privilege:
    """A privilege as `GRANT` names it, and by the actions of `SHOW USER PRIVILEGES`.

    A user has it who has all of one of `held_by`. `is_of_graph` says that it is one on a graph, and
    not on a database. `segment` is what of the graph it covers.
    """

    grant: str
    reason: str
    held_by: tuple[frozenset[str], ...]
    is_of_graph: bool = False
    segment: str = ""

    def statement(self, role: str, database: str) -> str:
        """The command that grants it to a role. Without a database, on the home database."""
        kind = "GRAPH" if self.is_of_graph else "DATABASE"
        place = f"{kind} {quoted(database)}" if database else f"HOME {kind}"
        segment = f" {self.segment}" if self.segment else ""
        return f"GRANT {self.grant} ON {place}{segment} TO {quoted(role)};"


def _of_database(grant: str, reason: str, *actions: str) -> Privilege:
    """A privilege on a database: an action of its own, or several small ones."""
    own, *parts = actions
    ways = [frozenset({own}), frozenset({"database_actions"})]
    if parts:
        ways.append(frozenset(parts))
    return Privilege(grant, reason, tuple(ways))


def _of_graph(grant: str, reason: str, action: str, *parts: str, segment: str = "") -> Privilege:
    """A privilege on a graph."""
    ways = (frozenset({action}), frozenset({"graph_actions"}), frozenset(parts or {action}))
    return Privilege(grant, reason, ways, is_of_graph=True, segment=segment)


#: What this tool records, as segments of a graph.
_SEGMENTS = (
    f"NODES {history.LABEL}, {lock.LABEL}, {begun.LABEL}",
    "RELATIONSHIPS MIGRATED_TO, REPEATED",
)
_ACCESS = _of_database("ACCESS", "to use the database", "access")
_LOOKING = (
    _of_database("SHOW INDEX", "to compare indexes", "show_index", "index"),
    _of_database("SHOW CONSTRAINT", "to compare constraints", "show_constraint", "constraint"),
    *(
        _of_graph(
            "MATCH {*}",
            "to read which files were applied, and who holds the lock",
            "match",
            "read",
            "traverse",
            segment=segment,
        )
        for segment in _SEGMENTS
    ),
)
_CHANGING = (
    _of_database(
        "INDEX MANAGEMENT",
        "for the indexes of files, and one of this tool",
        "index",
        "create_index",
        "drop_index",
        "show_index",
    ),
    _of_database(
        "CONSTRAINT MANAGEMENT",
        "for the constraints of files, and those of this tool",
        "constraint",
        "create_constraint",
        "drop_constraint",
        "show_constraint",
    ),
    _of_database(
        "NAME MANAGEMENT",
        "for labels, types and properties that are new",
        "token",
        "create_label",
        "create_reltype",
        "create_propertykey",
    ),
    _of_graph(
        "MATCH {*}",
        "for what files read, and to find rows that a constraint would refuse",
        "match",
        "read",
        "traverse",
    ),
    _of_graph(
        "WRITE",
        "for what files write, for the lock and for the record of files",
        "write",
        "create_element",
        "delete_element",
        "set_label",
        "remove_label",
        "set_property",
    ),
)
#: What a user has in each database, whatever it is called.
_EVERYWHERE = {"*", "HOME", "DEFAULT"}
#: Shows what the user of this session may do, also to that user (Enterprise only).
SHOW = "SHOW USER PRIVILEGES YIELD access, action, graph RETURN access, action, graph"
_PROCEDURES = (
    "Files that CALL procedures need EXECUTE PROCEDURE on them where an administrator took that "
    "away from the role PUBLIC."
)


def needed(wish: GrantWish) -> tuple[Privilege, ...]:
    """The privileges of a role that is for these purposes."""
    if wish.applies:
        return (_ACCESS, *_CHANGING)
    return (_ACCESS, *_LOOKING)


def missing_statements(rows: Iterable[Mapping[str, str]], role: str, database: str) -> list[str]:
    """What an administrator runs, so that a user may apply. Empty when nothing is missing.

    `rows` are those of `SHOW`. Which labels a right covers is not looked at, so a right to a part
    of the graph counts as one to all of it.
    """
    held = {
        row["action"]
        for row in rows
        if row["access"] == "GRANTED" and row["graph"] in {*_EVERYWHERE, database}
    }
    wish = GrantWish(role, frozenset({Purpose.APPLY}))
    lacking = [each for each in needed(wish) if not any(way <= held for way in each.held_by)]
    return [each.statement(role, database) for each in lacking]


def role_grants(wish: GrantWish, database: str) -> RoleGrants:
    """The privileges of one role, which is granted to a user of the same name."""
    role = quoted(wish.role)
    grants = [
        Grant(f"CREATE ROLE {role} IF NOT EXISTS;", "the role itself"),
        *(Grant(each.statement(wish.role, database), each.reason) for each in needed(wish)),
        Grant(f"GRANT ROLE {role} TO {role};", "so that the user of the same name has the role"),
    ]
    return RoleGrants(
        STORE,
        wish.role,
        tuple(sorted(wish.purposes)),
        client="cypher-shell -d system",
        comment="//",
        grants=tuple(grants),
        first=tuple(_first(role)),
        notes=(_PROCEDURES,),
    )


def _first(role: str) -> Iterator[str]:
    yield (
        "Roles need the Enterprise Edition. In the Community Edition each user may do everything, "
        "so there is nothing to grant."
    )
    yield (
        "The user comes first, with a password of yours: :param password => '…', then CREATE USER "
        f"{role} IF NOT EXISTS SET PASSWORD $password CHANGE NOT REQUIRED;"
    )
