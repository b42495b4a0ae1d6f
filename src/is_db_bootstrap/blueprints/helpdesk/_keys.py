"""The 17 key patterns of the desk.

Some are copies that this blueprint writes. The others belong to the application alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Literal

from is_db_bootstrap.blueprint import KeyPattern

Kind = Literal["string", "list", "set", "zset", "hash", "stream"]

#: Lifetimes in seconds.
MINUTES_15_S = 900
DAY_S = 86_400
DAYS_90_S = 7_776_000
YEAR_S = 31_536_000

_EDITED_CONTENT = "edited content with no other home"
_SESSION_STATUSES = "bot_active|pending_manual|manual_live|after_hours_email|closed"


def _key_pattern(
    name: str,
    pattern: str,
    kind: Kind,
    *,
    owner: str,
    purpose: str,
    ttl_s: int | None = None,
    reason: str = "",
    may_expire: bool = False,
    placeholders: Mapping[str, str] | None = None,
) -> KeyPattern:
    """A pattern whose last placeholder may hold a colon, if the pattern ends with a placeholder.

    Without `ttl_s` the keys are persistent, and `reason` says why.
    """
    if placeholders is None:
        last = re.search(r"\{(\w+)\}$", pattern)
        placeholders = {last[1]: ".+"} if last else {}
    return KeyPattern(name, pattern, kind, ttl_s, owner, purpose, placeholders, reason, may_expire)


_copy_key = partial(_key_pattern, owner="helpdesk copies")
_application_key = partial(_key_pattern, owner="application")

KEYS = (
    _copy_key(
        "ticket",
        "ticket:{ticket_id}",
        "string",
        purpose="a ticket with its children, JSON",
        reason="the copy lives and dies with its ticket",
    ),
    _copy_key(
        "ticket_index",
        "ticket:index",
        "set",
        purpose="all ticket ids",
        reason="members come and go with the tickets",
    ),
    _copy_key(
        "agent",
        "agent:{username}",
        "string",
        purpose="an agent with its password hash, JSON",
        ttl_s=YEAR_S,
    ),
    _copy_key(
        "agent_id",
        "agent_id:{agent_id}",
        "string",
        purpose="the username of an agent",
        ttl_s=YEAR_S,
    ),
    _copy_key(
        "audit_log",
        "audit_log:{ticket_id}",
        "list",
        purpose="the newest 500 audit entries of a ticket, JSON",
        reason="audit entries outlive their ticket; at most 500 of them",
    ),
    _application_key(
        "session",
        "session:{session_name}",
        "string",
        purpose="a live chat session, JSON",
        ttl_s=DAY_S,
    ),
    _application_key(
        "session_status",
        "status:{session_status}",
        "set",
        purpose="names of the sessions of a status",
        reason="an index of sessions; readers skip names whose session has expired",
        placeholders={"session_status": _SESSION_STATUSES},
    ),
    _application_key(
        "ticket_template",
        "ticket_template:{template_id}",
        "string",
        purpose="a ticket template, JSON",
        reason=_EDITED_CONTENT,
    ),
    _application_key(
        "ticket_template_index",
        "ticket_template:index",
        "set",
        purpose="template ids",
        reason="an index of the templates",
    ),
    _application_key(
        "quick_reply",
        "quick_reply:{reply_id}",
        "string",
        purpose="a quick reply, JSON",
        reason=_EDITED_CONTENT,
    ),
    _application_key(
        "quick_reply_index",
        "quick_reply:index",
        "set",
        purpose="reply ids",
        reason="an index of the replies",
    ),
    _application_key(
        "quick_reply_category",
        "quick_reply:category:{category}",
        "set",
        purpose="reply ids of a category",
        reason="an index of the replies",
    ),
    _application_key(
        "quick_reply_agent",
        "quick_reply:agent:{created_by}",
        "set",
        purpose="reply ids of an agent",
        reason="an index of the replies",
    ),
    _application_key(
        "agent_stats",
        "agent_stats:{agent_id}:{yyyymmdd}",
        "hash",
        purpose="counters of an agent on a day; the lifetime is set when the hash is created",
        ttl_s=DAYS_90_S,
    ),
    _application_key(
        "ip_blacklist",
        "security:blacklist:ip:{ip}",
        "string",
        purpose="1 for a banned address",
        reason="a ban lasts until it is lifted; a timed ban may set any TTL",
        may_expire=True,
    ),
    _application_key(
        "login_failures",
        "security:login_failures:{username}",
        "string",
        purpose="failed logins",
        ttl_s=MINUTES_15_S,
    ),
    _application_key(
        "account_locked",
        "security:account_locked:{username}",
        "string",
        purpose="1 while locked",
        ttl_s=MINUTES_15_S,
    ),
)
