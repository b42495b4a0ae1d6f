"""SQLAlchemy models of the nine tables, as the revision creates them.

The database fills `id` only. Every other default is a default of the model. Times are Unix epoch
seconds, with fraction.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Double,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    String,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

#: A JSON value. None is stored as SQL NULL, never as JSON null.
DOCUMENT = JSONB(none_as_null=True)


class Base(DeclarativeBase):
    """The base class, whose metadata `alembic check` compares with the database."""

    type_annotation_map = {str: Text, float: Double}  # noqa: RUF012 - SQLAlchemy reads it so


class TimestampMixin:
    """The columns `created_at` and `updated_at`.

    Every update sets `updated_at` to the current time, unless the update gives another value.
    """

    created_at: Mapped[float] = mapped_column(default=time.time)
    updated_at: Mapped[float] = mapped_column(default=time.time, onupdate=time.time)


_TICKET_STATUSES = (
    "pending",
    "in_progress",
    "waiting_customer",
    "waiting_vendor",
    "resolved",
    "closed",
    "archived",
)


def _values_check(table: str, column: str, *values: str) -> CheckConstraint:
    """Only these values are accepted."""
    listed = ", ".join(repr(value) for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"ck_{table}_{column}")


def _ticket_reference(table: str) -> ForeignKeyConstraint:
    """A row of `table` is deleted together with its ticket."""
    return ForeignKeyConstraint(
        ["ticket_id"],
        ["tickets.ticket_id"],
        name=f"fk_{table}_ticket_id_tickets",
        ondelete="CASCADE",
    )


def _children_of_ticket(kind: str) -> Any:
    """The children of one kind, ordered by their surrogate key."""
    return relationship(
        kind,
        back_populates="ticket",
        order_by=f"{kind}.id",
        cascade="all, delete-orphan",
        passive_deletes=True,
    )


class AgentModel(TimestampMixin, Base):
    """A person who works the desk."""

    __tablename__ = "agents"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_agents"),
        _values_check("agents", "role", "agent", "admin"),
        _values_check(
            "agents", "status", "online", "busy", "break", "lunch", "training", "offline"
        ),
        Index("ix_agents_agent_id", "agent_id", unique=True),
        Index("ix_agents_username", "username", unique=True),
        Index("ix_agents_role", "role"),
        Index("ix_agents_status", "status"),
        Index("ix_agents_role_status", "role", "status"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    agent_id: Mapped[str] = mapped_column(String(50))
    username: Mapped[str] = mapped_column(String(50))
    password_hash: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(100))
    avatar_url: Mapped[str | None] = mapped_column(String(500))
    role: Mapped[str] = mapped_column(String(20), default="agent")
    status: Mapped[str] = mapped_column(String(20), default="offline")
    status_note: Mapped[str | None] = mapped_column(String(200))
    status_updated_at: Mapped[float | None]
    last_active_at: Mapped[float | None]
    last_login_at: Mapped[float | None]
    max_sessions: Mapped[int] = mapped_column(default=5)
    skills: Mapped[Any] = mapped_column(DOCUMENT, nullable=True, default=list)


class TicketModel(TimestampMixin, Base):
    """A customer request."""

    __tablename__ = "tickets"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_tickets"),
        _values_check("tickets", "ticket_type", "pre_sale", "after_sale", "complaint"),
        _values_check("tickets", "status", *_TICKET_STATUSES),
        _values_check("tickets", "priority", "low", "medium", "high", "urgent"),
        Index("ix_tickets_ticket_id", "ticket_id", unique=True),
        Index("ix_tickets_session_name", "session_name"),
        Index("ix_tickets_status", "status"),
        Index("ix_tickets_priority", "priority"),
        Index("ix_tickets_created_by", "created_by"),
        Index("ix_tickets_assigned_agent_id", "assigned_agent_id"),
        Index("ix_tickets_status_priority", "status", "priority"),
        Index("ix_tickets_created_at", "created_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    ticket_id: Mapped[str] = mapped_column(String(50))
    title: Mapped[str] = mapped_column(String(500))
    description: Mapped[str]
    session_name: Mapped[str | None] = mapped_column(String(100))
    ticket_type: Mapped[str] = mapped_column(String(20), default="after_sale")
    status: Mapped[str] = mapped_column(String(30), default="pending")
    priority: Mapped[str] = mapped_column(String(20), default="medium")
    created_by: Mapped[str] = mapped_column(String(100))
    created_by_name: Mapped[str | None] = mapped_column(String(100))
    assigned_agent_id: Mapped[str | None] = mapped_column(String(100))
    assigned_agent_name: Mapped[str | None] = mapped_column(String(100))
    customer: Mapped[Any] = mapped_column(DOCUMENT, nullable=True)
    extra_data: Mapped[Any] = mapped_column(DOCUMENT, nullable=True, default=dict)
    closed_at: Mapped[float | None]
    archived_at: Mapped[float | None]
    first_response_at: Mapped[float | None]
    resolved_at: Mapped[float | None]
    reopened_at: Mapped[float | None]
    reopened_count: Mapped[int] = mapped_column(default=0)
    reopened_by: Mapped[str | None] = mapped_column(String(100))

    comments: Mapped[list[TicketCommentModel]] = _children_of_ticket("TicketCommentModel")
    attachments: Mapped[list[TicketAttachmentModel]] = _children_of_ticket("TicketAttachmentModel")
    status_history: Mapped[list[TicketStatusHistoryModel]] = _children_of_ticket(
        "TicketStatusHistoryModel"
    )
    assignments: Mapped[list[TicketAssignmentModel]] = _children_of_ticket("TicketAssignmentModel")


class TicketCommentModel(TimestampMixin, Base):
    """A comment on a ticket."""

    __tablename__ = "ticket_comments"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_ticket_comments"),
        _ticket_reference("ticket_comments"),
        _values_check("ticket_comments", "comment_type", "internal", "public"),
        Index("ix_ticket_comments_comment_id", "comment_id", unique=True),
        Index("ix_ticket_comments_ticket_id", "ticket_id"),
        Index("ix_ticket_comments_author_id", "author_id"),
        Index("ix_ticket_comments_created_at", "created_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    comment_id: Mapped[str] = mapped_column(String(50))
    ticket_id: Mapped[str] = mapped_column(String(50))
    content: Mapped[str]
    author_id: Mapped[str] = mapped_column(String(100))
    author_name: Mapped[str | None] = mapped_column(String(100))
    comment_type: Mapped[str] = mapped_column(String(20), default="internal")
    mentions: Mapped[Any] = mapped_column(DOCUMENT, nullable=True, default=list)

    ticket: Mapped[TicketModel] = relationship(back_populates="comments")


class TicketAttachmentModel(TimestampMixin, Base):
    """A file attached to a ticket. The file itself is stored elsewhere."""

    __tablename__ = "ticket_attachments"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_ticket_attachments"),
        _ticket_reference("ticket_attachments"),
        _values_check("ticket_attachments", "comment_type", "internal", "public"),
        Index("ix_ticket_attachments_attachment_id", "attachment_id", unique=True),
        Index("ix_ticket_attachments_ticket_id", "ticket_id"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    attachment_id: Mapped[str] = mapped_column(String(50))
    ticket_id: Mapped[str] = mapped_column(String(50))
    filename: Mapped[str] = mapped_column(String(500))
    stored_path: Mapped[str] = mapped_column(String(1000))
    content_type: Mapped[str | None] = mapped_column(String(100))
    size: Mapped[int]
    comment_type: Mapped[str] = mapped_column(String(20), default="internal")
    uploader_id: Mapped[str] = mapped_column(String(100))
    uploader_name: Mapped[str | None] = mapped_column(String(100))

    ticket: Mapped[TicketModel] = relationship(back_populates="attachments")


class TicketStatusHistoryModel(Base):
    """One status change of a ticket."""

    __tablename__ = "ticket_status_history"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_ticket_status_history"),
        _ticket_reference("ticket_status_history"),
        _values_check("ticket_status_history", "from_status", *_TICKET_STATUSES),
        _values_check("ticket_status_history", "to_status", *_TICKET_STATUSES),
        Index("ix_ticket_status_history_history_id", "history_id", unique=True),
        Index("ix_ticket_status_history_ticket_id", "ticket_id"),
        Index("ix_ticket_status_history_changed_at", "changed_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    history_id: Mapped[str] = mapped_column(String(50))
    ticket_id: Mapped[str] = mapped_column(String(50))
    from_status: Mapped[str | None] = mapped_column(String(30))
    to_status: Mapped[str] = mapped_column(String(30))
    changed_by: Mapped[str] = mapped_column(String(100))
    change_reason: Mapped[str | None] = mapped_column(String(500))
    comment: Mapped[str | None]
    changed_at: Mapped[float]

    ticket: Mapped[TicketModel] = relationship(back_populates="status_history")


class TicketAssignmentModel(Base):
    """One assignment of a ticket. The only table without a business id."""

    __tablename__ = "ticket_assignments"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_ticket_assignments"),
        _ticket_reference("ticket_assignments"),
        Index("ix_ticket_assignments_ticket_id", "ticket_id"),
        Index("ix_ticket_assignments_agent_id", "agent_id"),
        Index("ix_ticket_assignments_assigned_at", "assigned_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    ticket_id: Mapped[str] = mapped_column(String(50))
    agent_id: Mapped[str | None] = mapped_column(String(100))
    agent_name: Mapped[str | None] = mapped_column(String(100))
    assigned_by: Mapped[str | None] = mapped_column(String(100))
    note: Mapped[str | None]
    assigned_at: Mapped[float]

    ticket: Mapped[TicketModel] = relationship(back_populates="assignments")


class AuditLogModel(Base):
    """An entry of the audit log: who did what to a ticket. The entry outlives the ticket."""

    __tablename__ = "audit_logs"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_audit_logs"),
        _values_check(
            "audit_logs",
            "event_type",
            "created",
            "status_changed",
            "priority_changed",
            "assigned",
            "commented",
            "attachment_uploaded",
        ),
        Index("ix_audit_logs_audit_id", "audit_id", unique=True),
        Index("ix_audit_logs_ticket_id", "ticket_id"),
        Index("ix_audit_logs_event_type", "event_type"),
        Index("ix_audit_logs_operator_id", "operator_id"),
        Index("ix_audit_logs_created_at", "created_at"),
        Index("ix_audit_logs_ticket_created", "ticket_id", "created_at"),
        Index("ix_audit_logs_operator_created", "operator_id", "created_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    audit_id: Mapped[str] = mapped_column(String(50))
    ticket_id: Mapped[str] = mapped_column(String(50))
    event_type: Mapped[str] = mapped_column(String(50))
    operator_id: Mapped[str] = mapped_column(String(100))
    operator_name: Mapped[str | None] = mapped_column(String(100))
    details: Mapped[Any] = mapped_column(DOCUMENT, nullable=True, default=dict)
    created_at: Mapped[float]


class SessionArchiveModel(Base):
    """A finished chat session."""

    __tablename__ = "session_archives"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_session_archives"),
        _values_check("session_archives", "channel", "web", "email", "chat"),
        Index("ix_session_archives_archive_id", "archive_id", unique=True),
        Index("ix_session_archives_session_id", "session_id"),
        Index("ix_session_archives_customer_id", "customer_id"),
        Index("ix_session_archives_customer_email", "customer_email"),
        Index("ix_session_archives_agent_id", "agent_id"),
        Index("ix_session_archives_channel", "channel"),
        Index("ix_session_archives_ticket_id", "ticket_id"),
        Index("ix_session_archives_archived_at", "archived_at"),
        Index("ix_session_archives_customer_archived", "customer_id", "archived_at"),
        Index("ix_session_archives_agent_archived", "agent_id", "archived_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    archive_id: Mapped[str] = mapped_column(String(50))
    session_id: Mapped[str] = mapped_column(String(100))
    session_name: Mapped[str | None] = mapped_column(String(200))
    customer_id: Mapped[str | None] = mapped_column(String(100))
    customer_email: Mapped[str | None] = mapped_column(String(200))
    customer_name: Mapped[str | None] = mapped_column(String(100))
    agent_id: Mapped[str | None] = mapped_column(String(100))
    agent_name: Mapped[str | None] = mapped_column(String(100))
    channel: Mapped[str | None] = mapped_column(String(50))
    messages: Mapped[Any] = mapped_column(DOCUMENT, nullable=True)
    message_count: Mapped[int | None] = mapped_column(default=0)
    duration_seconds: Mapped[int | None]
    ticket_id: Mapped[str | None] = mapped_column(String(50))
    started_at: Mapped[float | None]
    ended_at: Mapped[float | None]
    archived_at: Mapped[float]


class EmailRecordModel(Base):
    """One e-mail: sent, failed or waiting."""

    __tablename__ = "email_records"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_email_records"),
        _values_check(
            "email_records",
            "email_type",
            "general",
            "notification",
            "reply",
            "escalation",
            "system",
        ),
        _values_check("email_records", "status", "pending", "sent", "failed"),
        Index("ix_email_records_record_id", "record_id", unique=True),
        Index("ix_email_records_to_email", "to_email"),
        Index("ix_email_records_email_type", "email_type"),
        Index("ix_email_records_session_id", "session_id"),
        Index("ix_email_records_ticket_id", "ticket_id"),
        Index("ix_email_records_customer_id", "customer_id"),
        Index("ix_email_records_status", "status"),
        Index("ix_email_records_created_at", "created_at"),
        Index("ix_email_records_to_created", "to_email", "created_at"),
        Index("ix_email_records_status_created", "status", "created_at"),
    )

    id: Mapped[int] = mapped_column(autoincrement=True)
    record_id: Mapped[str] = mapped_column(String(50))
    subject: Mapped[str] = mapped_column(String(500))
    from_email: Mapped[str] = mapped_column(String(200))
    to_email: Mapped[str] = mapped_column(String(200))
    cc_emails: Mapped[str | None] = mapped_column(String(1000))
    bcc_emails: Mapped[str | None] = mapped_column(String(1000))
    body_text: Mapped[str | None]
    body_html: Mapped[str | None]
    email_type: Mapped[str | None] = mapped_column(String(50))
    template_id: Mapped[str | None] = mapped_column(String(100))
    session_id: Mapped[str | None] = mapped_column(String(100))
    ticket_id: Mapped[str | None] = mapped_column(String(50))
    customer_id: Mapped[str | None] = mapped_column(String(100))
    status: Mapped[str] = mapped_column(String(20), default="pending")
    error_message: Mapped[str | None]
    retry_count: Mapped[int] = mapped_column(default=0)
    external_id: Mapped[str | None] = mapped_column(String(200))
    external_response: Mapped[Any] = mapped_column(DOCUMENT, nullable=True)
    created_at: Mapped[float]
    sent_at: Mapped[float | None]
