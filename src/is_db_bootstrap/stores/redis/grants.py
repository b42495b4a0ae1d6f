"""The rights that a user of a Redis needs, as `ACL SETUSER` lines.

Each line only adds. The names of the keys are written out, so that a user of one blueprint cannot
touch what another one records. `rights` finds out what a user may do, and `errors` names what all
commands of this tool may use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.grant_list import Grant, GrantWish, RoleGrants
from is_db_bootstrap.stores.redis.errors import TRANSACTION_RIGHTS
from is_db_bootstrap.stores.redis.kind import KIND
from is_db_bootstrap.stores.redis.probe import PREFIX

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, KeyPattern

#: The oldest version that has rights to read keys and not to write them.
_NO_READ_RIGHTS = "Redis 6"
_NOT_LOOKED = (
    "the keys are not looked at: a note after apply, exit 3 in verify --strict (and redis audit)"
)
#: The keys that this tool keeps for a blueprint, and what each is for.
_OWN_KEYS = {
    "lock": "for the lock of the blueprint",
    "conventions": "for the record of its conventions",
    "memory": "for the memory of the stores",
}
#: Characters that a glob of Redis takes for more than themselves (`util.c`, stringmatchlen).
_SPECIAL = re.compile(r"([*?\[\]\\])")

#: Characters that end a word of `redis-cli`, or begin a quoted one (`sds.c`, sdssplitargs).
_NEEDS_QUOTES = re.compile(r"[\s\"']")


def role_grants(blueprint: Blueprint, wish: GrantWish, *, has_database: bool) -> RoleGrants:
    """The rights of one user. `has_database` says that the address names another database than 0.

    Nobody can log in before an administrator has given the user a password.
    """
    user = wish.role
    grants = [
        _grant(user, "on +ping +info", "to log in, and to see that the server is usable"),
        *([_grant(user, "+select", "to use another database than 0")] if has_database else []),
        _grant(user, "+get", "to read what this tool records"),
        *(_writing(blueprint, user) if wish.applies else _reading(blueprint, user)),
        _grant(user, "+scan +type +pttl", "to see whether keys are as declared", _NOT_LOOKED),
        *_looked_at(blueprint.keys, user),
    ]
    return RoleGrants(
        KIND.name,
        user,
        tuple(sorted(wish.purposes)),
        client="redis-cli",
        comment="",
        grants=tuple(grants),
        notes=tuple(_notes(user)),
        shows="ECHO",
    )


def _notes(user: str) -> Iterator[str]:
    yield f'Give the user a password: ACL SETUSER {user} ">PASSWORD" with a password of yours.'
    yield "ACL SAVE, or CONFIG REWRITE where there is no ACL file, keeps the user over a restart."
    yield (
        "In a cluster, run the lines on every node, replicas too: a failover brings no users along."
        f" The user needs ACL SETUSER {user} +cluster +command besides."
    )
    yield (
        "With Sentinels, run the lines on every server. A Sentinel has users of its own, and asks "
        "for +sentinel|get-master-addr-by-name and +sentinel|masters."
    )


def statement(user: str, rules: str) -> str:
    """What an administrator runs, so that a user has these rules besides."""
    return f"ACL SETUSER {user} {rules}"


def _grant(user: str, rules: str, reason: str, without: str = "") -> Grant:
    return Grant(statement(user, rules), reason, without)


def _own(blueprint: str) -> Iterator[tuple[str, str]]:
    """The glob of each key of ours, and what the key is for."""
    for kind, reason in _OWN_KEYS.items():
        yield _literal(f"{PREFIX}:{kind}:{blueprint}"), reason


def _writing(blueprint: Blueprint, user: str) -> Iterator[Grant]:
    for each, reason in _own(blueprint.name):
        yield _grant(user, _rules("~", [each]), reason)
    yield _grant(user, f"~{PREFIX}:probe:*", "for a key that proves that writing works")
    yield _grant(user, "+set +del +exists +pexpire", "to write, renew and release them")
    yield _grant(user, TRANSACTION_RIGHTS, "to write only what nobody has changed meanwhile")


def _reading(blueprint: Blueprint, user: str) -> Iterator[Grant]:
    for each, reason in _own(blueprint.name):
        yield _grant(user, _rules("%R~", [each]), reason)
    for each, reason in _own(blueprint.name):
        yield Grant(statement(user, _rules("~", [each])), reason, only_in=_NO_READ_RIGHTS)


def _looked_at(keys: Sequence[KeyPattern], user: str) -> Iterator[Grant]:
    """The right to read the declared keys."""
    globs = sorted({glob(key.pattern) for key in keys})
    if not globs:
        return
    reason = "to read the types and lifetimes of declared keys"
    yield _grant(user, _rules("%R~", globs), reason, _NOT_LOOKED)
    older = statement(user, _rules("~", globs))
    yield Grant(older, reason, _NOT_LOOKED, only_in=_NO_READ_RIGHTS)


def _rules(mark: str, globs: Iterable[str]) -> str:
    """Rules for keys, as `redis-cli` reads them: one with a space or a quote stands in quotes."""
    rules = [f"{mark}{each}" for each in globs]
    return " ".join(_quoted(rule) if _NEEDS_QUOTES.search(rule) else rule for rule in rules)


def _quoted(rule: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", rule)
    return f'"{escaped}"'


def glob(pattern: str) -> str:
    """The glob that every key of a declared pattern fits."""
    literals = re.split(r"\{\w+\}", pattern)
    return "*".join(_literal(each) for each in literals)


def _literal(text: str) -> str:
    """The glob that fits this text only."""
    return _SPECIAL.sub(r"\\\1", text)
