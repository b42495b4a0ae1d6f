"""Nine pairs of pure functions, which convert between domain models and rows.

The functions open no session and add nothing to a session.
"""

from __future__ import annotations

import time
from typing import Any

from is_db_bootstrap.blueprints.helpdesk.domain import (
    Agent,
    AgentSkill,
    ArchivedSession,
    AuditEntry,
    EmailRecord,
    Model,
    SessionMessage,
    Ticket,
    TicketAssignment,
    TicketAttachment,
    TicketComment,
    TicketCustomer,
    TicketStatusHistory,
)
from is_db_bootstrap.blueprints.helpdesk.models import (
    AgentModel,
    AuditLogModel,
    Base,
    EmailRecordModel,
    SessionArchiveModel,
    TicketAssignmentModel,
    TicketAttachmentModel,
    TicketCommentModel,
    TicketModel,
    TicketStatusHistoryModel,
)

#: Fields of a ticket that are no columns of its row.
_TICKET_RELATIONS = ("comments", "attachments", "history", "assignments")
#: Lists of addresses, each of which is one text in the row.
_ADDRESS_LISTS = ("cc_emails", "bcc_emails")


def _column_values(value: Model, *without: str) -> dict[str, Any]:
    """The fields as column values, except for `without`.

    Enums and nested models become JSON types.
    """
    return value.model_dump(mode="json", exclude=set(without))


def _field_values(row: Base, model: type[Model], *without: str) -> dict[str, Any]:
    """The columns of a row as the fields of the same name in `model`, except for `without`."""
    names = [name for name in model.model_fields if name not in without]
    return {name: getattr(row, name) for name in names}


def ticket_to_orm(ticket: Ticket) -> TicketModel:
    """The row of a ticket with its children, in the order of the lists."""
    ticket_id = ticket.ticket_id
    return TicketModel(
        **_column_values(ticket, "metadata", *_TICKET_RELATIONS),
        extra_data=ticket.metadata,
        comments=[comment_to_orm(each, ticket_id) for each in ticket.comments],
        attachments=[attachment_to_orm(each, ticket_id) for each in ticket.attachments],
        status_history=[status_history_to_orm(each, ticket_id) for each in ticket.history],
        assignments=[assignment_to_orm(each, ticket_id) for each in ticket.assignments],
    )


def ticket_from_orm(row: TicketModel) -> Ticket:
    """The ticket of a row with its children, in the order of their rows."""
    customer = None if row.customer is None else TicketCustomer(**row.customer)
    return Ticket(
        **_field_values(row, Ticket, "customer", "metadata", *_TICKET_RELATIONS),
        customer=customer,
        metadata=row.extra_data or {},
        comments=[comment_from_orm(each) for each in row.comments],
        attachments=[attachment_from_orm(each) for each in row.attachments],
        history=[status_history_from_orm(each) for each in row.status_history],
        assignments=[assignment_from_orm(each) for each in row.assignments],
    )


def comment_to_orm(comment: TicketComment, ticket_id: str) -> TicketCommentModel:
    """The row of a comment on the ticket `ticket_id`. Its `updated_at` is `created_at`."""
    return TicketCommentModel(
        **_column_values(comment),
        ticket_id=ticket_id,
        updated_at=comment.created_at,
    )


def comment_from_orm(row: TicketCommentModel) -> TicketComment:
    """The comment of a row."""
    return TicketComment(
        **_field_values(row, TicketComment, "mentions"),
        mentions=row.mentions or [],
    )


def attachment_to_orm(attachment: TicketAttachment, ticket_id: str) -> TicketAttachmentModel:
    """The row of an attachment to the ticket `ticket_id`. Its `updated_at` is `created_at`."""
    return TicketAttachmentModel(
        **_column_values(attachment),
        ticket_id=ticket_id,
        updated_at=attachment.created_at,
    )


def attachment_from_orm(row: TicketAttachmentModel) -> TicketAttachment:
    """The attachment of a row."""
    return TicketAttachment(**_field_values(row, TicketAttachment))


def status_history_to_orm(
    entry: TicketStatusHistory,
    ticket_id: str,
) -> TicketStatusHistoryModel:
    """The row of a status change of the ticket `ticket_id`."""
    return TicketStatusHistoryModel(**_column_values(entry), ticket_id=ticket_id)


def status_history_from_orm(row: TicketStatusHistoryModel) -> TicketStatusHistory:
    """The status change of a row."""
    return TicketStatusHistory(**_field_values(row, TicketStatusHistory))


def assignment_to_orm(entry: TicketAssignment, ticket_id: str) -> TicketAssignmentModel:
    """The row of an assignment of the ticket `ticket_id`."""
    return TicketAssignmentModel(**_column_values(entry), ticket_id=ticket_id)


def assignment_from_orm(row: TicketAssignmentModel) -> TicketAssignment:
    """The assignment of a row."""
    return TicketAssignment(**_field_values(row, TicketAssignment))


def agent_to_orm(agent: Agent) -> AgentModel:
    """The row of an agent. Its `updated_at` is the current time."""
    return AgentModel(
        **_column_values(agent, "id", "last_login"),
        agent_id=agent.id,
        last_login_at=agent.last_login,
        updated_at=time.time(),
    )


def agent_from_orm(row: AgentModel) -> Agent:
    """The agent of a row."""
    return Agent(
        **_field_values(row, Agent, "id", "last_login", "skills"),
        id=row.agent_id,
        last_login=row.last_login_at,
        skills=[AgentSkill(**skill) for skill in row.skills or []],
    )


def audit_log_to_orm(entry: AuditEntry) -> AuditLogModel:
    """The row of an audit entry."""
    return AuditLogModel(**_column_values(entry, "id"), audit_id=entry.id)


def audit_log_from_orm(row: AuditLogModel) -> AuditEntry:
    """The audit entry of a row."""
    return AuditEntry(
        **_field_values(row, AuditEntry, "id", "details"),
        id=row.audit_id,
        details=row.details or {},
    )


def session_archive_to_orm(record: ArchivedSession) -> SessionArchiveModel:
    """The row of an archived session."""
    return SessionArchiveModel(**_column_values(record))


def session_archive_from_orm(row: SessionArchiveModel) -> ArchivedSession:
    """The archived session of a row. A missing count becomes the number of messages."""
    return ArchivedSession(
        **_field_values(row, ArchivedSession, "messages"),
        messages=[SessionMessage(**message) for message in row.messages or []],
    )


def email_record_to_orm(record: EmailRecord) -> EmailRecordModel:
    """The row of an e-mail. An empty list of addresses becomes NULL."""
    return EmailRecordModel(
        **_column_values(record, *_ADDRESS_LISTS),
        cc_emails=_join_addresses(record.cc_emails),
        bcc_emails=_join_addresses(record.bcc_emails),
    )


def email_record_from_orm(row: EmailRecordModel) -> EmailRecord:
    """The e-mail of a row."""
    return EmailRecord(
        **_field_values(row, EmailRecord, *_ADDRESS_LISTS),
        cc_emails=_split_addresses(row.cc_emails),
        bcc_emails=_split_addresses(row.bcc_emails),
    )


def _join_addresses(addresses: list[str]) -> str | None:
    return ",".join(addresses) or None


def _split_addresses(text: str | None) -> list[str]:
    return text.split(",") if text else []
