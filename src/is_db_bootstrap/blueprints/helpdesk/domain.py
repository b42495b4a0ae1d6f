"""Pydantic models of the desk, with the limits of their columns.

Times are Unix epoch seconds, with fraction.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

LARGEST_INTEGER = 2_147_483_647
#: Longest text of one column's addresses, joined by commas.
ADDRESSES = 1000


class TicketType(StrEnum):
    """When a customer asks for something."""

    PRE_SALE = "pre_sale"
    AFTER_SALE = "after_sale"
    COMPLAINT = "complaint"


class TicketStatus(StrEnum):
    """How far a ticket has come."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    WAITING_CUSTOMER = "waiting_customer"
    WAITING_VENDOR = "waiting_vendor"
    RESOLVED = "resolved"
    CLOSED = "closed"
    ARCHIVED = "archived"


class TicketPriority(StrEnum):
    """How soon a ticket is to be worked on."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    URGENT = "urgent"


class CommentType(StrEnum):
    """Who may see a comment or an attachment."""

    INTERNAL = "internal"
    PUBLIC = "public"


class AgentRole(StrEnum):
    """What an agent may do."""

    AGENT = "agent"
    ADMIN = "admin"


class AgentStatus(StrEnum):
    """Whether an agent can be reached."""

    ONLINE = "online"
    BUSY = "busy"
    BREAK = "break"
    LUNCH = "lunch"
    TRAINING = "training"
    OFFLINE = "offline"


class AuditEvent(StrEnum):
    """What was done to a ticket."""

    CREATED = "created"
    STATUS_CHANGED = "status_changed"
    PRIORITY_CHANGED = "priority_changed"
    ASSIGNED = "assigned"
    COMMENTED = "commented"
    ATTACHMENT_UPLOADED = "attachment_uploaded"


class SessionChannel(StrEnum):
    """Where a chat session took place."""

    WEB = "web"
    EMAIL = "email"
    CHAT = "chat"


class EmailType(StrEnum):
    """What an e-mail is for."""

    GENERAL = "general"
    NOTIFICATION = "notification"
    REPLY = "reply"
    ESCALATION = "escalation"
    SYSTEM = "system"


class EmailStatus(StrEnum):
    """Whether an e-mail was sent."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"


class SkillLevel(StrEnum):
    """How well an agent knows a field."""

    JUNIOR = "junior"
    INTERMEDIATE = "intermediate"
    SENIOR = "senior"


class MessageRole(StrEnum):
    """Who wrote a message of a session."""

    USER = "user"
    ASSISTANT = "assistant"
    AGENT = "agent"
    SYSTEM = "system"


def _random_id(prefix: str, digits: int) -> Any:
    """A field whose default is the prefix and so many random hexadecimal digits."""
    return Field(default_factory=lambda: prefix + secrets.token_hex(digits // 2))


def _new_ticket_id() -> str:
    return f"TKT-{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(3).upper()}"


def _current_time() -> Any:
    """A field whose default is the current time."""
    return Field(default_factory=time.time)


def _refuse_unstorable(text: str) -> str:
    """Refuse text that PostgreSQL cannot store."""
    if "\0" in text:
        raise ValueError("PostgreSQL stores no NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return text


def _refuse_unstorable_json(document: dict[str, Any]) -> dict[str, Any]:
    """Refuse a document that holds unstorable text, also among its keys."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise ValueError("JSON holds no infinity and no NaN") from None
    _refuse_unstorable(text)
    if "\\u0000" in text:
        raise ValueError("jsonb stores no NUL character")
    return document


def _refuse_index(text: str) -> str:
    if text == "index":
        raise ValueError("ticket:index is the set of all tickets")
    return text


def _check_username(text: str) -> str:
    has_space = any(character.isspace() for character in text)
    if ":" in text or has_space:
        raise ValueError("a username holds no whitespace and no colon")
    return text


def _check_address(text: str) -> str:
    if "," in text:
        raise ValueError("an address holds no comma")
    return text


def _unique_names(names: Iterable[str]) -> list[str]:
    """The names in their order, without empty and repeated names."""
    return list(dict.fromkeys(name for name in names if name))


def _trim_names(names: list[str]) -> list[str]:
    return _unique_names(name.strip() for name in names)


def _lower_names(names: list[str]) -> list[str]:
    return _unique_names(name.strip().lower() for name in names)


Text = Annotated[str, AfterValidator(_refuse_unstorable)]
Required = Annotated[Text, StringConstraints(min_length=1)]
Text50 = Annotated[Text, StringConstraints(min_length=1, max_length=50)]
Text100 = Annotated[Text, StringConstraints(min_length=1, max_length=100)]
Text200 = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Text255 = Annotated[Text, StringConstraints(min_length=1, max_length=255)]
Text500 = Annotated[Text, StringConstraints(min_length=1, max_length=500)]
Text1000 = Annotated[Text, StringConstraints(min_length=1, max_length=1000)]
Optional50 = Annotated[Text, StringConstraints(max_length=50)]
Optional100 = Annotated[Text, StringConstraints(max_length=100)]
Optional200 = Annotated[Text, StringConstraints(max_length=200)]
Optional500 = Annotated[Text, StringConstraints(max_length=500)]
Category = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=50),
    AfterValidator(_refuse_unstorable),
]
Moment = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Json = Annotated[dict[str, JsonValue], AfterValidator(_refuse_unstorable_json)]


class Model(BaseModel):
    """A model that has no unknown fields.

    A refused assignment raises `ValidationError` and changes nothing.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> None:
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError:
            # Pydantic checks a rule over several fields after the assignment.
            self.__dict__.update(before)
            raise


class TicketCustomer(Model):
    """The customer of a ticket."""

    name: Text | None = None
    email: Text | None = None
    phone: Text | None = None
    country: Text | None = None


class TicketComment(Model):
    """A comment on a ticket."""

    comment_id: Text50 = _random_id("comment_", 12)
    content: Required
    author_id: Text100
    author_name: Optional100 | None = None
    comment_type: CommentType = CommentType.INTERNAL
    mentions: Annotated[list[Text], AfterValidator(_trim_names)] = Field(default_factory=list)
    created_at: Moment = _current_time()


class TicketAttachment(Model):
    """A file attached to a ticket. `size` is bytes."""

    attachment_id: Text50 = _random_id("attach_", 12)
    filename: Text500
    stored_path: Text1000
    content_type: Optional100 | None = None
    size: Count
    comment_type: CommentType = CommentType.INTERNAL
    uploader_id: Text100
    uploader_name: Optional100 | None = None
    created_at: Moment = _current_time()


class TicketStatusHistory(Model):
    """One status change. `from_status` is None for the creation of the ticket."""

    history_id: Text50 = _random_id("history_", 12)
    from_status: TicketStatus | None = None
    to_status: TicketStatus
    changed_by: Text100
    change_reason: Optional500 | None = None
    comment: Text | None = None
    changed_at: Moment = _current_time()


class TicketAssignment(Model):
    """One assignment. `agent_id` is None when the ticket was assigned to nobody."""

    agent_id: Optional100 | None = None
    agent_name: Optional100 | None = None
    assigned_by: Optional100 | None = None
    note: Text | None = None
    assigned_at: Moment = _current_time()


class Ticket(Model):
    """A customer request with its comments, attachments, history and assignments."""

    ticket_id: Annotated[Text50, AfterValidator(_refuse_index)] = Field(
        default_factory=_new_ticket_id
    )
    title: Text500
    description: Text
    session_name: Optional100 | None = None
    ticket_type: TicketType = TicketType.AFTER_SALE
    status: TicketStatus = TicketStatus.PENDING
    priority: TicketPriority = TicketPriority.MEDIUM
    created_by: Text100
    created_by_name: Optional100 | None = None
    assigned_agent_id: Optional100 | None = None
    assigned_agent_name: Optional100 | None = None
    customer: TicketCustomer | None = None
    metadata: Json = Field(default_factory=dict)
    closed_at: Moment | None = None
    archived_at: Moment | None = None
    first_response_at: Moment | None = None
    resolved_at: Moment | None = None
    reopened_at: Moment | None = None
    reopened_count: Count = 0
    reopened_by: Optional100 | None = None
    created_at: Moment = _current_time()
    updated_at: Moment = _current_time()
    comments: list[TicketComment] = Field(default_factory=list)
    attachments: list[TicketAttachment] = Field(default_factory=list)
    history: list[TicketStatusHistory] = Field(default_factory=list)
    assignments: list[TicketAssignment] = Field(default_factory=list)


class AgentSkill(Model):
    """A field that an agent knows. Category and tags are trimmed and in lower case."""

    category: Category
    level: SkillLevel = SkillLevel.JUNIOR
    tags: Annotated[list[Text], AfterValidator(_lower_names)] = Field(default_factory=list)


class Agent(Model):
    """A person who works the desk.

    The caller makes `password_hash`. The representation of an agent leaves the hash out.
    """

    id: Text50 = _random_id("agent_", 12)
    username: Annotated[Text50, AfterValidator(_check_username)]
    password_hash: Text255 = Field(repr=False)
    name: Text100
    avatar_url: Optional500 | None = None
    role: AgentRole = AgentRole.AGENT
    status: AgentStatus = AgentStatus.OFFLINE
    status_note: Optional200 | None = None
    status_updated_at: Moment | None = None
    last_active_at: Moment | None = None
    last_login: Moment | None = None
    max_sessions: Count = 5
    skills: list[AgentSkill] = Field(default_factory=list)
    created_at: Moment = _current_time()


class AuditEntry(Model):
    """An entry of the audit log: who did what to a ticket."""

    id: Text50 = _random_id("audit_", 16)
    ticket_id: Text50
    event_type: AuditEvent
    operator_id: Text100
    operator_name: Optional100 | None = None
    details: Json = Field(default_factory=dict)
    created_at: Moment = _current_time()


class SessionMessage(Model):
    """One message of a session."""

    role: MessageRole
    content: Text
    timestamp: Moment
    agent_id: Text | None = None
    agent_name: Text | None = None


class ArchivedSession(Model):
    """A finished chat session.

    A missing `message_count` becomes the number of messages. A missing `duration_seconds` becomes
    the whole seconds from `started_at` to `ended_at`, if both are given.
    """

    archive_id: Text50 = _random_id("archive_", 16)
    session_id: Text100
    session_name: Optional200 | None = None
    customer_id: Optional100 | None = None
    customer_email: Optional200 | None = None
    customer_name: Optional100 | None = None
    agent_id: Optional100 | None = None
    agent_name: Optional100 | None = None
    channel: SessionChannel | None = None
    messages: list[SessionMessage] = Field(default_factory=list)
    message_count: Count = 0
    duration_seconds: Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)] | None = None
    ticket_id: Optional50 | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    archived_at: Moment = _current_time()

    @model_validator(mode="before")
    @classmethod
    def _fill_missing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values = dict(given)
        if values.get("message_count") is None:
            messages = values.get("messages")
            values["message_count"] = len(messages) if isinstance(messages, list | tuple) else 0
        if values.get("duration_seconds") is None:
            started = values.get("started_at")
            ended = values.get("ended_at")
            if isinstance(started, int | float) and isinstance(ended, int | float):
                values["duration_seconds"] = int(ended - started)
        return values


class EmailRecord(Model):
    """One e-mail: sent, failed or waiting. `to_email` is empty when there was no recipient."""

    record_id: Text50 = _random_id("mail_", 16)
    subject: Optional500
    from_email: Annotated[Text200, AfterValidator(_check_address)]
    to_email: Annotated[Optional200, AfterValidator(_check_address)]
    cc_emails: list[Annotated[Required, AfterValidator(_check_address)]] = Field(
        default_factory=list
    )
    bcc_emails: list[Annotated[Required, AfterValidator(_check_address)]] = Field(
        default_factory=list
    )
    body_text: Text | None = None
    body_html: Text | None = None
    email_type: EmailType | None = EmailType.GENERAL
    template_id: Optional100 | None = None
    session_id: Optional100 | None = None
    ticket_id: Optional50 | None = None
    customer_id: Optional100 | None = None
    status: EmailStatus = EmailStatus.PENDING
    error_message: Text | None = None
    retry_count: Count = 0
    external_id: Optional200 | None = None
    external_response: Json | None = None
    created_at: Moment = _current_time()
    sent_at: Moment | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        for name in ("cc_emails", "bcc_emails"):
            joined = ",".join(getattr(self, name))
            if len(joined) > ADDRESSES:
                raise ValueError(f"{name}, joined by commas, is longer than {ADDRESSES} characters")
        return self
