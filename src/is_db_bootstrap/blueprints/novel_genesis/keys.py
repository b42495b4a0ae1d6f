"""The Redis keys of novel_genesis as read-only data, and the one way to build them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple
from uuid import UUID

from is_db_bootstrap.blueprint import Channel, KeyPattern

#: Lifetimes in seconds.
HOUR_S = 3600
DAY_S = 86_400
MONTH_S = 30 * DAY_S


class Bucket(NamedTuple):
    """At most `requests` within a sliding window of `window_s` seconds."""

    requests: int
    window_s: int


BUCKETS: Mapping[str, Bucket] = MappingProxyType(
    {
        "login": Bucket(5, 60),
        "register": Bucket(10, 300),
        "forgot_password": Bucket(3, 3600),
        "reset_password": Bucket(5, 3600),
        "resend_verification": Bucket(3, 300),
        "auth": Bucket(60, 60),
        "general": Bucket(100, 60),
    }
)
_WINDOWS_S = [bucket.window_s for bucket in BUCKETS.values()]
#: Shortest and longest lifetime of a rate limit in seconds: a window and one more second.
RATE_LIMIT_TTL_S = (min(_WINDOWS_S) + 1, max(_WINDOWS_S) + 1)

#: Each placeholder and the regular expression for the text in its place.
PLACEHOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "session_id": "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "round_path": r"(?=[0-9.]{1,64}(?![0-9.]))[1-9][0-9]*(?:[.][1-9][0-9]*)*",
        "login_session_id": "[0-9]{1,19}",
        "user_id": "[A-Za-z0-9-]{1,64}",
        "jti": "[A-Za-z0-9_-]{1,64}",
        "refresh_hash": "[0-9a-f]{64}",
        "bucket": "|".join(BUCKETS),
        "ip": r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-f]{4}(?:-[0-9a-f]{4}){7}",
    }
)

_Type = Literal["string", "list", "set", "zset", "hash", "stream"]


def _placeholder_names(pattern: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\{(\w+)\}", pattern))


def _key_pattern(
    name: str,
    pattern: str,
    type_: _Type,
    *,
    ttl_s: int | tuple[int, int],
    owner: str,
    purpose: str,
) -> KeyPattern:
    names = _placeholder_names(pattern)
    placeholders = MappingProxyType({name: PLACEHOLDERS[name] for name in names})
    return KeyPattern(name, pattern, type_, ttl_s, owner, purpose, placeholders)


_DIALOGUES = "dialogue cache"
_LOGINS = "authentication"
_STREAMS = "event stream gateway"

KEYS: tuple[KeyPattern, ...] = (
    _key_pattern(
        "dialogue_session",
        "dialogue:session:{session_id}",
        "string",
        ttl_s=MONTH_S,
        owner=_DIALOGUES,
        purpose="a dialogue session (JSON)",
    ),
    _key_pattern(
        "dialogue_round",
        "dialogue:session:{session_id}:round:{round_path}",
        "string",
        ttl_s=MONTH_S,
        owner=_DIALOGUES,
        purpose="one round of a dialogue session (JSON)",
    ),
    _key_pattern(
        "login_session",
        "session:id:{login_session_id}",
        "string",
        ttl_s=HOUR_S,
        owner=_LOGINS,
        purpose="login session (JSON)",
    ),
    _key_pattern(
        "login_session_by_jti",
        "session:jti:{jti}",
        "string",
        ttl_s=HOUR_S,
        owner=_LOGINS,
        purpose="token id to login session id",
    ),
    _key_pattern(
        "login_session_by_refresh",
        "session:refresh:{refresh_hash}",
        "string",
        ttl_s=HOUR_S,
        owner=_LOGINS,
        purpose=(
            "SHA-256 of the refresh token to login session id; "
            "the token itself is never part of a key"
        ),
    ),
    _key_pattern(
        "token_blacklist",
        "blacklist:{jti}",
        "string",
        ttl_s=(1, MONTH_S),
        owner=_LOGINS,
        purpose="revoked token, for the rest of its life",
    ),
    _key_pattern(
        "rate_limit_user",
        "rate_limit:user:{user_id}:{bucket}",
        "zset",
        ttl_s=RATE_LIMIT_TTL_S,
        owner="API gateway",
        purpose="sliding window per user: window + 1",
    ),
    _key_pattern(
        "rate_limit_ip",
        "rate_limit:ip:{ip}:{bucket}",
        "zset",
        ttl_s=RATE_LIMIT_TTL_S,
        owner="API gateway",
        purpose="sliding window per address: window + 1",
    ),
    _key_pattern(
        "sse_user_connections",
        "user:{user_id}:sse_conns",
        "string",
        ttl_s=300,
        owner=_STREAMS,
        purpose="open streams of a user, at most 2; renewed by each heartbeat",
    ),
    _key_pattern(
        "sse_total_connections",
        "global:sse_connections_count",
        "string",
        ttl_s=HOUR_S,
        owner=_STREAMS,
        purpose=(
            "all open streams; renewed by each change, rebuilt by scanning the per-user counters"
        ),
    ),
    _key_pattern(
        "user_events",
        "events:user:{user_id}",
        "stream",
        ttl_s=DAY_S,
        owner=_STREAMS,
        purpose=(
            "history for reconnecting clients; trimmed to about 1000 "
            "entries (MAXLEN ~ 1000), renewed by each append"
        ),
    ),
    _key_pattern(
        "session_lock",
        "lock:session:{session_id}",
        "string",
        ttl_s=300,
        owner="dialogue service",
        purpose="one writer per dialogue: SET NX PX, released only by the holder's token",
    ),
)

CHANNELS: tuple[Channel, ...] = (
    Channel(
        "user_events_channel",
        "sse:user:{user_id}",
        (
            'carries {"stream_key": …, "stream_id": …} for a new entry in '
            "events:user:{user_id}; publish/subscribe, no key"
        ),
    ),
)

_BY_NAME: Mapping[str, KeyPattern] = MappingProxyType({key.name: key for key in KEYS})


def _uuid_text(value: object) -> str:
    # UUID() would accept too many spellings: it drops braces, `urn:` and every hyphen.
    return str(value).lower()


def _address_text(value: object) -> str:
    # ip_address() takes an integer for an address, so it gets text. An address with a scope id,
    # such as fe80::1%eth0, matches no pattern afterwards.
    return ipaddress.ip_address(str(value)).exploded.replace(":", "-")


#: Placeholders whose values are not written as they are.
_WRITERS: Mapping[str, Callable[[object], str]] = MappingProxyType(
    {"session_id": _uuid_text, "ip": _address_text}
)


def build_key(name: str, **parts: object) -> str:
    """The key of the pattern `name`, with `parts` in place of its placeholders.

    UUIDs are written in lower case, and addresses exploded with `-` for `:`. Raises `ValueError`
    for an unknown name and for a missing, surplus or unacceptable part.
    """
    key = _BY_NAME.get(name)
    if key is None:
        known = ", ".join(_BY_NAME)
        raise ValueError(f"{name!r} is not a key pattern. The patterns are {known}.")
    wanted = _placeholder_names(key.pattern)
    missing = [part for part in wanted if part not in parts]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing)}.")
    surplus = sorted(parts.keys() - set(wanted))
    if surplus:
        known = ", ".join(wanted) or "none"
        raise ValueError(f"{name} has no part {', '.join(surplus)}. Its parts: {known}.")
    texts = {part: _part_text(part, parts[part]) for part in wanted}
    return key.pattern.format(**texts)


#: Types of the values that a part accepts.
_PART_TYPES = (str, int, UUID, ipaddress.IPv4Address, ipaddress.IPv6Address)


def _part_text(part: str, value: object) -> str:
    # A bool is an integer in Python, and its text may even match.
    if isinstance(value, bool) or not isinstance(value, _PART_TYPES):
        message = f"{part} is a {type(value).__name__}, not text."
        raise ValueError(message)  # noqa: TRY004 - one error for every bad part
    text = _WRITERS.get(part, str)(value)
    pattern = PLACEHOLDERS[part]
    if re.fullmatch(pattern, text) is None:
        raise ValueError(f"{part} {str(value)!r} is not acceptable. It must match {pattern}.")
    return text
