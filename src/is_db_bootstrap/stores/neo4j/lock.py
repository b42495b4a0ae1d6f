"""The lock of a Neo4j database: a lease on the node that neo4j-migrations locks with.

So both exclude each other. Its own node has no lease, which tells the two apart. Theirs is never
deleted here. Times are the server's.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from is_db_bootstrap.engine.owner import host_of, is_running, machine, process_of
from is_db_bootstrap.engine.store import Anchor, LeftLease, Life, PresentLock
from is_db_bootstrap.results import LockHolder

LABEL = "__Neo4jMigrationsLock"
#: The name that neo4j-migrations gives its node, unless it was given a database; that it is unique
#: is the exclusion. Ours has this name in each database.
NODE_NAME = "John Doe"
#: It names its node after a database that it was given, unless that is called so.
_UNNAMED_DATABASE = "neo4j"

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
    "until: datetime.realtime() + duration({milliseconds: $ms}), "
    "runs: [$run], "
)
#: What a run that takes the lease over from one that lost its anchor sets. `until` stays as it was
#: until nothing of the other runs is left. `runs` has the marks of all of them.
_SET_AHEAD = "id: $token, token: $token, owner: $owner, runs: coalesce(l.runs, []) + $run, "
#: The lock of another store that the run holds besides. Versions that know no anchor leave these
#: as they find them, so `anchored` says whose they are.
_SET_ANCHOR = "anchor: $anchor, anchorSession: $anchor_session, anchorUser: $user, anchored: $token"
#: Takes a lock that nobody has, and changes nothing of one that somebody has. The server compiles
#: this in a third of the time that it needs for `TAKE`.
TAKE_FREE = f"""
MERGE (l:{LABEL} {{name: $name}})
ON CREATE SET l += $facts, l.since = datetime.realtime(),
              l.until = datetime.realtime() + duration({{milliseconds: $ms}})
RETURN l.token = $token AND l.until > datetime.realtime() AS ours, l.runs AS runs
"""
#: The SET of the name takes the node's write lock before the lease is read: two takers cannot both
#: see it lapsed.
TAKE = f"""
MERGE (l:{LABEL} {{name: $name}})
ON CREATE SET l += {{{_SET}{_SET_ANCHOR}}}
SET l.name = $name
WITH l, l.until < datetime.realtime() AS lapsed,
     l.token <> $token AND l.anchored = l.token AND l.anchor = $anchor
     AND l.anchorSession <> $anchor_session AND l.anchorUser = $user AND $alone AS lost
FOREACH (_ IN CASE WHEN lapsed THEN [1] ELSE [] END | SET l += {{{_SET}{_SET_ANCHOR}}})
FOREACH (_ IN CASE WHEN lost AND NOT lapsed THEN [1] ELSE [] END |
    SET l += {{{_SET_AHEAD}{_SET_ANCHOR}}})
RETURN l.token = $token AS ours, l.owner AS owner, l.since AS since, l.until AS until, l.id AS id,
       [run IN coalesce(l.runs, []) WHERE run <> $run] AS others
"""
#: The end of a take-over: nothing of the other runs is left.
FINISH = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l WHERE l.token = $token SET l += {{{_SET}{_SET_ANCHOR}}} RETURN count(l) AS ours
"""
#: The node that neo4j-migrations would make when it is given the database. `leaseOf` tells ours
#: from theirs. It is made behind the lease and removed with it, and has no end of its own.
TAKE_COMPANION = f"""
MERGE (c:{LABEL} {{name: $companion}})
ON CREATE SET c.id = $companion + ' ' + $token, c.leaseOf = $name
RETURN c.leaseOf = $name AS ours, c.id AS id
"""
CONFIRM = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l WHERE l.token = $token
SET l.until = datetime.realtime() + duration({{milliseconds: $ms}}) RETURN count(l) AS ours
"""
#: Locks the node until the end of the transaction. No other run can take the lease before that.
HOLD = f"MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name RETURN l.token AS token"
#: The same without the lock, for transactions of schema statements, in which nothing may be written
#: (`ForbiddenDueToTransactionType`).
SEE = f"MATCH (l:{LABEL} {{name: $name}}) RETURN l.token AS token"
RELEASE = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l WHERE l.token = $token
OPTIONAL MATCH (c:{LABEL} {{leaseOf: $name}})
DELETE l, c RETURN count(DISTINCT l) AS ours
"""
#: The name is set before the lease is read, as in `TAKE`. A lock without a lease stays: its
#: comparison is null.
RELEASE_LAPSED = f"""
MATCH (l:{LABEL} {{name: $name}}) SET l.name = $name
WITH l, l.owner AS owner WHERE l.until < datetime.realtime()
OPTIONAL MATCH (c:{LABEL} {{leaseOf: $name}})
DELETE l, c RETURN owner
"""
#: `lapsed` is null for the lock of neo4j-migrations, which has no lease.
HOLDER = f"""
MATCH (l:{LABEL}) WHERE l.leaseOf IS NULL
RETURN l.owner AS owner, l.since AS since, l.until AS until,
       l.until < datetime.realtime() AS lapsed,
       CASE WHEN l.anchored = l.token THEN l.anchor END AS anchor,
       l.anchorSession AS session, l.anchorUser AS user,
       l.until.epochMillis - datetime.realtime().epochMillis AS left_ms,
       elementId(l) AS element, coalesce(toString(l.until), '') AS ends,
       l.id AS id, l.runs AS runs LIMIT 1
"""
#: Deletes one lock that was seen, with the node behind our lease, unless it has changed since. The
#: name is set before the rest is read, as in `TAKE`.
REMOVE_SEEN = f"""
MATCH (l:{LABEL}) WHERE elementId(l) = $element SET l.name = l.name
WITH l WHERE l.id = $id AND coalesce(toString(l.until), '') = $until
OPTIONAL MATCH (c:{LABEL} {{leaseOf: l.name}})
DELETE l, c RETURN count(DISTINCT l) AS removed
"""
#: Who is connected, without us. neo4j-migrations names itself when it is a command line of its own.
#: As a library, it has the name of the Java driver, or what its program has chosen.
OTHERS = """
CALL dbms.listConnections() YIELD userAgent, connector
WHERE connector STARTS WITH 'bolt' AND NOT userAgent ENDS WITH $tag
RETURN DISTINCT userAgent AS agent
"""
#: The roles of the user. A user of the Enterprise Edition sees its own connections only, unless it
#: is an administrator.
ROLES = "SHOW CURRENT USER YIELD roles"
#: How the command line of neo4j-migrations begins to name itself.
STOCK_AGENT = "neo4j-migrations"
#: How clients begin to name themselves that cannot be neo4j-migrations, which is a Java library.
_OTHER_AGENTS = (
    "is-db-bootstrap ",
    "neo4j-browser",
    "neo4j-cypher-shell",
    "neo4j-dotnet",
    "neo4j-go",
    "neo4j-javascript",
    "neo4j-python",
)

#: Sends one statement in a transaction of its own and returns its rows.
Write = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Claim:
    """Who asks for the lease. The same for each try of a run."""

    owner: str
    #: What the transactions and connections of this run carry.
    run: str
    #: The user that the run logs in as. A user may see only the transactions of that user.
    user: str
    #: Whether all transactions of the database can be seen on the server that we are connected to.
    is_alone: bool
    anchor: Anchor | None
    #: It ends with the machine of the process.
    token: str = field(default_factory=lambda: f"{uuid.uuid4()}@{machine()}")


@dataclass(slots=True)
class Lease:
    """A held lock of `ms` milliseconds, renewed by each `confirm`."""

    write: Write
    claim: Claim
    ms: int
    #: Whether it was given back, or found lost when it was to be given back.
    ended: bool = False
    #: When `holds_in` or `seen_in` last found our token, on the monotonic clock.
    seen_at: float = 0.0

    @property
    def token(self) -> str:
        """What the node holds as long as the lease is ours."""
        return self.claim.token

    @property
    def owner(self) -> str:
        """Who holds the lease, for another run and for a person."""
        return self.claim.owner

    @property
    def lease_s(self) -> float:
        """Seconds from a renewal to the moment when another run may take it over."""
        return self.ms / 1000

    def confirm(self) -> bool:
        """Whether the node still has our token; gives it the full lease again."""
        return bool(self.write(CONFIRM, self.parameters)[0]["ours"])

    def holds_in(self, write: Write) -> bool:
        """Whether the node still has our token, which nobody changes before the caller's commit.

        The lease is not renewed.
        """
        return self._is_ours(write, HOLD)

    def seen_in(self, read: Write) -> bool:
        """Whether the node still has our token at this moment. Nothing is written."""
        return self._is_ours(read, SEE)

    def _is_ours(self, ask: Write, text: str) -> bool:
        asked_at = time.monotonic()
        is_ours = [row["token"] for row in ask(text, self.parameters)] == [self.token]
        if is_ours:
            self.seen_at = asked_at
        return is_ours

    def release(self) -> bool:
        """Delete the node if it still has our token."""
        self.ended = True
        return bool(self.write(RELEASE, self.parameters)[0]["ours"])

    @property
    def parameters(self) -> dict[str, Any]:
        """What the statements of this module ask for."""
        claim = self.claim
        return {
            "name": NODE_NAME,
            "token": claim.token,
            "owner": claim.owner,
            "run": claim.run,
            "user": claim.user,
            "alone": claim.is_alone,
            "anchor": claim.anchor.lock if claim.anchor else None,
            "anchor_session": claim.anchor.session if claim.anchor else None,
            "ms": self.ms,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What the node of a new lease has besides its name and its times."""
        given = self.parameters
        return {
            "id": given["token"],
            "token": given["token"],
            "owner": given["owner"],
            "runs": [given["run"]],
            "anchor": given["anchor"],
            "anchorSession": given["anchor_session"],
            "anchorUser": given["user"],
            "anchored": given["token"],
        }


def take(
    write: Write,
    claim: Claim,
    lease_s: float,
    end_runs: Callable[[Sequence[str]], bool],
    *,
    database: str = "",
) -> Lease | LockHolder:
    """One try. A lapsed lease is taken, and so is that of a run that has lost its anchor.

    `end_runs` ends what is left of such runs on the server, and returns whether nothing is left.
    The lease is not held before that. The next try with the same claim goes on with it.

    `database` is what the server calls the database. neo4j-migrations locks another node when it is
    given that name, so both nodes are taken then.
    """
    taken = _take_lease(write, claim, lease_s, end_runs)
    companion = "" if database == _UNNAMED_DATABASE else database
    if not companion or not isinstance(taken, Lease):
        return taken
    given = {**taken.parameters, "companion": companion}
    row = write(TAKE_COMPANION, given)[0]
    if row["ours"]:
        return taken
    taken.release()
    return _stock_holder(row)


def _take_lease(
    write: Write, claim: Claim, lease_s: float, end_runs: Callable[[Sequence[str]], bool]
) -> Lease | LockHolder:
    lease = Lease(write, claim, max(1, int(lease_s * 1000)))
    row = write(TAKE_FREE, {**lease.parameters, "facts": lease.facts})[0]
    if row["ours"] and row["runs"] == [claim.run]:
        return lease
    row = write(TAKE, lease.parameters)[0]
    if not row["ours"]:
        return holder(row)
    if not row["others"]:
        return lease
    is_proven = claim.anchor is not None
    if is_proven and end_runs(row["others"]) and write(FINISH, lease.parameters)[0]["ours"]:
        return lease
    return LockHolder("a run that has lost its lock, and of which something is left on the server")


def lapsed_owner(write: Write) -> str | None:
    """Delete the lock if its lease is over. Returns whose it was, or None when it was nobody's."""
    rows = write(RELEASE_LAPSED, {"name": NODE_NAME})
    return str(rows[0]["owner"]) if rows else None


def left_lease(rows: Sequence[Mapping[str, Any]], user: str | None) -> LeftLease | None:
    """The lease that is there, from the rows of `HOLDER`.

    None for no lock, and for that of neo4j-migrations. The anchor counts if its run was of `user`.
    """
    if not rows or rows[0]["until"] is None:
        return None
    row = rows[0]
    anchor = None
    if row["anchor"] and row["session"] and row["user"] == user:
        anchor = Anchor(row["anchor"], row["session"])
    return LeftLease(holder(row), bool(row["lapsed"]), anchor)


def present_holder(rows: Sequence[Mapping[str, Any]]) -> LockHolder | None:
    """Who holds the lock, from the rows of `HOLDER`. None when nobody does, or not any more."""
    if not rows or rows[0]["lapsed"]:
        return None
    return holder(rows[0])


def holder(row: Mapping[str, Any]) -> LockHolder:
    """Who holds it, from a row of owner, since and until, and of what is left in milliseconds."""
    if row["until"] is None:
        return _stock_holder(row)
    since: datetime = row["since"].to_native()
    owner = str(row["owner"])
    left_ms = row.get("left_ms")
    left_s = None if left_ms is None else max(left_ms / 1000, 0.0)
    return LockHolder(owner, since, host_of(owner), process_of(owner), left_s)


def _stock_holder(row: Mapping[str, Any]) -> LockHolder:
    """The holder of a lock without a lease, which only its id tells from others."""
    return LockHolder(f"neo4j-migrations (lock {row['id']}, without a lease)")


def present(row: Mapping[str, Any], agents: Sequence[str] | None) -> PresentLock:
    """The lock that is there now, from a row of `HOLDER`, and whether its holder is at work.

    `agents` are what the other connections of the server call themselves. None where this user may
    not see all of them, or some are to other servers.
    """
    life, why = _stock_life(agents) if row["until"] is None else _lease_life(row, agents)
    token = {"element": row["element"], "id": row["id"], "until": row["ends"]}
    return PresentLock(holder(row), life, why, token)


def _stock_life(agents: Sequence[str] | None) -> tuple[Life, str]:
    if agents is None:
        return Life.UNKNOWN, "Not all connections to the database can be seen from here."
    its = [agent for agent in agents if STOCK_AGENT in agent]
    if its:
        return Life.ALIVE, f"{its[0]} is connected."
    able = [agent for agent in agents if not agent.startswith(_OTHER_AGENTS)]
    if able:
        named = ", ".join(sorted(able))
        return Life.UNKNOWN, f"Its program may be one of those that are connected: {named}."
    return Life.DEAD, "No program that could be its own is connected, so its process is gone."


def _lease_life(row: Mapping[str, Any], agents: Sequence[str] | None) -> tuple[Life, str]:
    if row["lapsed"]:
        return Life.DEAD, "It has lapsed."
    owner = str(row["owner"])
    runs = is_running(str(row["id"]).partition("@")[2], process_of(owner))
    if runs is not None:
        does = "runs" if runs else "does not run any more"
        return (Life.ALIVE if runs else Life.DEAD), f"Its process {does} on this machine."
    is_connected = any(agent.endswith(run) for agent in agents or () for run in row["runs"] or ())
    if is_connected:
        return Life.ALIVE, "Its run is connected."
    if agents is not None and row["runs"]:
        return Life.DEAD, "Its run is not connected any more."
    left_s = row["left_ms"] / 1000
    why = f"Whether its run goes on cannot be seen from here. If not, it lapses in {left_s:.0f} s."
    return Life.UNKNOWN, why
