"""The 17 key patterns of the desk: copies that this blueprint writes, and keys that are the application's alone."""

from __future__ import annotations

import re
from typing import Any, Literal

from is_db_bootstrap.blueprint import KeyPattern

Kind = Literal["string", "list", "set", "zset", "hash", "stream"]

MINUTES_15_S, DAY_S, DAYS_90_S, YEAR_S = 900, 86_400, 7_776_000, 31_536_000
_OWN, _APPLICATION = "helpdesk copies", "application"
_INDEX = "an index of the {}"
_EDITED = "edited content with no other home"


def _key(name: str, pattern: str, type_: Kind, ttl: int | None, owner: str, purpose: str, **more: Any) -> KeyPattern:  # noqa: PLR0917 - a row of the table
    """A pattern whose last placeholder, if it ends with one, may hold a colon."""
    last = re.search(r"\{(\w+)\}$", pattern)
    placeholders = {last[1]: ".+"} if last else {}
    return KeyPattern(name, pattern, type_, ttl, owner, purpose, **{"placeholders": placeholders, **more})


KEYS = (
    _key("ticket", "ticket:{ticket_id}", "string", None, _OWN, "a ticket with its children, JSON",
               reason="the copy lives and dies with its ticket"),
    _key("ticket_index", "ticket:index", "set", None, _OWN, "all ticket ids",
               reason="members come and go with the tickets"),
    _key("agent", "agent:{username}", "string", YEAR_S, _OWN, "an agent with its password hash, JSON"),
    _key("agent_id", "agent_id:{agent_id}", "string", YEAR_S, _OWN, "the username of an agent"),
    _key("audit_log", "audit_log:{ticket_id}", "list", None, _OWN, "the newest 500 audit entries of a ticket, JSON",
               reason="audit entries outlive their ticket; at most 500 of them"),
    _key("session", "session:{session_name}", "string", DAY_S, _APPLICATION, "a live chat session, JSON"),
    _key("session_status", "status:{session_status}", "set", None, _APPLICATION, "names of the sessions of a status",
               placeholders={"session_status": "bot_active|pending_manual|manual_live|after_hours_email|closed"},
               reason="an index of sessions; readers skip names whose session has expired"),
    _key("ticket_template", "ticket_template:{template_id}", "string", None, _APPLICATION, "a ticket template, JSON",
               reason=_EDITED),
    _key("ticket_template_index", "ticket_template:index", "set", None, _APPLICATION, "template ids",
               reason=_INDEX.format("templates")),
    _key("quick_reply", "quick_reply:{reply_id}", "string", None, _APPLICATION, "a quick reply, JSON", reason=_EDITED),
    _key("quick_reply_index", "quick_reply:index", "set", None, _APPLICATION, "reply ids", reason=_INDEX.format("replies")),
    _key("quick_reply_category", "quick_reply:category:{category}", "set", None, _APPLICATION, "reply ids of a category",
               reason=_INDEX.format("replies")),
    _key("quick_reply_agent", "quick_reply:agent:{created_by}", "set", None, _APPLICATION, "reply ids of an agent",
               reason=_INDEX.format("replies")),
    _key("agent_stats", "agent_stats:{agent_id}:{yyyymmdd}", "hash", DAYS_90_S, _APPLICATION,
               "counters of an agent on a day; the lifetime is set when the hash is created"),
    _key("ip_blacklist", "security:blacklist:ip:{ip}", "string", None, _APPLICATION, "1 for a banned address",
               reason="a ban lasts until it is lifted; a timed ban may set any TTL"),
    _key("login_failures", "security:login_failures:{username}", "string", MINUTES_15_S, _APPLICATION, "failed logins"),
    _key("account_locked", "security:account_locked:{username}", "string", MINUTES_15_S, _APPLICATION, "1 while locked"),
)  # fmt: skip
