"""Dialogues in Redis: sessions and rounds as JSON, each with a lifetime.

Commit to PostgreSQL first, then save here; on a miss load from PostgreSQL and save. The cache is never the only copy.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from is_db_bootstrap.blueprints.novel_genesis.keys import MONTH_S, build_key

#: Keys that one SCAN asks for, and that one MGET, UNLINK or pipeline names.
BATCH = 100

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(seconds=MONTH_S)
_SESSION_PREFIX = "dialogue:session:"


class DialogueCache:
    """Dialogue sessions and their rounds on a client that it neither opens nor closes.

    `ttl` is 1 second to 30 days, else `ValueError`; `decode_responses` may be on or off. Errors of the client pass
    through unchanged; a wrong id, path, lifetime or value is raised before anything is sent.
    """

    def __init__(self, client: Redis, *, ttl: timedelta = _LONGEST) -> None:
        self._client: Any = client
        self._ttl_ms = _milliseconds(ttl)

    @staticmethod
    def session_key(session_id: UUID | str) -> str:
        """`dialogue:session:{session_id}`; `ValueError` when that is no UUID."""
        return build_key("dialogue_session", session_id=session_id)

    @staticmethod
    def round_key(session_id: UUID | str, round_path: str) -> str:
        """`dialogue:session:{session_id}:round:{round_path}`; `ValueError` for another path than such as `2.1`."""
        return build_key("dialogue_round", session_id=session_id, round_path=round_path)

    async def save_session(self, session_id: UUID | str, value: Mapping[str, Any], *, ttl: timedelta | None = None) -> None:
        """Store or overwrite it, with its lifetime, in one command; `TypeError` for what JSON cannot hold."""
        await self._save(self.session_key(session_id), value, ttl)

    async def load_session(self, session_id: UUID | str) -> dict[str, Any] | None:
        """The mapping; None when there is none, or something that is no JSON object."""
        return _mapping(await self._client.get(self.session_key(session_id)))

    async def save_round(
        self, session_id: UUID | str, round_path: str, value: Mapping[str, Any], *, ttl: timedelta | None = None
    ) -> None:
        """As `save_session`, for one round."""
        await self._save(self.round_key(session_id, round_path), value, ttl)

    async def load_round(self, session_id: UUID | str, round_path: str) -> dict[str, Any] | None:
        """As `load_session`, for one round."""
        return _mapping(await self._client.get(self.round_key(session_id, round_path)))

    async def list_rounds(self, session_id: UUID | str) -> dict[str, dict[str, Any]]:
        """Path to mapping, ordered by path as numbers: 1, 2, 2.1, 10."""
        start = len(self.round_key(session_id, "1")) - 1
        found: dict[str, dict[str, Any]] = {}
        async for keys in self._rounds(session_id):
            values = await self._client.mget(keys)
            found |= {
                key[start:]: value for key, text in zip(keys, values, strict=True) if (value := _mapping(text)) is not None
            }
        return dict(sorted(found.items(), key=lambda item: [int(number) for number in item[0].split(".")]))

    async def list_sessions(self) -> list[UUID]:
        """Ids that have a session key, each once, in no order."""
        ids = []
        async for keys in self._scan(_SESSION_PREFIX + "?" * 36):
            ids += [(key, key[len(_SESSION_PREFIX) :]) for key in keys]
        return [UUID(found) for key, found in ids if _is_key("dialogue_session", key, session_id=found)]

    async def renew(self, session_id: UUID | str) -> int:
        """Give the session and all its rounds the full lifetime again; how many keys there were."""
        renewed = await self._expire([self.session_key(session_id)])
        async for keys in self._rounds(session_id):
            renewed += await self._expire(keys)
        return renewed

    async def delete_round(self, session_id: UUID | str, round_path: str) -> bool:
        """Whether there was one."""
        return bool(await self._client.unlink(self.round_key(session_id, round_path)))

    async def clear_rounds(self, session_id: UUID | str) -> int:
        """Remove all rounds; how many there were."""
        removed = 0
        async for keys in self._rounds(session_id):
            removed += await self._client.unlink(*keys)
        return removed

    async def delete_session(self, session_id: UUID | str) -> int:
        """Remove the session and all its rounds; how many keys there were.

        The session goes first: interrupted, what is left are rounds that no session leads to, and these expire.
        """
        removed: int = await self._client.unlink(self.session_key(session_id))
        return removed + await self.clear_rounds(session_id)

    async def _save(self, key: str, value: Mapping[str, Any], ttl: timedelta | None) -> None:
        lifetime_ms = self._ttl_ms if ttl is None else _milliseconds(ttl)
        await self._client.set(key, _json(value), px=lifetime_ms)

    async def _expire(self, keys: Sequence[str]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.pexpire(key, self._ttl_ms)
        return sum(await pipeline.execute())

    async def _rounds(self, session_id: UUID | str) -> AsyncIterator[list[str]]:
        prefix = self.round_key(session_id, "1")[:-1]
        async for keys in self._scan(prefix + "*"):
            ours = [
                key for key in keys if _is_key("dialogue_round", key, session_id=str(session_id), round_path=key[len(prefix) :])
            ]
            if ours:
                yield ours

    async def _scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """Each key once, in batches of at most `BATCH`; SCAN itself repeats keys while the table grows."""
        seen: set[str] = set()
        batch: list[str] = []
        async for name in self._client.scan_iter(match=pattern, count=BATCH):
            key = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
            if key not in seen:
                seen.add(key)
                batch.append(key)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _milliseconds(ttl: timedelta) -> int:
    if not _SHORTEST <= ttl <= _LONGEST:
        raise ValueError(f"A lifetime of {ttl} is not between 1 second and 30 days.")
    return ttl // timedelta(milliseconds=1)


def _is_key(name: str, key: str, **parts: str) -> bool:
    try:
        return build_key(name, **parts) == key
    except ValueError:
        return False


def _json(value: Mapping[str, Any]) -> bytes:
    if not isinstance(value, Mapping):
        raise TypeError(f"A {type(value).__name__} is no mapping.")
    try:
        return json.dumps(dict(value), default=_plain, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as exc:  # NaN, a circle, half of a surrogate pair
        raise TypeError(f"JSON cannot hold the value: {exc}.") from exc


def _plain(value: object) -> Any:
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}.")


def _mapping(text: str | bytes | None) -> dict[str, Any] | None:
    try:
        value = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
