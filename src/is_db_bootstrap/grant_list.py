"""The privileges that a role needs on a store, as statements for its administrator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from is_db_bootstrap.names import StoreName


class Purpose(StrEnum):
    """What a role is for."""

    #: Everything: `apply`, and what looks.
    APPLY = "apply"
    #: Looking: `verify`, `status` and `wait`, and `plan` where nothing is pending.
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class GrantWish:
    """The role that privileges are asked for.

    With `creates_database`, the role makes the database itself, where a store has such a right.
    """

    role: str
    purposes: frozenset[Purpose]
    creates_database: bool = False

    @property
    def applies(self) -> bool:
        """Whether the role is to change the store."""
        return Purpose.APPLY in self.purposes


@dataclass(frozen=True, slots=True)
class Grant:
    """One statement, and why it is needed.

    `without` says what a run does that lacks the privilege. Empty: it ends with exit 5 before
    anything is changed. `only_in` names an older version of the server, such as `Redis 6`, which
    needs the statement although newer ones do not. Empty: every version needs it. A statement that
    is `not_yet` possible names what must be there first.
    """

    statement: str
    reason: str
    without: str = ""
    only_in: str = ""
    not_yet: str = ""


@dataclass(frozen=True, slots=True)
class RoleGrants:
    """The smallest privileges of one role on one store.

    `client` is the program that takes the statements. A line of it that begins with `comment` is a
    comment. Empty: the program has none, and shows a text with the command `shows`. `first` are
    sentences on what comes before the statements, and `notes` are sentences on what comes beside
    them.
    """

    store: StoreName
    role: str
    purposes: tuple[Purpose, ...]
    client: str
    comment: str
    grants: tuple[Grant, ...]
    first: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shows: str = ""
