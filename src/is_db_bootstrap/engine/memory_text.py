"""A record of converged stores as text: one JSON object, the same in every store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args

from is_db_bootstrap.engine.memory import FORMAT, Member, Memory
from is_db_bootstrap.names import StoreName

_STORES = get_args(StoreName)


class BrokenMemory(ValueError):
    """A text that is not a record. The message says what is wrong, and starts in lower case."""


class NewerMemory(Exception):
    """A record of a newer format. Nobody but the version that wrote it may believe or replace it.

    `key` is the record's key, or empty. `version` is the version of this package that wrote it.
    """

    def __init__(self, key: str, version: str) -> None:
        super().__init__(f"the record was written by version {version or '?'}")
        self.key = key
        self.version = version


def to_text(memory: Memory) -> str:
    """The record as one line of JSON, in which equal records are equal texts."""
    document = {
        "format": FORMAT,
        "key": memory.key,
        "blueprint": memory.blueprint,
        "fingerprint": memory.fingerprint,
        "run_id": memory.run_id,
        "version": memory.version,
        "recorded_at": memory.recorded_at.astimezone(UTC).isoformat(timespec="seconds"),
        "members": {store: _member_document(each) for store, each in memory.members.items()},
    }
    return json.dumps(document, sort_keys=True)


def from_text(text: str | bytes) -> Memory:
    """The record in a text that `to_text` wrote, in this version or in an earlier one.

    What a later version added without a new format is passed over. Raises `BrokenMemory`, and
    `NewerMemory` for a record of a newer format.
    """
    try:
        document = json.loads(text)
    except ValueError:
        raise BrokenMemory("it is not JSON") from None
    if not isinstance(document, dict):
        raise BrokenMemory("it is not a JSON object")
    found = document.get("format")
    if type(found) is not int or found < 1:
        raise BrokenMemory("its format is not a number")
    if found > FORMAT:
        raise NewerMemory(_text_or_empty(document, "key"), _text_or_empty(document, "version"))
    return Memory(
        key=_text_of(document, "key"),
        blueprint=_text_of(document, "blueprint"),
        fingerprint=_text_of(document, "fingerprint"),
        run_id=_text_of(document, "run_id"),
        version=_text_of(document, "version"),
        recorded_at=_time_of(document),
        members=_members_of(document),
    )


def _member_document(member: Member) -> dict[str, Any]:
    return {
        "identity": member.identity,
        "place": member.place,
        "address": member.address,
        "holds": list(member.holds),
    }


def _members_of(document: Mapping[str, Any]) -> dict[StoreName, Member]:
    """The members. A store that this version does not know is passed over."""
    members = document.get("members")
    if not isinstance(members, dict):
        raise BrokenMemory("its members are not a JSON object")
    return {
        cast("StoreName", store): _member_of(each)
        for store, each in members.items()
        if store in _STORES
    }


def _member_of(document: Any) -> Member:
    if not isinstance(document, dict):
        raise BrokenMemory("one of its members is not a JSON object")
    holds = document.get("holds", [])
    if not isinstance(holds, list) or not all(isinstance(each, str) for each in holds):
        raise BrokenMemory("what one of its members holds is not a list of names")
    return Member(
        identity=_text_of(document, "identity"),
        place=_text_of(document, "place"),
        address=_text_of(document, "address"),
        holds=tuple(holds),
    )


def _text_of(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or (name in {"key", "identity", "blueprint"} and not value):
        raise BrokenMemory(f"its {name} is missing")
    return value


def _text_or_empty(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _time_of(document: Mapping[str, Any]) -> datetime:
    try:
        found = datetime.fromisoformat(_text_of(document, "recorded_at"))
    except ValueError:
        raise BrokenMemory("its recorded_at is not a time") from None
    if found.tzinfo is None:
        raise BrokenMemory("its recorded_at has no time zone")
    return found.astimezone(UTC)
