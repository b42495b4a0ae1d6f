"""The desk's own words: Pydantic models with the limits of their columns. Times are Unix epoch seconds."""

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
#: Longest text of the joined addresses of one column.
ADDRESSES = 1000


class TicketType(StrEnum):
    """When a customer asks."""

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


def _hexadecimal(prefix: str, digits: int) -> Any:
    return Field(default_factory=lambda: prefix + secrets.token_hex(digits // 2))


def _ticket_id() -> str:
    return f"TKT-{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(3).upper()}"


def _now() -> Any:
    return Field(default_factory=time.time)


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("PostgreSQL stores no NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no character") from None
    return text


def _storable_json(document: dict[str, Any]) -> dict[str, Any]:
    """As `_storable`, for all texts inside, keys too."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise ValueError("JSON holds no infinity and no NaN") from None
    _storable(text)
    if "\\u0000" in text:
        raise ValueError("jsonb stores no NUL character")
    return document


def _is_no_index(text: str) -> str:
    if text == "index":
        raise ValueError("ticket:index is the set of all tickets")
    return text


def _is_username(text: str) -> str:
    if ":" in text or any(character.isspace() for character in text):
        raise ValueError("a username holds no whitespace and no colon")
    return text


def _is_address(text: str) -> str:
    if "," in text:
        raise ValueError("an address holds no comma")
    return text


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))


def _trimmed(names: list[str]) -> list[str]:
    return _unique(name.strip() for name in names)


def _lowered(names: list[str]) -> list[str]:
    return _unique(name.strip().lower() for name in names)


Text = Annotated[str, AfterValidator(_storable)]
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
Moment = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
Json = Annotated[dict[str, JsonValue], AfterValidator(_storable_json)]


class Model(BaseModel):
    """What all models share: no unknown field, and a refused assignment changes nothing."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> None:
        before = dict(self.__dict__)
        try:
            super().__setattr__(name, value)
        except ValidationError:  # a rule over several fields is asked after the assignment
            self.__dict__.update(before)
            raise


class TicketCustomer(Model):
    """Whom a ticket is for."""

    name: Text | None = None
    email: Text | None = None
    phone: Text | None = None
    country: Text | None = None


class TicketComment(Model):
    """A comment on a ticket."""

    comment_id: Text50 = _hexadecimal("comment_", 12)
    content: Required
    author_id: Text100
    author_name: Optional100 | None = None
    comment_type: CommentType = CommentType.INTERNAL
    mentions: Annotated[list[Text], AfterValidator(_trimmed)] = Field(default_factory=list)
    created_at: Moment = _now()


class TicketAttachment(Model):
    """A file attached to a ticket; `size` is bytes."""

    attachment_id: Text50 = _hexadecimal("attach_", 12)
    filename: Text500
    stored_path: Text1000
    content_type: Optional100 | None = None
    size: Count
    comment_type: CommentType = CommentType.INTERNAL
    uploader_id: Text100
    uploader_name: Optional100 | None = None
    created_at: Moment = _now()


class TicketStatusHistory(Model):
    """One status change; `from_status` is None for the creation."""

    history_id: Text50 = _hexadecimal("history_", 12)
    from_status: TicketStatus | None = None
    to_status: TicketStatus
    changed_by: Text100
    change_reason: Optional500 | None = None
    comment: Text | None = None
    changed_at: Moment = _now()


class TicketAssignment(Model):
    """One assignment; `agent_id` is None when unassigned."""

    agent_id: Optional100 | None = None
    agent_name: Optional100 | None = None
    assigned_by: Optional100 | None = None
    note: Text | None = None
    assigned_at: Moment = _now()


class Ticket(Model):
    """A customer request with everything that hangs on it."""

    ticket_id: Annotated[Text50, AfterValidator(_is_no_index)] = Field(default_factory=_ticket_id)
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
    created_at: Moment = _now()
    updated_at: Moment = _now()
    comments: list[TicketComment] = Field(default_factory=list)
    attachments: list[TicketAttachment] = Field(default_factory=list)
    history: list[TicketStatusHistory] = Field(default_factory=list)
    assignments: list[TicketAssignment] = Field(default_factory=list)


class AgentSkill(Model):
    """What an agent knows; category and tags are trimmed and in lower case."""

    category: Annotated[
        str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=50), AfterValidator(_storable)
    ]
    level: SkillLevel = SkillLevel.JUNIOR
    tags: Annotated[list[Text], AfterValidator(_lowered)] = Field(default_factory=list)


class Agent(Model):
    """A person who works the desk. `password_hash` is made by the caller and not shown."""

    id: Text50 = _hexadecimal("agent_", 12)
    username: Annotated[Text50, AfterValidator(_is_username)]
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
    created_at: Moment = _now()


class AuditEntry(Model):
    """Who did what to a ticket."""

    id: Text50 = _hexadecimal("audit_", 16)
    ticket_id: Text50
    event_type: AuditEvent
    operator_id: Text100
    operator_name: Optional100 | None = None
    details: Json = Field(default_factory=dict)
    created_at: Moment = _now()


class SessionMessage(Model):
    """One message of a session."""

    role: MessageRole
    content: Text
    timestamp: Moment
    agent_id: Text | None = None
    agent_name: Text | None = None


class ArchivedSession(Model):
    """A finished chat session; count and duration are worked out when they are not given."""

    archive_id: Text50 = _hexadecimal("archive_", 16)
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
    archived_at: Moment = _now()

    @model_validator(mode="before")
    @classmethod
    def _worked_out(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        found = dict(given)
        if found.get("message_count") is None:
            messages = found.get("messages")
            found["message_count"] = len(messages) if isinstance(messages, list | tuple) else 0
        started, ended = found.get("started_at"), found.get("ended_at")
        if found.get("duration_seconds") is None and isinstance(started, int | float) and isinstance(ended, int | float):
            found["duration_seconds"] = int(ended - started)
        return found


class EmailRecord(Model):
    """One e-mail, sent, failed or waiting; `to_email` is empty when there was no recipient."""

    record_id: Text50 = _hexadecimal("mail_", 16)
    subject: Optional500
    from_email: Annotated[Text200, AfterValidator(_is_address)]
    to_email: Annotated[Optional200, AfterValidator(_is_address)]
    cc_emails: list[Annotated[Required, AfterValidator(_is_address)]] = Field(default_factory=list)
    bcc_emails: list[Annotated[Required, AfterValidator(_is_address)]] = Field(default_factory=list)
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
    created_at: Moment = _now()
    sent_at: Moment | None = None

    @model_validator(mode="after")
    def _addresses_fit(self) -> Self:
        for name in ("cc_emails", "bcc_emails"):
            if len(",".join(getattr(self, name))) > ADDRESSES:
                raise ValueError(f"{name}, joined by commas, is longer than {ADDRESSES} characters")
        return self
