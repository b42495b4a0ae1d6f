"""Nine pairs of pure functions between the domain and the rows; they open no session and add nothing to one."""

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


def _columns(value: Model, *without: str, **renamed: Any) -> dict[str, Any]:
    """The fields as column values: enums and nested models as JSON types, those of `without` left out."""
    return {name: held for name, held in value.model_dump(mode="json").items() if name not in without} | renamed


def _fields(row: Base, model: type[Model], *without: str, **renamed: Any) -> dict[str, Any]:
    """The columns of the same name as the fields of `model`."""
    names = (name for name in model.model_fields if name not in without and name not in renamed)
    return {name: getattr(row, name) for name in names} | renamed


def ticket_to_orm(ticket: Ticket) -> TicketModel:
    """The row with its children, in the order of the lists."""
    return TicketModel(
        **_columns(ticket, "metadata", "comments", "attachments", "history", "assignments", extra_data=ticket.metadata),
        comments=[comment_to_orm(c, ticket.ticket_id) for c in ticket.comments],
        attachments=[attachment_to_orm(a, ticket.ticket_id) for a in ticket.attachments],
        status_history=[status_history_to_orm(h, ticket.ticket_id) for h in ticket.history],
        assignments=[assignment_to_orm(a, ticket.ticket_id) for a in ticket.assignments],
    )


def ticket_from_orm(row: TicketModel) -> Ticket:
    """The ticket with its children, in the order of their rows."""
    return Ticket(
        **_fields(
            row,
            Ticket,
            customer=None if row.customer is None else TicketCustomer(**row.customer),
            metadata=row.extra_data or {},
            comments=[comment_from_orm(c) for c in row.comments],
            attachments=[attachment_from_orm(a) for a in row.attachments],
            history=[status_history_from_orm(h) for h in row.status_history],
            assignments=[assignment_from_orm(a) for a in row.assignments],
        )
    )


def comment_to_orm(comment: TicketComment, ticket_id: str) -> TicketCommentModel:
    """The row of a comment on that ticket."""
    return TicketCommentModel(**_columns(comment), ticket_id=ticket_id, updated_at=comment.created_at)


def comment_from_orm(row: TicketCommentModel) -> TicketComment:
    """The comment of a row."""
    return TicketComment(**_fields(row, TicketComment, mentions=row.mentions or []))


def attachment_to_orm(attachment: TicketAttachment, ticket_id: str) -> TicketAttachmentModel:
    """The row of an attachment to that ticket."""
    return TicketAttachmentModel(**_columns(attachment), ticket_id=ticket_id, updated_at=attachment.created_at)


def attachment_from_orm(row: TicketAttachmentModel) -> TicketAttachment:
    """The attachment of a row."""
    return TicketAttachment(**_fields(row, TicketAttachment))


def status_history_to_orm(entry: TicketStatusHistory, ticket_id: str) -> TicketStatusHistoryModel:
    """The row of a status change of that ticket."""
    return TicketStatusHistoryModel(**_columns(entry), ticket_id=ticket_id)


def status_history_from_orm(row: TicketStatusHistoryModel) -> TicketStatusHistory:
    """The status change of a row."""
    return TicketStatusHistory(**_fields(row, TicketStatusHistory))


def assignment_to_orm(entry: TicketAssignment, ticket_id: str) -> TicketAssignmentModel:
    """The row of an assignment of that ticket."""
    return TicketAssignmentModel(**_columns(entry), ticket_id=ticket_id)


def assignment_from_orm(row: TicketAssignmentModel) -> TicketAssignment:
    """The assignment of a row."""
    return TicketAssignment(**_fields(row, TicketAssignment))


def agent_to_orm(agent: Agent) -> AgentModel:
    """The row of an agent; `updated_at` is now."""
    return AgentModel(
        **_columns(agent, "id", "last_login", agent_id=agent.id, last_login_at=agent.last_login), updated_at=time.time()
    )


def agent_from_orm(row: AgentModel) -> Agent:
    """The agent of a row."""
    skills = [AgentSkill(**skill) for skill in row.skills or []]
    return Agent(**_fields(row, Agent, id=row.agent_id, last_login=row.last_login_at, skills=skills))


def audit_log_to_orm(entry: AuditEntry) -> AuditLogModel:
    """The row of an audit entry."""
    return AuditLogModel(**_columns(entry, "id", audit_id=entry.id))


def audit_log_from_orm(row: AuditLogModel) -> AuditEntry:
    """The audit entry of a row."""
    return AuditEntry(**_fields(row, AuditEntry, id=row.audit_id, details=row.details or {}))


def session_archive_to_orm(record: ArchivedSession) -> SessionArchiveModel:
    """The row of an archived session."""
    return SessionArchiveModel(**_columns(record))


def session_archive_from_orm(row: SessionArchiveModel) -> ArchivedSession:
    """The archived session of a row; a missing count is the number of messages."""
    messages = [SessionMessage(**message) for message in row.messages or []]
    return ArchivedSession(**_fields(row, ArchivedSession, messages=messages))


def email_record_to_orm(record: EmailRecord) -> EmailRecordModel:
    """The row of an e-mail; no address is NULL."""
    joined = {name: ",".join(getattr(record, name)) or None for name in ("cc_emails", "bcc_emails")}
    return EmailRecordModel(**_columns(record, **joined))


def email_record_from_orm(row: EmailRecordModel) -> EmailRecord:
    """The e-mail of a row."""
    lists = {name: text.split(",") if (text := getattr(row, name)) else [] for name in ("cc_emails", "bcc_emails")}
    return EmailRecord(**_fields(row, EmailRecord, **lists))
