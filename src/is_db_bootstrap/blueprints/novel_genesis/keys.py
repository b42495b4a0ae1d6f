"""The Redis keys of novel_genesis as read-only data, and the one way to build them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from is_db_bootstrap.blueprint import Channel, KeyPattern

HOUR_S, DAY_S = 3600, 86_400
MONTH_S = 30 * DAY_S


class Bucket(NamedTuple):
    """At most `requests` within a sliding window of `window_s` seconds."""

    requests: int
    window_s: int


BUCKETS: Mapping[str, Bucket] = MappingProxyType({
    "login": Bucket(5, 60),
    "register": Bucket(10, 300),
    "forgot_password": Bucket(3, 3600),
    "reset_password": Bucket(5, 3600),
    "resend_verification": Bucket(3, 300),
    "auth": Bucket(60, 60),
    "general": Bucket(100, 60),
})  # fmt: skip
_WINDOWS_S = [bucket.window_s for bucket in BUCKETS.values()]
#: Shortest and longest lifetime of a rate limit, seconds: a window and one more.
RATE_LIMIT_TTL_S = (min(_WINDOWS_S) + 1, max(_WINDOWS_S) + 1)

#: Placeholder to what a key may hold in its place.
PLACEHOLDERS: Mapping[str, str] = MappingProxyType({
    "session_id": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "round_path": r"(?=[0-9.]{1,64}(?![0-9.]))[1-9][0-9]*(?:[.][1-9][0-9]*)*",
    "login_session_id": "[0-9]{1,19}",
    "user_id": "[A-Za-z0-9-]{1,64}",
    "jti": "[A-Za-z0-9_-]{1,64}",
    "refresh_hash": "[0-9a-f]{64}",
    "bucket": "|".join(BUCKETS),
    "ip": r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f]{4}(?:-[0-9a-f]{4}){7}",
})  # fmt: skip


def _names(pattern: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\{(\w+)\}", pattern))


def _key(name: str, pattern: str, type: str, ttl: int | tuple[int, int], owner: str, purpose: str) -> KeyPattern:  # noqa: A002, PLR0917 - a row of the table
    placeholders = MappingProxyType({part: PLACEHOLDERS[part] for part in _names(pattern)})
    return KeyPattern(name, pattern, type, ttl, owner, purpose, placeholders)  # type: ignore[arg-type] # one of the literals below


_DIALOGUE, _LOGIN, _STREAMS = "dialogue cache", "authentication", "event stream gateway"

KEYS: tuple[KeyPattern, ...] = (
    _key("dialogue_session", "dialogue:session:{session_id}", "string", MONTH_S, _DIALOGUE, "a dialogue session (JSON)"),
    _key("dialogue_round", "dialogue:session:{session_id}:round:{round_path}", "string", MONTH_S, _DIALOGUE,
         "one round of a dialogue session (JSON)"),
    _key("login_session", "session:id:{login_session_id}", "string", HOUR_S, _LOGIN, "login session (JSON)"),
    _key("login_session_by_jti", "session:jti:{jti}", "string", HOUR_S, _LOGIN, "token id to login session id"),
    _key("login_session_by_refresh", "session:refresh:{refresh_hash}", "string", HOUR_S, _LOGIN,
         "SHA-256 of the refresh token to login session id; the token itself is never part of a key"),
    _key("token_blacklist", "blacklist:{jti}", "string", (1, MONTH_S), _LOGIN, "revoked token, for the rest of its life"),
    _key("rate_limit_user", "rate_limit:user:{user_id}:{bucket}", "zset", RATE_LIMIT_TTL_S, "API gateway",
         "sliding window per user: window + 1"),
    _key("rate_limit_ip", "rate_limit:ip:{ip}:{bucket}", "zset", RATE_LIMIT_TTL_S, "API gateway",
         "sliding window per address: window + 1"),
    _key("sse_user_connections", "user:{user_id}:sse_conns", "string", 300, _STREAMS,
         "open streams of a user, at most 2; renewed by each heartbeat"),
    _key("sse_total_connections", "global:sse_connections_count", "string", HOUR_S, _STREAMS,
         "all open streams; renewed by each change, rebuilt by scanning the per-user counters"),
    _key("user_events", "events:user:{user_id}", "stream", DAY_S, _STREAMS,
         "history for reconnecting clients; trimmed to about 1000 entries (MAXLEN ~ 1000), renewed by each append"),
    _key("session_lock", "lock:session:{session_id}", "string", 300, "dialogue service",
         "one writer per dialogue: SET NX PX, released only by the holder's token"),
)  # fmt: skip

CHANNELS: tuple[Channel, ...] = (
    Channel(
        "user_events_channel",
        "sse:user:{user_id}",
        'carries {"stream_key": …, "stream_id": …} for a new entry in events:user:{user_id}; publish/subscribe, no key',
    ),
)

_BY_NAME: Mapping[str, KeyPattern] = MappingProxyType({key.name: key for key in KEYS})


def _uuid(value: object) -> str:
    # Any spelling that UUID() takes is too much: it drops braces, `urn:` and every hyphen.
    return str(value).lower()


def _ip(value: object) -> str:
    # From text, since ip_address() takes an integer for an address. A scope id (fe80::1%eth0) then matches nothing.
    return ipaddress.ip_address(str(value)).exploded.replace(":", "-")


_WRITTEN: Mapping[str, Callable[[object], str]] = MappingProxyType({"session_id": _uuid, "ip": _ip})


def build_key(name: str, **parts: object) -> str:
    """The key of the pattern `name`; UUIDs are written in lower case, addresses exploded with `-` for `:`.

    Raises `ValueError` for an unknown name and for a missing, surplus or unacceptable part.
    """
    key = _BY_NAME.get(name)
    if key is None:
        raise ValueError(f"{name!r} is no key pattern; there are {', '.join(_BY_NAME)}.")
    wanted = _names(key.pattern)
    if missing := [part for part in wanted if part not in parts]:
        raise ValueError(f"{name} lacks {', '.join(missing)}.")
    if surplus := sorted(parts.keys() - set(wanted)):
        raise ValueError(f"{name} has no {', '.join(surplus)}; it has {', '.join(wanted) or 'no parts'}.")
    return key.pattern.format(**{part: _part(part, parts[part]) for part in wanted})


def _part(part: str, value: object) -> str:
    # A bool or a float would be written as text that may even match.
    if isinstance(value, bool) or not isinstance(value, str | int | UUID | ipaddress.IPv4Address | ipaddress.IPv6Address):
        raise ValueError(f"{part} is a {type(value).__name__}, not text.")  # noqa: TRY004 - one error for every bad part
    text = _WRITTEN.get(part, str)(value)
    if re.fullmatch(PLACEHOLDERS[part], text) is None:
        raise ValueError(f"{part} {str(value)!r} is not acceptable; it must match {PLACEHOLDERS[part]}.")
    return text
