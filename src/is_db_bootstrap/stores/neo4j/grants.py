"""The privileges that a role of a Neo4j needs, as administration commands of Cypher.

Roles are a part of the Enterprise Edition. In the Community Edition each user may do everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from is_db_bootstrap.grant_list import Grant, GrantWish, RoleGrants
from is_db_bootstrap.stores.neo4j import begun, history, lock, memory_node
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.stores.neo4j.kind import STORE

#: The privileges to change indexes and constraints. Each needs a command of its own.
_OF_SCHEMA = ("INDEX MANAGEMENT", "CONSTRAINT MANAGEMENT")


@dataclass(frozen=True, slots=True)
class Privilege:
    """A privilege as `GRANT` names it.

    `is_of_graph` says that it is one on a graph, and not on a database. `segment` is what of the
    graph it covers.
    """

    grant: str
    reason: str
    is_of_graph: bool = False
    segment: str = ""

    @property
    def is_of_schema(self) -> bool:
        """Whether it lets a role change indexes or constraints."""
        return self.grant in _OF_SCHEMA

    def statement(self, role: str, database: str) -> str:
        """The command that grants it to a role. Without a database, on the home database."""
        kind = "GRAPH" if self.is_of_graph else "DATABASE"
        place = f"{kind} {quoted(database)}" if database else f"HOME {kind}"
        segment = f" {self.segment}" if self.segment else ""
        return f"GRANT {self.grant} ON {place}{segment} TO {quoted(role)};"


def _of_graph(grant: str, reason: str, segment: str = "") -> Privilege:
    """A privilege on a graph."""
    return Privilege(grant, reason, is_of_graph=True, segment=segment)


#: What this tool records, as segments of a graph.
_SEGMENTS = (
    f"NODES {history.LABEL}, {lock.LABEL}, {begun.LABEL}, {memory_node.LABEL}",
    "RELATIONSHIPS MIGRATED_TO, REPEATED",
)
_ACCESS = Privilege("ACCESS", "to use the database")
_LOOKING = (
    Privilege("SHOW INDEX", "to compare indexes"),
    Privilege("SHOW CONSTRAINT", "to compare constraints"),
    *(
        _of_graph(
            "MATCH {*}",
            "to read which files were applied, who holds the lock, and what is remembered",
            segment,
        )
        for segment in _SEGMENTS
    ),
)
_CHANGING = (
    Privilege(_OF_SCHEMA[0], "for the indexes of files, and one of this tool"),
    Privilege(_OF_SCHEMA[1], "for the constraints of files, and those of this tool"),
    Privilege("NAME MANAGEMENT", "for labels, types and properties that are new"),
    _of_graph("MATCH {*}", "for what files read, and to find rows that a constraint would refuse"),
    _of_graph("WRITE", "for what files write, for the lock and for the record of files"),
)
_PROCEDURES = (
    "Files that CALL procedures need EXECUTE PROCEDURE on them where an administrator took that "
    "away from the role PUBLIC."
)


def needed(wish: GrantWish) -> tuple[Privilege, ...]:
    """The privileges of a role that is for these purposes."""
    if wish.applies:
        return (_ACCESS, *_CHANGING)
    return (_ACCESS, *_LOOKING)


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
