"""SQLAlchemy models of the five tables, as the revisions create them.

The database fills ids, times and versions and enforces every rule. The models describe these
defaults and rules. Triggers set `version` and `updated_at`, so refresh an object after its update.
Triggers and functions are not part of the metadata.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Enum,
    FetchedValue,
    ForeignKeyConstraint,
    Identity,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class CommandStatus(StrEnum):
    """How far a command has come. The PostgreSQL type is `command_status_enum`."""

    RECEIVED = "RECEIVED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class OutboxStatus(StrEnum):
    """How far a message has come. The PostgreSQL type is `outbox_status_enum`."""

    #: The message waits for a relay, from `scheduled_at` on.
    PENDING = "PENDING"
    #: A relay has leased the message until `scheduled_at`.
    PROCESSING = "PROCESSING"
    #: The message was delivered at `sent_at`.
    SENT = "SENT"
    #: The message was given up after `max_retries` failures.
    FAILED = "FAILED"


class ScopeType(StrEnum):
    """What a dialogue is about. The column is text with a CHECK, because more kinds will come."""

    GENESIS = "GENESIS"
    CHAPTER = "CHAPTER"
    REVIEW = "REVIEW"
    PLANNING = "PLANNING"
    WORLDBUILDING = "WORLDBUILDING"


class SessionStatus(StrEnum):
    """Life cycle of a dialogue. At most one dialogue of each scope is ACTIVE."""

    ACTIVE = "ACTIVE"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABANDONED = "ABANDONED"
    PAUSED = "PAUSED"


class Role(StrEnum):
    """Author of a round."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    TOOL = "tool"


def _values_condition(column: str, values: type[StrEnum]) -> str:
    """The SQL condition that the column holds a value of the enum."""
    listed = ", ".join(repr(member.value) for member in values)
    return f"{column} IN ({listed})"


def _rows_where(condition: str) -> dict[str, Any]:
    """The option of a partial index, which holds only the rows that meet the condition."""
    return {"postgresql_where": text(condition)}


def _enum_type(kind: type[StrEnum], name: str) -> Enum:
    """The PostgreSQL type `name`, whose labels are the values of `kind`."""
    return Enum(kind, name=name, values_callable=list)


class Base(DeclarativeBase):
    """The base class, whose metadata `alembic check` compares with the database."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it so
        str: Text,
        dt.datetime: TIMESTAMP(timezone=True),
        Any: JSONB,
        CommandStatus: _enum_type(CommandStatus, "command_status_enum"),
        OutboxStatus: _enum_type(OutboxStatus, "outbox_status_enum"),
    }


class ConversationSession(Base):
    """One dialogue, bound to a business object such as a novel.

    Update a dialogue with `WHERE id = … AND version = <seen>`, as `sessions.update_if` does. When
    the update changes no row, somebody else has changed the dialogue first.
    """

    __tablename__ = "conversation_sessions"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_conversation_sessions"),
        CheckConstraint(
            _values_condition("scope_type", ScopeType), name="ck_conversation_sessions_scope_type"
        ),
        CheckConstraint(r"scope_id ~ '\S'", name="ck_conversation_sessions_scope_id_not_blank"),
        CheckConstraint(
            _values_condition("status", SessionStatus), name="ck_conversation_sessions_status"
        ),
        CheckConstraint(
            "jsonb_typeof(state) = 'object'", name="ck_conversation_sessions_state_object"
        ),
        CheckConstraint("version >= 0", name="ck_conversation_sessions_version_non_negative"),
        CheckConstraint(
            "round_sequence >= 0", name="ck_conversation_sessions_round_sequence_non_negative"
        ),
        Index("idx_conversation_sessions_scope", "scope_type", "scope_id"),
        Index("idx_conversation_sessions_status", "status"),
        Index("idx_conversation_sessions_updated_at", "updated_at"),
        Index("idx_conversation_sessions_scope_status", "scope_type", "scope_id", "status"),
        Index(
            "uq_conversation_sessions_active_per_scope",
            "scope_type",
            "scope_id",
            unique=True,
            **_rows_where("status = 'ACTIVE'"),
        ),
        {"comment": "One dialogue, bound to a business object such as a novel."},
    )

    id: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    scope_type: Mapped[str] = mapped_column(
        String(32), comment="Kind of object the dialogue is about."
    )
    scope_id: Mapped[str] = mapped_column(
        comment=(
            "Identifier of that object (the novel id for GENESIS); "
            "no foreign key, it may live elsewhere."
        )
    )
    status: Mapped[str] = mapped_column(
        String(16), server_default=text("'ACTIVE'"), comment="Life cycle of the dialogue."
    )
    stage: Mapped[str | None] = mapped_column(
        String(64), comment="Stage of the writing workflow, free text."
    )
    state: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="Accumulated state of the dialogue, a JSON object."
    )
    version: Mapped[int] = mapped_column(
        server_default=text("0"),
        server_onupdate=FetchedValue(),
        comment="Optimistic-lock counter, owned by the trigger.",
    )
    round_sequence: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Number of the last top-level round handed out."
    )
    created_at: Mapped[dt.datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[dt.datetime] = mapped_column(
        server_default=text("now()"),
        server_onupdate=FetchedValue(),
        comment="Time of the last update, set by trigger.",
    )

    rounds: Mapped[list[ConversationRound]] = relationship(
        back_populates="session", order_by="ConversationRound.created_at", passive_deletes=True
    )


class ConversationRound(Base):
    """One message or model call inside a dialogue.

    Rounds form a tree by their `round_path`, such as `2.1.1`.
    """

    __tablename__ = "conversation_rounds"
    __table_args__ = (
        PrimaryKeyConstraint("session_id", "round_path", name="pk_conversation_rounds"),
        ForeignKeyConstraint(
            ["session_id"],
            ["conversation_sessions.id"],
            name="fk_conversation_rounds_session_id_conversation_sessions",
            ondelete="CASCADE",
        ),
        CheckConstraint(
            "round_path ~ '^[1-9][0-9]*([.][1-9][0-9]*)*$'",
            name="ck_conversation_rounds_round_path_format",
        ),
        CheckConstraint(_values_condition("role", Role), name="ck_conversation_rounds_role"),
        CheckConstraint("tokens_in >= 0", name="ck_conversation_rounds_tokens_in_non_negative"),
        CheckConstraint("tokens_out >= 0", name="ck_conversation_rounds_tokens_out_non_negative"),
        CheckConstraint("latency_ms >= 0", name="ck_conversation_rounds_latency_ms_non_negative"),
        CheckConstraint("cost >= 0", name="ck_conversation_rounds_cost_non_negative"),
        Index("idx_conversation_rounds_session_id", "session_id"),
        Index(
            "idx_conversation_rounds_correlation_id",
            "correlation_id",
            **_rows_where("correlation_id IS NOT NULL"),
        ),
        Index("idx_conversation_rounds_created_at", "created_at"),
        Index("idx_conversation_rounds_role", "role"),
        Index("idx_conversation_rounds_session_id_created_at", "session_id", "created_at"),
        Index(
            "uq_conversation_rounds_session_id_correlation_id",
            "session_id",
            "correlation_id",
            unique=True,
            **_rows_where("correlation_id IS NOT NULL"),
        ),
        {"comment": "One message or model call inside a dialogue; dotted paths form a tree."},
    )

    session_id: Mapped[UUID]
    round_path: Mapped[str] = mapped_column(
        String(64), comment="Dotted positive integers without leading zeros: 1, 2, 2.1."
    )
    role: Mapped[str] = mapped_column(String(16), comment="Author of the round.")
    input: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), comment="What was sent.")
    output: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True), comment="What came back.")
    tool_calls: Mapped[Any | None] = mapped_column(
        JSONB(none_as_null=True), comment="Tool calls made in this round."
    )
    model: Mapped[str | None] = mapped_column(String(128), comment="Model that answered.")
    tokens_in: Mapped[int | None]
    tokens_out: Mapped[int | None]
    latency_ms: Mapped[int | None]
    cost: Mapped[Decimal | None] = mapped_column(
        Numeric(10, 4), comment="Cost of the call, in the billing currency of the deployment."
    )
    correlation_id: Mapped[str | None] = mapped_column(
        String(64),
        comment="Request that produced the round; at most one round per request and session.",
    )
    created_at: Mapped[dt.datetime] = mapped_column(server_default=text("now()"))

    session: Mapped[ConversationSession] = relationship(back_populates="rounds")


class Command(Base):
    """A command as it was received.

    A repeated `idempotency_key` is refused, so a client may repeat a request safely.
    """

    __tablename__ = "command_inbox"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_command_inbox"),
        UniqueConstraint("idempotency_key", name="uq_command_inbox_idempotency_key"),
        CheckConstraint(
            "command_type ~ '^[A-Z][A-Z0-9_]*$'", name="ck_command_inbox_command_type_format"
        ),
        CheckConstraint(
            "char_length(idempotency_key) BETWEEN 1 AND 255",
            name="ck_command_inbox_idempotency_key_length",
        ),
        CheckConstraint("retry_count >= 0", name="ck_command_inbox_retry_count_non_negative"),
        CheckConstraint(
            "status <> 'FAILED' OR error_message IS NOT NULL",
            name="ck_command_inbox_failed_has_error_message",
        ),
        Index("idx_command_inbox_session_id", "session_id"),
        Index("idx_command_inbox_status", "status"),
        Index("idx_command_inbox_command_type", "command_type"),
        Index("idx_command_inbox_created_at", "created_at"),
        Index("idx_command_inbox_session_status", "session_id", "status"),
        Index("idx_command_inbox_status_created", "status", "created_at"),
        Index(
            "idx_command_inbox_retry_status",
            "retry_count",
            "status",
            "created_at",
            **_rows_where("status IN ('RECEIVED', 'PROCESSING', 'FAILED')"),
        ),
        Index("idx_command_inbox_payload", "payload", postgresql_using="gin"),
        Index(
            "idx_command_inbox_unique_pending_command",
            "session_id",
            "command_type",
            unique=True,
            **_rows_where("status IN ('RECEIVED', 'PROCESSING')"),
        ),
        {
            "comment": (
                "Commands as they were received; "
                "the idempotency key lets only one of several repeats through."
            )
        },
    )

    id: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    session_id: Mapped[UUID] = mapped_column(
        comment=(
            "Dialogue the command belongs to; "
            "no foreign key: the command that opens a dialogue is stored before it, and "
            "commands outlive it."
        )
    )
    command_type: Mapped[str] = mapped_column(comment="Upper-case verb, such as START_GENESIS.")
    idempotency_key: Mapped[str] = mapped_column(
        comment="Chosen by the client, 1 to 255 characters."
    )
    payload: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    status: Mapped[CommandStatus] = mapped_column(server_default=text("'RECEIVED'"))
    error_message: Mapped[str | None] = mapped_column(
        comment="Why it failed; required when FAILED."
    )
    retry_count: Mapped[int] = mapped_column(server_default=text("0"))
    created_at: Mapped[dt.datetime] = mapped_column(server_default=text("now()"))
    updated_at: Mapped[dt.datetime] = mapped_column(
        server_default=text("now()"),
        server_onupdate=FetchedValue(),
        comment="Time of the last update, set by trigger.",
    )


class DomainEvent(Base):
    """An event of the log.

    Rows can be inserted and read. Anything else is refused with SQLSTATE 23001.
    """

    __tablename__ = "domain_events"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_domain_events"),
        UniqueConstraint("event_id", name="uq_domain_events_event_id"),
        CheckConstraint(
            "event_type ~ '^[A-Za-z][A-Za-z0-9_]*([.][A-Za-z][A-Za-z0-9_]*)*$'",
            name="ck_domain_events_event_type_format",
        ),
        CheckConstraint("event_version > 0", name="ck_domain_events_event_version_positive"),
        CheckConstraint(r"aggregate_type ~ '\S'", name="ck_domain_events_aggregate_type_not_blank"),
        CheckConstraint(r"aggregate_id ~ '\S'", name="ck_domain_events_aggregate_id_not_blank"),
        Index("idx_domain_events_aggregate", "aggregate_type", "aggregate_id"),
        Index("idx_domain_events_event_type", "event_type"),
        Index("idx_domain_events_created_at", "created_at"),
        Index(
            "idx_domain_events_correlation_id",
            "correlation_id",
            **_rows_where("correlation_id IS NOT NULL"),
        ),
        Index(
            "idx_domain_events_causation_id",
            "causation_id",
            **_rows_where("causation_id IS NOT NULL"),
        ),
        Index(
            "idx_domain_events_correlation_causation",
            "correlation_id",
            "causation_id",
            **_rows_where("correlation_id IS NOT NULL AND causation_id IS NOT NULL"),
        ),
        Index("idx_domain_events_aggregate_type_time", "aggregate_type", "created_at"),
        Index("idx_domain_events_event_type_time", "event_type", "created_at"),
        Index(
            "idx_domain_events_aggregate_event_time", "aggregate_type", "event_type", "created_at"
        ),
        Index("idx_domain_events_payload", "payload", postgresql_using="gin"),
        Index("idx_domain_events_metadata", "metadata", postgresql_using="gin"),
        {"comment": "What happened, in order, for ever; rows are inserted and read, nothing else."},
    )

    id: Mapped[int] = mapped_column(
        BigInteger,
        Identity(always=True),
        comment=(
            "Position in the log; assigned at insert, so a later commit can show a lower number."
        ),
    )
    event_id: Mapped[UUID] = mapped_column(
        server_default=text("gen_random_uuid()"), comment="Public identifier of the event."
    )
    correlation_id: Mapped[UUID | None] = mapped_column(
        comment="The request all related events share."
    )
    causation_id: Mapped[UUID | None] = mapped_column(
        comment="The event or command that caused this one."
    )
    event_type: Mapped[str] = mapped_column(
        comment="Name of what happened, such as STAGE_ENTERED or Genesis.Session.Started."
    )
    event_version: Mapped[int] = mapped_column(
        server_default=text("1"), comment="Version of the shape of the payload."
    )
    aggregate_type: Mapped[str] = mapped_column(comment="Kind of object that changed.")
    aggregate_id: Mapped[str] = mapped_column(comment="Identifier of the object that changed.")
    payload: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    # SQLAlchemy keeps the attribute name `metadata` for itself.
    event_metadata: Mapped[Any | None] = mapped_column("metadata", JSONB(none_as_null=True))
    created_at: Mapped[dt.datetime] = mapped_column(server_default=text("now()"))


class OutboxMessage(Base):
    """A message to be published, written in the transaction of the change that it announces."""

    __tablename__ = "event_outbox"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_event_outbox"),
        ForeignKeyConstraint(
            ["event_id"],
            ["domain_events.event_id"],
            name="fk_event_outbox_event_id_domain_events",
            ondelete="RESTRICT",
        ),
        CheckConstraint(r"topic ~ '\S'", name="ck_event_outbox_topic_not_blank"),
        CheckConstraint("jsonb_typeof(headers) = 'object'", name="ck_event_outbox_headers_object"),
        CheckConstraint("max_retries >= 0", name="ck_event_outbox_max_retries_non_negative"),
        CheckConstraint(
            "retry_count >= 0 AND retry_count <= max_retries",
            name="ck_event_outbox_retry_count_valid",
        ),
        CheckConstraint(
            "(status = 'SENT') = (sent_at IS NOT NULL)", name="ck_event_outbox_sent_has_timestamp"
        ),
        CheckConstraint(
            "status <> 'FAILED' OR last_error IS NOT NULL", name="ck_event_outbox_failed_has_error"
        ),
        CheckConstraint(
            "scheduled_at >= created_at", name="ck_event_outbox_scheduled_not_before_created"
        ),
        Index("idx_event_outbox_status", "status"),
        Index("idx_event_outbox_topic", "topic"),
        Index("idx_event_outbox_created_at", "created_at"),
        Index("idx_event_outbox_retry_count", "retry_count"),
        Index("idx_event_outbox_key", "key", **_rows_where("key IS NOT NULL")),
        Index(
            "idx_event_outbox_partition_key",
            "partition_key",
            **_rows_where("partition_key IS NOT NULL"),
        ),
        Index("idx_event_outbox_event_id", "event_id", **_rows_where("event_id IS NOT NULL")),
        Index("idx_event_outbox_topic_status", "topic", "status"),
        Index("idx_event_outbox_status_created", "status", "created_at"),
        Index(
            "idx_event_outbox_pending_scheduled",
            "scheduled_at",
            "created_at",
            **_rows_where("status = 'PENDING'"),
        ),
        Index(
            "idx_event_outbox_processing_scheduled",
            "scheduled_at",
            **_rows_where("status = 'PROCESSING'"),
        ),
        Index("idx_event_outbox_payload", "payload", postgresql_using="gin"),
        Index("idx_event_outbox_headers", "headers", postgresql_using="gin"),
        {
            "comment": (
                "Messages to be published, "
                "written in the same transaction as the change they announce."
            )
        },
    )

    id: Mapped[UUID] = mapped_column(
        server_default=text("gen_random_uuid()"),
        comment="Message identifier; consumers drop repeats by it.",
    )
    event_id: Mapped[UUID | None] = mapped_column(
        comment="The logged event this message announces, if any."
    )
    topic: Mapped[str] = mapped_column(comment="Destination.")
    key: Mapped[str | None] = mapped_column(
        comment="Message key; the aggregate id for event messages."
    )
    partition_key: Mapped[str | None] = mapped_column(comment="Overrides the key for partitioning.")
    payload: Mapped[Any] = mapped_column(JSONB)
    headers: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True),
        comment=(
            "JSON object; "
            "event messages carry event_type, event_version, aggregate_type, aggregate_id, "
            "correlation_id, causation_id."
        ),
    )
    status: Mapped[OutboxStatus] = mapped_column(server_default=text("'PENDING'"))
    retry_count: Mapped[int] = mapped_column(
        server_default=text("0"), comment="Failed deliveries so far."
    )
    max_retries: Mapped[int] = mapped_column(
        server_default=text("5"), comment="At this many failures the message is FAILED."
    )
    last_error: Mapped[str | None] = mapped_column(
        comment="Why the last delivery failed; required when FAILED."
    )
    scheduled_at: Mapped[dt.datetime] = mapped_column(
        server_default=text("now()"),
        comment="PENDING: earliest delivery; PROCESSING: end of the lease of the relay.",
    )
    sent_at: Mapped[dt.datetime | None] = mapped_column(
        comment="Time of delivery; set exactly when SENT."
    )
    created_at: Mapped[dt.datetime] = mapped_column(server_default=text("now()"))
