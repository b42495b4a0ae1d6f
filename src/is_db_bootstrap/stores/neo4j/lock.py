"""The lock of a Neo4j database: a lease on the node that neo4j-migrations locks with.

So both exclude each other. Its own node has no lease, which tells the two apart. Theirs is never
deleted here. Times are the server's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from is_db_bootstrap.results import LockHolder

LABEL = "__Neo4jMigrationsLock"
#: The only name that neo4j-migrations gives its node; that it is unique is the exclusion.
NODE_NAME = "John Doe"

SCHEMA: Mapping[str, str] = {
    f"{LABEL}__has_unique_id": (
        f"CREATE CONSTRAINT {LABEL}__has_unique_id IF NOT EXISTS "
        f"FOR (n:{LABEL}) REQUIRE n.id IS UNIQUE"
    ),
    f"{LABEL}__has_unique_name": (
        f"CREATE CONSTRAINT {LABEL}__has_unique_name IF NOT EXISTS "
        f"FOR (n:{LABEL}) REQUIRE n.name IS UNIQUE"
    ),
}

_SET = (
    "id: $token, token: $token, owner: $owner, since: datetime.realtime(), "
    "until: datetime.realtime() + duration({milliseconds: $ms})"
)
#: The SET of the name takes the node's write lock before the lease is read: two takers cannot both
#: see it lapsed.
TAKE = f"""
MERGE (l:{LABEL} {{name: $name}})
ON CREATE SET l += {{{_SET}}}
SET l.name = $name
WITH l, l.until < datetime.realtime() AS lapsed
FOREACH (_ IN CASE WHEN lapsed THEN [1] ELSE [] END | SET l += {{{_SET}}})
RETURN l.token = $token AS ours, l.owner AS owner, l.since AS since, l.until AS until
"""
CONFIRM = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l WHERE l.token = $token
SET l.until = datetime.realtime() + duration({{milliseconds: $ms}}) RETURN count(l) AS ours
"""
RELEASE = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l WHERE l.token = $token DELETE l RETURN count(*) AS ours
"""
#: The name is set before the lease is read, as in `TAKE`. A lock without a lease stays: its
#: comparison is null.
RELEASE_LAPSED = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l, l.owner AS owner WHERE l.until < datetime.realtime()
DELETE l RETURN owner
"""
#: `lapsed` is null for the lock of neo4j-migrations, which has no lease.
HOLDER = f"""
MATCH (l:{LABEL})
RETURN l.owner AS owner, l.since AS since, l.until AS until,
       l.until < datetime.realtime() AS lapsed LIMIT 1
"""

#: Sends one statement in a transaction of its own and returns its rows.
Write = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]


@dataclass(slots=True)
class Lease:
    """A held lock of `ms` milliseconds, renewed by each `confirm`."""

    write: Write
    token: str
    owner: str
    ms: int
    #: Whether it was given back, or found lost when it was to be given back.
    ended: bool = False

    @property
    def lease_s(self) -> float:
        """Seconds from a renewal to the moment when another run may take it over."""
        return self.ms / 1000

    def confirm(self) -> bool:
        """Whether the node still has our token; gives it the full lease again."""
        return self.confirm_in(self.write)

    def confirm_in(self, write: Write) -> bool:
        """The same in a transaction of the caller's.

        Until that has ended, no other run can take the lease.
        """
        return bool(write(CONFIRM, self.parameters)[0]["ours"])

    def release(self) -> bool:
        """Delete the node if it still has our token."""
        self.ended = True
        return bool(self.write(RELEASE, self.parameters)[0]["ours"])

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statements of this module ask for."""
        return {"name": NODE_NAME, "token": self.token, "owner": self.owner, "ms": self.ms}


def take(write: Write, owner: str, lease_s: float) -> Lease | LockHolder:
    """One try; a lapsed lease is taken over."""
    lease = Lease(write, str(uuid.uuid4()), owner, max(1, int(lease_s * 1000)))
    row = write(TAKE, lease.parameters)[0]
    return lease if row["ours"] else holder(row)


def lapsed_owner(write: Write) -> str | None:
    """Delete the lock if its lease is over. Returns whose it was, or None when it was nobody's."""
    rows = write(RELEASE_LAPSED, {"name": NODE_NAME})
    return str(rows[0]["owner"]) if rows else None


def present_holder(rows: Sequence[Mapping[str, Any]]) -> LockHolder | None:
    """Who holds the lock, from the rows of `HOLDER`. None when nobody does, or not any more."""
    if not rows or rows[0]["lapsed"]:
        return None
    return holder(rows[0])


def holder(row: Mapping[str, Any]) -> LockHolder:
    """Who holds it, from a row of owner, since and until."""
    if row["until"] is None:
        return LockHolder(
            "neo4j-migrations, whose lock has no lease (if no such run is going on, it crashed: "
            f"MATCH (l:{LABEL}) DELETE l)"
        )
    since: datetime = row["since"].to_native()
    return LockHolder(str(row["owner"]), since)
