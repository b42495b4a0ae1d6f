"""Whose transactions a statement of ours waits for.

`SHOW TRANSACTIONS` says "Blocked by" of a query that waits for a lock. It does not say so of a
schema statement, whose query has ended for the server when its transaction begins to wait for the
lock of a label (seen in 5.26 and 2026.08). Such a transaction is taken to wait when it does nothing
from one look to the next, no index is being built, and another transaction holds locks meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

READ = """
SHOW TRANSACTIONS YIELD transactionId, status, metaData, username, clientAddress, startTime,
    activeLockCount, pageHits, pageFaults, outerTransactionId
RETURN transactionId AS id, status, metaData AS meta, username AS user, clientAddress AS client,
    startTime AS since, coalesce(activeLockCount, 0) AS locks, pageHits AS hits,
    pageFaults AS faults, outerTransactionId AS outer
"""
#: Indexes that are being built. The server works, and whoever waits for it waits for nobody. Those
#: of constraints that are made and not committed stay in this state as well (`$uncommitted`).
BUILDING = """
SHOW INDEXES YIELD name, state WHERE state = 'POPULATING' AND NOT name IN $uncommitted RETURN name
"""
TERMINATE = "TERMINATE TRANSACTIONS $ids"

_BLOCKED = re.compile(r"Blocked by: \[(?P<ids>[^\]]*)\]")
#: So many blockers are told.
_TOLD = 3


@dataclass(frozen=True, slots=True)
class Transaction:
    """One row of `SHOW TRANSACTIONS`."""

    id: str
    status: str
    is_ours: bool
    #: Who began it, and when, as a person reads it. Empty for one of the server itself.
    who: str
    locks: int
    #: Figures that change while it works.
    work: tuple[Any, ...]

    @property
    def blocked_by(self) -> frozenset[str]:
        """The ids of the transactions that the server names as its blockers."""
        found = _BLOCKED.match(self.status)
        return frozenset(re.split(r",\s*", found["ids"])) if found else frozenset()


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment.

    `may_be_schema` says that our statement is a schema statement and that no index is being built.
    """

    transactions: tuple[Transaction, ...]
    may_be_schema: bool

    @property
    def ours(self) -> tuple[Transaction, ...]:
        """The transactions of this store."""
        return tuple(each for each in self.transactions if each.is_ours)

    @property
    def blocked(self) -> tuple[Transaction, ...]:
        """Those of ours of which the server says that others block them."""
        own = {each.id for each in self.ours}
        return tuple(each for each in self.ours if each.blocked_by - own)

    def at_rest(self, before: Look | None) -> tuple[Transaction, ...]:
        """Those of ours that have a schema statement and have done nothing since `before`."""
        if before is None or not (self.may_be_schema and before.may_be_schema):
            return ()
        worked = {each.id: each.work for each in before.ours}
        return tuple(each for each in self.ours if worked.get(each.id) == each.work)

    def holders(self, before: Look | None) -> tuple[Transaction, ...]:
        """The transactions of others that block ours, or seem to. `before` is the look before."""
        if self.blocked:
            named = frozenset().union(*(each.blocked_by for each in self.blocked))
            return tuple(each for each in self.transactions if each.id in named)
        if not self.may_be_schema or not self.ours:
            return ()
        if before is not None and before.ours and not self.at_rest(before):
            return ()
        others = [each for each in self.transactions if each.who and not each.is_ours]
        return tuple(each for each in others if each.locks)

    def stuck(self, before: Look | None) -> list[str]:
        """The ids of our transactions that wait for others, and may be ended for it."""
        waiting = self.blocked or self.at_rest(before)
        return [each.id for each in waiting] if self.holders(before) else []

    def sentence(self, before: Look | None) -> str:
        """Who blocks ours, for a person. Empty when nobody does."""
        holders = self.holders(before)
        if not holders:
            return ""
        named = "; ".join(f"{each.id} ({each.who or 'internal'})" for each in holders[:_TOLD])
        more = f" and {len(holders) - _TOLD} more" if len(holders) > _TOLD else ""
        what = "It is blocked by" if self.blocked else "It seems to be blocked by open"
        return f"{what} transaction {named}{more}."


def read_look(rows: Iterable[Mapping[str, Any]], tag: Mapping[str, str], *, schema: bool) -> Look:
    """The rows of `READ`. Ours are those whose metadata has `tag`, and what they have begun."""
    seen = list(rows)
    own = {row["id"] for row in seen if tag.items() <= dict(row["meta"] or {}).items()}
    transactions = tuple(_transaction(row, own) for row in seen)
    return Look(transactions, may_be_schema=schema)


def _transaction(row: Mapping[str, Any], own: set[str]) -> Transaction:
    is_ours = row["id"] in own or row["outer"] in own
    who = ""
    if row["user"]:
        who = f"user {row['user']}, from {row['client']}, open since {row['since']}"
    work = (row["locks"], row["hits"], row["faults"])
    return Transaction(row["id"], row["status"], is_ours, who, row["locks"], work)
