"""Dialogues in Redis: sessions and rounds as JSON, each with a lifetime.

Commit to PostgreSQL first, and save here afterwards. When a key is missing, load the dialogue from
PostgreSQL and save it here. The cache is never the only copy.
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

#: How many keys one SCAN asks for, and how many one MGET, UNLINK or pipeline names.
BATCH = 100

_SHORTEST = timedelta(seconds=1)
_LONGEST = timedelta(seconds=MONTH_S)
_SESSION_PREFIX = "dialogue:session:"


class DialogueCache:
    """Dialogue sessions and their rounds, on a client that the caller opens and closes.

    `ttl` is 1 second to 30 days, otherwise `ValueError` is raised. The client may decode responses
    or not. Errors of the client reach the caller unchanged. A wrong id, path, lifetime or value
    raises `ValueError` or `TypeError` before anything is sent.
    """

    def __init__(self, client: Redis, *, ttl: timedelta = _LONGEST) -> None:
        self._client: Any = client
        self._ttl_ms = _lifetime_ms(ttl)

    @staticmethod
    def session_key(session_id: UUID | str) -> str:
        """The key `dialogue:session:{session_id}`.

        Raises `ValueError` when the id is not a UUID.
        """
        return build_key("dialogue_session", session_id=session_id)

    @staticmethod
    def round_key(session_id: UUID | str, round_path: str) -> str:
        """The key `dialogue:session:{session_id}:round:{round_path}`.

        Raises `ValueError` for a path that does not look like `2.1`.
        """
        return build_key("dialogue_round", session_id=session_id, round_path=round_path)

    async def save_session(
        self,
        session_id: UUID | str,
        value: Mapping[str, Any],
        *,
        ttl: timedelta | None = None,
    ) -> None:
        """Store or overwrite a session.

        The value and its lifetime are written in one command. Raises `TypeError` for a value that
        JSON cannot hold.
        """
        await self._set_json(self.session_key(session_id), value, ttl)

    async def load_session(self, session_id: UUID | str) -> dict[str, Any] | None:
        """The stored mapping, or None when the key is missing or holds no JSON object."""
        return _parse_mapping(await self._client.get(self.session_key(session_id)))

    async def save_round(
        self,
        session_id: UUID | str,
        round_path: str,
        value: Mapping[str, Any],
        *,
        ttl: timedelta | None = None,
    ) -> None:
        """Store or overwrite a round, as `save_session` does for a session."""
        await self._set_json(self.round_key(session_id, round_path), value, ttl)

    async def load_round(self, session_id: UUID | str, round_path: str) -> dict[str, Any] | None:
        """The stored mapping, or None when the key is missing or holds no JSON object."""
        return _parse_mapping(await self._client.get(self.round_key(session_id, round_path)))

    async def list_rounds(self, session_id: UUID | str) -> dict[str, dict[str, Any]]:
        """Each path and its mapping, ordered by the numbers of the path: 1, 2, 2.1, 10."""
        prefix = self._round_prefix(session_id)
        rounds: dict[str, dict[str, Any]] = {}
        async for keys in self._round_keys(session_id):
            texts = await self._client.mget(keys)
            for key, text in zip(keys, texts, strict=True):
                value = _parse_mapping(text)
                if value is not None:
                    rounds[key.removeprefix(prefix)] = value
        return {path: rounds[path] for path in sorted(rounds, key=_path_numbers)}

    async def list_sessions(self) -> list[UUID]:
        """The ids that have a session key, each once, in no order."""
        found = []
        async for keys in self._scan_keys(_SESSION_PREFIX + "?" * 36):
            for key in keys:
                session_id = key.removeprefix(_SESSION_PREFIX)
                if _is_key("dialogue_session", key, session_id=session_id):
                    found.append(UUID(session_id))
        return found

    async def renew(self, session_id: UUID | str) -> int:
        """Give a session and all its rounds the full lifetime again.

        Returns how many keys there were.
        """
        renewed = await self._renew_keys([self.session_key(session_id)])
        async for keys in self._round_keys(session_id):
            renewed += await self._renew_keys(keys)
        return renewed

    async def delete_round(self, session_id: UUID | str, round_path: str) -> bool:
        """Remove a round, and return whether the round existed."""
        return bool(await self._client.unlink(self.round_key(session_id, round_path)))

    async def clear_rounds(self, session_id: UUID | str) -> int:
        """Remove all rounds of a session, and return how many there were."""
        removed = 0
        async for keys in self._round_keys(session_id):
            removed += await self._client.unlink(*keys)
        return removed

    async def delete_session(self, session_id: UUID | str) -> int:
        """Remove a session and all its rounds, and return how many keys there were.

        The session is removed first. An interrupted call leaves rounds without a session, which
        expire by themselves.
        """
        removed: int = await self._client.unlink(self.session_key(session_id))
        return removed + await self.clear_rounds(session_id)

    async def _set_json(self, key: str, value: Mapping[str, Any], ttl: timedelta | None) -> None:
        lifetime_ms = self._ttl_ms if ttl is None else _lifetime_ms(ttl)
        await self._client.set(key, _encode_json(value), px=lifetime_ms)

    async def _renew_keys(self, keys: Sequence[str]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.pexpire(key, self._ttl_ms)
        return sum(await pipeline.execute())

    def _round_prefix(self, session_id: UUID | str) -> str:
        """The beginning that the keys of all rounds share."""
        return self.round_key(session_id, "1").removesuffix("1")

    async def _round_keys(self, session_id: UUID | str) -> AsyncIterator[list[str]]:
        """The keys of a session's rounds, in batches."""
        prefix = self._round_prefix(session_id)

        def is_round(key: str) -> bool:
            path = key.removeprefix(prefix)
            return _is_key("dialogue_round", key, session_id=str(session_id), round_path=path)

        async for keys in self._scan_keys(prefix + "*"):
            rounds = [key for key in keys if is_round(key)]
            if rounds:
                yield rounds

    async def _scan_keys(self, pattern: str) -> AsyncIterator[list[str]]:
        """Each key once, in batches of at most `BATCH`. SCAN repeats keys while the table grows."""
        seen: set[str] = set()
        batch: list[str] = []
        async for name in self._client.scan_iter(match=pattern, count=BATCH):
            key = _decode_name(name)
            if key not in seen:
                seen.add(key)
                batch.append(key)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _decode_name(name: str | bytes) -> str:
    """The name of a key, also when the client does not decode responses."""
    if isinstance(name, bytes):
        return name.decode("utf-8", "backslashreplace")
    return name


def _path_numbers(path: str) -> list[int]:
    return [int(number) for number in path.split(".")]


def _lifetime_ms(ttl: timedelta) -> int:
    if not _SHORTEST <= ttl <= _LONGEST:
        raise ValueError(f"A lifetime of {ttl} is not between 1 second and 30 days.")
    return ttl // timedelta(milliseconds=1)


def _is_key(pattern: str, key: str, **parts: str) -> bool:
    """Whether `key` is the key of the pattern with these parts."""
    try:
        return build_key(pattern, **parts) == key
    except ValueError:
        return False


def _encode_json(value: Mapping[str, Any]) -> bytes:
    if not isinstance(value, Mapping):
        raise TypeError(f"A {type(value).__name__} is not a mapping.")
    try:
        text = json.dumps(dict(value), default=_json_value, ensure_ascii=False, allow_nan=False)
        return text.encode()
    except ValueError as exc:
        # NaN, a value that holds itself, or half of a surrogate pair.
        raise TypeError(f"JSON cannot hold the value: {exc}.") from exc


def _json_value(value: object) -> Any:
    """Text for a value that JSON has no type for. Raises `TypeError` for any other value."""
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}.")


def _parse_mapping(text: str | bytes | None) -> dict[str, Any] | None:
    """The JSON object in `text`, or None when `text` is missing or is anything else."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
