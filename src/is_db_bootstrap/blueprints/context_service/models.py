"""SQLAlchemy models of the eight tables, as the revisions create them.

The database fills ids and times and enforces every rule. The models describe these defaults and
rules. A trigger sets `updated_at`, so refresh an object after its update. Triggers, functions and
the extension are not part of the metadata.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
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
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class AgentStatus(StrEnum):
    """Whether an agent may be given work. The PostgreSQL type is `agent_status_enum`."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    ERROR = "error"


class TaskStatus(StrEnum):
    """How far a task or a slice has come. The PostgreSQL type is `task_status_enum`."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ToolMode(StrEnum):
    """Where a tool runs. The PostgreSQL type is `tool_mode_enum`."""

    CLOUD = "cloud"
    LOCAL = "local"


class ResultType(StrEnum):
    """Whether a tool or a task produced a result. The PostgreSQL type is `result_type_enum`."""

    TOOL_RESULT = "tool_result"
    TASK_RESULT = "task_result"


class ReviewStatus(StrEnum):
    """The judgement of a review. The PostgreSQL type is `review_status_enum`."""

    PASSED = "pass"
    FAILED = "fail"


def _enum_type(kind: type[StrEnum], name: str) -> Enum:
    """The PostgreSQL type `name`, whose labels are the values of `kind`, not its names."""
    return Enum(kind, name=name, values_callable=list)


class Base(DeclarativeBase):
    """The base class, whose metadata `alembic check` compares with the database."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it so
        str: Text,
        dt.datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        Any: JSONB,
        list[UUID]: ARRAY(Uuid),
        AgentStatus: _enum_type(AgentStatus, "agent_status_enum"),
        TaskStatus: _enum_type(TaskStatus, "task_status_enum"),
        ToolMode: _enum_type(ToolMode, "tool_mode_enum"),
        ResultType: _enum_type(ResultType, "result_type_enum"),
        ReviewStatus: _enum_type(ReviewStatus, "review_status_enum"),
    }


def _id_column() -> Mapped[UUID]:
    return mapped_column(server_default=text("gen_random_uuid()"))


def _created_column() -> Mapped[dt.datetime]:
    return mapped_column(server_default=text("now()"))


def _updated_column() -> Mapped[dt.datetime]:
    return mapped_column(
        server_default=text("now()"),
        server_onupdate=FetchedValue(),
        comment="Set by trigger.",
    )


def _object_check(table: str, column: str) -> CheckConstraint:
    """The JSON value is an object."""
    condition = f"jsonb_typeof({column}) = 'object'"
    return CheckConstraint(condition, name=f"ck_{table}_{column}_object")


def _not_blank_check(table: str, column: str) -> CheckConstraint:
    """The text holds more than white space."""
    return CheckConstraint(rf"{column} ~ '\S'", name=f"ck_{table}_{column}_not_blank")


def _task_reference(table: str) -> ForeignKeyConstraint:
    """A row of `table` is deleted together with its task."""
    return ForeignKeyConstraint(
        ["task_id"],
        ["tasks.id"],
        name=f"fk_{table}_task_id_tasks",
        ondelete="CASCADE",
    )


class Agent(Base):
    """An agent that may be given work."""

    __tablename__ = "agents"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_agents"),
        UniqueConstraint("name", name="uq_agents_name"),
        _not_blank_check("agents", "name"),
        CheckConstraint(
            "array_position(allowed_tool_ids, NULL) IS NULL",
            name="ck_agents_allowed_tool_ids_no_null",
        ),
        Index("idx_agents_name", "name"),
        Index("idx_agents_status", "status"),
        {"comment": "The agents that may be given work."},
    )

    id: Mapped[UUID] = _id_column()
    name: Mapped[str] = mapped_column(comment="Unique.")
    description: Mapped[str | None]
    base_prompt: Mapped[str] = mapped_column(comment="Default system prompt.")
    allowed_tool_ids: Mapped[list[UUID]] = mapped_column(
        server_default=text("'{}'::uuid[]"),
        comment=(
            "Tools this agent may use; an array cannot carry a foreign key, "
            "so readers ignore ids that no longer exist."
        ),
    )
    status: Mapped[AgentStatus] = mapped_column(server_default="active")
    created_at: Mapped[dt.datetime] = _created_column()
    updated_at: Mapped[dt.datetime] = _updated_column()

    tasks: Mapped[list[Task]] = relationship(back_populates="agent", passive_deletes="all")


class Task(Base):
    """Work given to an agent. Tasks form a tree through `parent_task_id`."""

    __tablename__ = "tasks"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_tasks"),
        ForeignKeyConstraint(
            ["parent_task_id"],
            ["tasks.id"],
            name="fk_tasks_parent_task_id_tasks",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name="fk_tasks_agent_id_agents", ondelete="RESTRICT"
        ),
        CheckConstraint("parent_task_id <> id", name="ck_tasks_parent_not_self"),
        _object_check("tasks", "payload"),
        CheckConstraint("priority >= 0", name="ck_tasks_priority_non_negative"),
        CheckConstraint("retries >= 0", name="ck_tasks_retries_non_negative"),
        CheckConstraint("completed_at >= started_at", name="ck_tasks_completed_after_started"),
        Index("idx_tasks_status", "status"),
        Index("idx_tasks_agent_status", "agent_id", "status"),
        Index("idx_tasks_parent", "parent_task_id"),
        Index("idx_tasks_scheduled", "scheduled_at"),
        {"comment": "Work given to an agent."},
    )

    id: Mapped[UUID] = _id_column()
    parent_task_id: Mapped[UUID | None] = mapped_column(comment="A child goes with its parent.")
    agent_id: Mapped[UUID] = mapped_column(
        comment="An agent that has tasks cannot be deleted, so history is not lost."
    )
    payload: Mapped[dict[str, Any]] = mapped_column(comment="JSON object, see 3.1.")
    status: Mapped[TaskStatus] = mapped_column(server_default="pending")
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("100"), comment="Smaller is served first."
    )
    retries: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    scheduled_at: Mapped[dt.datetime | None] = mapped_column(comment="Planned start.")
    started_at: Mapped[dt.datetime | None] = mapped_column(comment="Actual start.")
    completed_at: Mapped[dt.datetime | None] = mapped_column(comment="End.")
    created_at: Mapped[dt.datetime] = _created_column()
    updated_at: Mapped[dt.datetime] = _updated_column()

    agent: Mapped[Agent] = relationship(back_populates="tasks")
    parent: Mapped[Task | None] = relationship(back_populates="children", remote_side="Task.id")
    children: Mapped[list[Task]] = relationship(back_populates="parent", passive_deletes=True)
    slices: Mapped[list[TaskSlice]] = relationship(
        back_populates="task", order_by="TaskSlice.slice_index", passive_deletes=True
    )


class TaskSlice(Base):
    """A step that a task is cut into."""

    __tablename__ = "task_slices"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_task_slices"),
        _task_reference("task_slices"),
        UniqueConstraint("task_id", "slice_index", name="uq_task_slices_task_id_slice_index"),
        CheckConstraint("slice_index >= 0", name="ck_task_slices_slice_index_non_negative"),
        _object_check("task_slices", "content"),
        Index("idx_task_slices_task", "task_id"),
        Index("idx_task_slices_task_index", "task_id", "slice_index"),
        {"comment": "The steps a task is cut into."},
    )

    id: Mapped[UUID] = _id_column()
    task_id: Mapped[UUID]
    slice_index: Mapped[int] = mapped_column(comment="Position, counted from 0.")
    content: Mapped[dict[str, Any]] = mapped_column(comment="JSON object, see 3.1.")
    status: Mapped[TaskStatus] = mapped_column(server_default="pending")
    created_at: Mapped[dt.datetime] = _created_column()
    updated_at: Mapped[dt.datetime] = _updated_column()

    task: Mapped[Task] = relationship(back_populates="slices")


class QueuedEvent(Base):
    """A task that waits to be picked up. A row is due once its `available_at` has passed."""

    __tablename__ = "event_queue"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_event_queue"),
        _task_reference("event_queue"),
        _object_check("event_queue", "payload"),
        CheckConstraint("priority >= 0", name="ck_event_queue_priority_non_negative"),
        CheckConstraint(
            "visibility_timeout > 0", name="ck_event_queue_visibility_timeout_positive"
        ),
        CheckConstraint("attempts >= 0", name="ck_event_queue_attempts_non_negative"),
        CheckConstraint("max_attempts > 0", name="ck_event_queue_max_attempts_positive"),
        CheckConstraint("attempts <= max_attempts", name="ck_event_queue_attempts_within_max"),
        Index("idx_event_queue_available", "available_at"),
        Index("idx_event_queue_task", "task_id"),
        Index("idx_event_queue_priority_available", "priority", "available_at"),
        {"comment": "Tasks waiting to be picked up."},
    )

    id: Mapped[UUID] = _id_column()
    task_id: Mapped[UUID]
    payload: Mapped[dict[str, Any]] = mapped_column(
        comment="Snapshot of what the worker needs, a JSON object."
    )
    priority: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("100"), comment="Smaller is served first."
    )
    available_at: Mapped[dt.datetime] = mapped_column(
        server_default=text("now()"), comment="Not handed out before; moved forward by each claim."
    )
    visibility_timeout: Mapped[int] = mapped_column(
        server_default=text("300"), comment="Seconds a claimed row stays hidden."
    )
    attempts: Mapped[int] = mapped_column(
        SmallInteger, server_default=text("0"), comment="Claims so far."
    )
    max_attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("3"))
    created_at: Mapped[dt.datetime] = _created_column()
    updated_at: Mapped[dt.datetime] = _updated_column()

    task: Mapped[Task] = relationship()


class Tool(Base):
    """A tool that agents may call, identified by name and version."""

    __tablename__ = "tools"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_tools"),
        UniqueConstraint("name", "version", name="uq_tools_name_version"),
        _not_blank_check("tools", "name"),
        _not_blank_check("tools", "version"),
        _object_check("tools", "schema"),
        Index("idx_tools_name", "name"),
        Index("idx_tools_execution_mode", "execution_mode"),
        {"comment": "The tools agents may call, by name and version."},
    )

    id: Mapped[UUID] = _id_column()
    name: Mapped[str]
    version: Mapped[str] = mapped_column(server_default="v1.0.0")
    execution_mode: Mapped[ToolMode] = mapped_column(server_default="cloud")
    schema: Mapped[dict[str, Any]] = mapped_column(
        comment="JSON Schema of the arguments, a JSON object."
    )
    description: Mapped[str | None]
    created_at: Mapped[dt.datetime] = _created_column()
    updated_at: Mapped[dt.datetime] = _updated_column()

    keywords: Mapped[list[ToolKeyword]] = relationship(back_populates="tool", passive_deletes=True)


class ToolKeyword(Base):
    """A word by which a tool is found. Searches match it by trigram similarity."""

    __tablename__ = "tool_keywords"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_tool_keywords"),
        ForeignKeyConstraint(
            ["tool_id"], ["tools.id"], name="fk_tool_keywords_tool_id_tools", ondelete="CASCADE"
        ),
        UniqueConstraint("tool_id", "keyword", name="uq_tool_keywords_tool_id_keyword"),
        _not_blank_check("tool_keywords", "keyword"),
        Index(
            "idx_tool_keywords_keyword",
            "keyword",
            postgresql_using="gin",
            postgresql_ops={"keyword": "gin_trgm_ops"},
        ),
        Index("idx_tool_keywords_tool", "tool_id"),
        {"comment": "Words a tool is found by, matched by trigram similarity."},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    tool_id: Mapped[UUID]
    keyword: Mapped[str]

    tool: Mapped[Tool] = relationship(back_populates="keywords")


class TaskResult(Base):
    """The result of a tool or of a task. A row is written once and never changed."""

    __tablename__ = "task_results"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_task_results"),
        _task_reference("task_results"),
        ForeignKeyConstraint(
            ["tool_id"], ["tools.id"], name="fk_task_results_tool_id_tools", ondelete="SET NULL"
        ),
        Index("idx_task_results_task", "task_id"),
        Index("idx_task_results_tool", "tool_id"),
        Index("idx_task_results_type", "result_type"),
        Index("idx_task_results_created", "created_at"),
        {"comment": "What tools and tasks produced."},
    )

    id: Mapped[UUID] = _id_column()
    task_id: Mapped[UUID]
    tool_id: Mapped[UUID | None] = mapped_column(
        comment="The tool that produced it, while it exists."
    )
    result_type: Mapped[ResultType]
    data: Mapped[Any] = mapped_column(comment="Any JSON value.", nullable=False)
    created_at: Mapped[dt.datetime] = _created_column()


class ReviewRecord(Base):
    """A judgement of a model or a person on a task's outcome. A row is written once."""

    __tablename__ = "review_records"
    __table_args__ = (
        PrimaryKeyConstraint("id", name="pk_review_records"),
        _task_reference("review_records"),
        CheckConstraint("score >= 0 AND score <= 100", name="ck_review_records_score_range"),
        _not_blank_check("review_records", "reviewer"),
        Index("idx_review_status", "status"),
        Index("idx_review_task", "task_id"),
        Index("idx_review_created", "created_at"),
        {"comment": "Judgements on a task's outcome, by a model or a person."},
    )

    id: Mapped[UUID] = _id_column()
    task_id: Mapped[UUID]
    status: Mapped[ReviewStatus]
    score: Mapped[Decimal | None] = mapped_column(Numeric(5, 2), comment="0 to 100.")
    reviewer: Mapped[str] = mapped_column(comment="Model name or person.")
    created_at: Mapped[dt.datetime] = _created_column()
