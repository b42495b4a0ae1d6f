"""The privileges of roles, for the client of a store and as one JSON document."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.render.document import as_json
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from is_db_bootstrap.grant_list import Grant, RoleGrants

#: The width of a comment, its mark not counted.
_WIDTH = 92


def grants_text(listed: Sequence[RoleGrants]) -> tuple[str, str]:
    """What an administrator pastes, and what stands beside it because a client has no comments."""
    pasted: list[str] = []
    beside: list[str] = []
    for each in listed:
        told = beside if not each.comment else pasted
        if told and told[-1]:
            told.append("")
        for line in (_heading(each), *each.first):
            told += _comment(each, line)
        for grant in each.grants:
            if grant.only_in:
                pasted += _of_older(each, grant)
                continue
            told += _comment(each, _why(grant)) if each.comment else []
            pasted.append(visible(grant.statement))
        for note in each.notes:
            told += _comment(each, note)
    return _lines(pasted), _lines(beside)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _heading(each: RoleGrants) -> str:
    purposes = " and ".join(each.purposes)
    return f"{each.store}: role {each.role} for {purposes}. Paste into {each.client}."


def _why(grant: Grant) -> str:
    """Why a statement is there, and what happens without it."""
    parts = [grant.reason]
    if grant.not_yet:
        parts.append(f"run it when there is {grant.not_yet}")
    if grant.without:
        parts.append(f"without it, {grant.without}")
    return f"{'. '.join(part[0].upper() + part[1:] for part in parts)}."


def _comment(each: RoleGrants, text: str) -> Iterator[str]:
    """The lines of a comment. Words are not broken, so that a statement in it can be copied."""
    for line in textwrap.wrap(
        visible(text), _WIDTH, break_long_words=False, break_on_hyphens=False
    ):
        yield f"{each.comment} {line}".strip()


def _of_older(each: RoleGrants, grant: Grant) -> Iterator[str]:
    """A statement for an older server, which is shown where it belongs, and not run.

    A client without comments shows each line with a command, so that what is pasted has it too.
    """
    told = [f"Only {grant.only_in} needs, {grant.reason}:", grant.statement]
    for line in map(visible, told):
        if each.comment:
            yield f"{each.comment} {line}"
        elif each.shows:
            escaped = line.replace("\\", "\\\\").replace('"', '\\"')
            yield f'{each.shows} "{escaped}"'


def grants_document(blueprint: str, blueprint_source: str, listed: Sequence[RoleGrants]) -> str:
    """The same as one JSON document."""
    head = {"blueprint": blueprint, "blueprint_source": blueprint_source}
    return as_json({**head, "roles": [_role_document(each) for each in listed]})


def _role_document(each: RoleGrants) -> dict[str, Any]:
    return {
        "store": each.store,
        "role": each.role,
        "for": list(each.purposes),
        "client": each.client,
        "statements": [
            {
                "statement": grant.statement,
                "reason": grant.reason,
                "without": grant.without or None,
                "only_in": grant.only_in or None,
                "not_yet": grant.not_yet or None,
            }
            for grant in each.grants
        ],
        "notes": [*each.first, *each.notes],
    }
