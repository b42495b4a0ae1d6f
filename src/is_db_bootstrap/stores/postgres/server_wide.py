"""Statements that act on the whole server, so that no scratch database keeps them from others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from is_db_bootstrap.errors import ConfigurationError

#: Statements whose effect is on the whole server, so no scratch database keeps it away from others.
_SERVER_WIDE = re.compile(
    r"""
    \b(create|alter|drop)\s+(role|user|group|database|tablespace|subscription)\b
    | \balter\s+system\b
    | \b(reassign|drop)\s+owned\b
    | \b(grant|revoke)\s+(?:(?!\bon\b)[^;'"])+?\s(to|from)\s
    """,
    re.IGNORECASE | re.VERBOSE,
)
#: Functions whose effect is on the whole server, or on another one.
_CALLS_SERVER_WIDE = re.compile(
    r"\bpg_\w*(replication_slot|terminate_backend|cancel_backend|reload_conf)|\bdblink",
    re.IGNORECASE,
)
#: A text that has statements inside, such as a `DO` block.
_HAS_BODY = re.compile(
    r"^\s*(DO|CREATE(\s+OR\s+REPLACE)?\s+(FUNCTION|PROCEDURE))\b|\$\w*\$", re.IGNORECASE
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
#: Whether a revision may send such a statement: the server is one that nobody else uses.
_SERVER_WIDE_ALLOWED: ContextVar[bool] = ContextVar("server_wide_allowed", default=False)


@contextmanager
def server_wide_allowed(*, allowed: bool = True) -> Iterator[None]:
    """While inside, a revision may send what acts on the whole server, if that is `allowed`."""
    token = _SERVER_WIDE_ALLOWED.set(allowed)
    try:
        yield
    finally:
        _SERVER_WIDE_ALLOWED.reset(token)


def refuse_server_wide(text: str, step: str) -> None:
    """Raise `ConfigurationError` for a statement of `step` that acts on the whole server."""
    found = "" if _SERVER_WIDE_ALLOWED.get() else server_wide(text)
    if found:
        raise ConfigurationError(
            f"The {step.replace(' ', ' of revision ')} sends {found!r}, which acts on the "
            "whole server and not on one database, so it is not run in a scratch database.",
            hint="Let an administrator run it by other means than a revision. On a server that "
            "nobody else uses: revision --allow-server-wide.",
        )


def server_wide(text: str) -> str:
    """The words of a statement that acts on the whole server; empty when there is none in `text`.

    Such words count where a statement begins, and anywhere in the text of a block or a function.
    """
    for statement, is_block in statements_in(text):
        begins = _SERVER_WIDE.search if is_block else _SERVER_WIDE.match
        if found := begins(statement) or _CALLS_SERVER_WIDE.search(statement):
            return " ".join(found[0].split())
    return ""


def statements_in(text: str) -> list[tuple[str, bool]]:
    """The statements of a text without comments, and whether each may have others inside.

    A text with a block or a function is taken as one.
    """
    sql = _COMMENT.sub(" ", text)
    if _HAS_BODY.search(sql):
        return [(sql, True)]
    return [(statement.lstrip(), False) for statement in sql.split(";")]
