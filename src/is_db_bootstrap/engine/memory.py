"""What the stores of a blueprint remember of each other.

A store that was converged keeps a small record: who brought it there, when, and which stores
belonged to that run, each with the identity that it had. So a store that is blank today, and that
another one remembers, is known to have been lost. Nobody could tell it from a first run otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from is_db_bootstrap.names import StoreName

#: The format of the records that this version writes. A higher one was written by a newer version.
FORMAT = 1
#: Stands in an identity, between slashes, for what could not be seen of it.
UNSEEN = "?"


@dataclass(frozen=True, slots=True)
class Member:
    """A store of a converged run, as it is remembered."""

    #: What tells this store from another one at the same address. Never empty. Its parts are
    #: divided by slashes. A part that could not be seen is `UNSEEN`.
    identity: str
    #: What the blueprint uses on the server, without the server: its database, and its schema.
    place: str
    #: The address without secrets. It is for people: two addresses may lead to one server.
    address: str
    #: Declared objects that hold data and that a change would make anew, empty.
    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """The record of one converged deployment of a blueprint. Each of its stores keeps a copy."""

    #: Tells the deployments apart that share a store. It stays the same when the record is renewed.
    key: str
    blueprint: str
    #: The digest of what the blueprint declares, as `blueprint.fingerprint` makes it.
    fingerprint: str
    run_id: str
    #: The version of this package.
    version: str
    #: When the record was written, in UTC.
    recorded_at: datetime
    members: Mapping[StoreName, Member] = field(default_factory=dict)


def is_same_identity(one: str, other: str) -> bool:
    """Whether two identities may be of one store. A part that was not seen differs from none."""
    parts, others = one.split("/"), other.split("/")
    if len(parts) != len(others):
        return False
    pairs = zip(parts, others, strict=True)
    return all(a == b or UNSEEN in {a, b} for a, b in pairs)


def fuller_identity(now: str, before: str) -> str:
    """What was seen `now`, with what was seen `before` of the same store in the place of the rest.

    An identity of another store adds nothing.
    """
    if not is_same_identity(now, before):
        return now
    pairs = zip(now.split("/"), before.split("/"), strict=True)
    return "/".join(b if a == UNSEEN else a for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Recall:
    """What one store says of itself, and what it remembers."""

    place: str
    #: Empty for a store that has no identity but the one that we write into it.
    identity: str = ""
    #: Whether nothing is there of what the blueprint declares, nor any record of it.
    is_blank: bool = False
    #: Declared objects that hold data and are there now.
    holds: tuple[str, ...] = ()
    #: Declared objects that hold data and are not there, although the last plan makes them.
    missing: tuple[str, ...] = ()
    #: The records of this blueprint, of all deployments that share this store.
    memories: tuple[Memory, ...] = ()
    #: The keys of those of them that a part of this store lacks, or has in an older text. The part
    #: that has the record may be lost, so these are written anew.
    incomplete: frozenset[str] = frozenset()
    #: Why nothing can be recorded here, as a sentence with the remedy. Empty when it can be.
    unable: str = ""
    #: Whether records may be here that could not be seen. `unable` says why.
    is_unread: bool = False
    #: Why no further record is taken, as a sentence. One that is here can be renewed.
    full: str = ""
    #: The keys of records of a newer version. No record of ours takes such a key.
    newer_keys: frozenset[str] = frozenset()
    #: What a person should know of the records, such as one of a newer version.
    remarks: tuple[str, ...] = ()
