"""SQLAlchemy tables of agentic_projects, as the revisions create them; what queries are built with.

Triggers and functions are no part of the metadata.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    TIMESTAMP,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()


def _id() -> Column[object]:
    return Column("id", Uuid, server_default=text("gen_random_uuid()"), nullable=False)


def _time(name: str, comment: str | None = None, *, optional: bool = False) -> Column[object]:
    default = None if optional else text("now()")
    return Column(name, TIMESTAMP(timezone=True), server_default=default, nullable=optional, comment=comment)


def _json(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, JSONB, server_default=text("'{}'::jsonb"), nullable=False, comment=comment)


def _texts(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, ARRAY(Text), server_default=text("'{}'::text[]"), nullable=False, comment=comment)


def _score(name: str) -> Column[object]:
    return Column(name, Numeric(5, 4), server_default=text("0.0"), nullable=False, comment="0 to 1.")


def _in(table: str, column: str, values: str) -> CheckConstraint:
    listed = ", ".join(repr(value) for value in values.split())
    return CheckConstraint(f"{column} IN ({listed})", name=f"ck_{table}_{column}")


def _object(table: str, column: str) -> CheckConstraint:
    return CheckConstraint(f"jsonb_typeof({column}) = 'object'", name=f"ck_{table}_{column}_object")


def _no_null(table: str, column: str) -> CheckConstraint:
    return CheckConstraint(f"array_position({column}, NULL) IS NULL", name=f"ck_{table}_{column}_no_null")


def _fraction(table: str, column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} >= 0 AND {column} <= 1", name=f"ck_{table}_{column}_range")


def _not_blank(table: str, column: str) -> CheckConstraint:
    return CheckConstraint(rf"{column} ~ '\S'", name=f"ck_{table}_{column}_not_blank")


def _gin(name: str, column: str) -> Index:
    return Index(name, column, postgresql_using="gin")


def _newest(name: str, column: str) -> Index:
    return Index(name, text(f"{column} DESC"))


project_contexts = Table(
    "project_contexts",
    metadata,
    _id(),
    Column("name", String(255), nullable=False),
    Column("type", String(50), nullable=False, comment="Kind of software."),
    Column("status", String(20), server_default="active", nullable=False),
    Column("owner_id", String(255), nullable=False, comment="User or team, as the surrounding system names it."),
    _json("codebase", "File name to content."),
    _texts("dependencies", "Package requirements."),
    _json("environment_vars", "Variable to value; values are references to a secret store, not secrets."),
    _json("deployment_config"),
    _score("test_coverage"),
    _score("security_score"),
    _score("performance_score"),
    _time("created_at"),
    _time("updated_at", "Set by trigger."),
    _time("last_deployed_at", optional=True),
    PrimaryKeyConstraint("id", name="pk_project_contexts"),
    _not_blank("project_contexts", "name"),
    _in("project_contexts", "type", "api web_app mobile_backend data_pipeline microservice"),
    _in("project_contexts", "status", "active archived deleted"),
    *(_object("project_contexts", column) for column in ("codebase", "environment_vars", "deployment_config")),
    _no_null("project_contexts", "dependencies"),
    *(_fraction("project_contexts", column) for column in ("test_coverage", "security_score", "performance_score")),
    Index("idx_project_contexts_owner_id", "owner_id"),
    Index("idx_project_contexts_status", "status"),
    Index("idx_project_contexts_type", "type"),
    _newest("idx_project_contexts_created_at", "created_at"),
    _newest("idx_project_contexts_updated_at", "updated_at"),
    _gin("idx_project_contexts_codebase", "codebase"),
    _gin("idx_project_contexts_environment_vars", "environment_vars"),
    Index("idx_project_contexts_owner_status", "owner_id", "status"),
    comment="The full state of a project across iterations.",
)

modifications = Table(
    "modifications",
    metadata,
    _id(),
    Column("project_id", Uuid, nullable=False),
    Column("request", Text, nullable=False, comment="What was asked for, in natural language."),
    Column("requested_by", String(255), nullable=False),
    _time("requested_at"),
    _json("impact_analysis"),
    _texts("affected_files"),
    Column("status", String(20), server_default="pending", nullable=False, comment="See 3.1."),
    _time("applied_at", "Set exactly when applied.", optional=True),
    _json("modified_files", "File name to new content."),
    _json("test_results"),
    PrimaryKeyConstraint("id", name="pk_modifications"),
    ForeignKeyConstraint(
        ["project_id"], ["project_contexts.id"], name="fk_modifications_project_id_project_contexts", ondelete="CASCADE"
    ),
    _not_blank("modifications", "request"),
    _in("modifications", "status", "pending approved applied failed rejected"),
    CheckConstraint("(status = 'applied') = (applied_at IS NOT NULL)", name="ck_modifications_applied_at"),
    *(_object("modifications", column) for column in ("impact_analysis", "modified_files", "test_results")),
    _no_null("modifications", "affected_files"),
    Index("idx_modifications_project_id", "project_id"),
    Index("idx_modifications_requested_by", "requested_by"),
    Index("idx_modifications_status", "status"),
    _newest("idx_modifications_requested_at", "requested_at"),
    _gin("idx_modifications_impact_analysis", "impact_analysis"),
    _gin("idx_modifications_test_results", "test_results"),
    Index("idx_modifications_project_status", "project_id", "status"),
    comment="Change requests to a project, their analysis and their outcome.",
)

templates = Table(
    "templates",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, comment="Unique."),
    Column("description", Text, server_default="", nullable=False),
    Column("category", String(50), nullable=False),
    _json("files", "File name to template content."),
    _texts("required_vars", "Variables the user must give."),
    _texts("optional_vars", "Variables the user may give."),
    _texts("tech_stack"),
    Column("estimated_setup_time", Integer, server_default=text("15"), nullable=False, comment="Minutes."),
    Column("complexity", String(20), server_default="medium", nullable=False),
    _texts("tags"),
    _time("created_at"),
    _time("updated_at", "Set by trigger."),
    PrimaryKeyConstraint("id", name="pk_templates"),
    UniqueConstraint("name", name="uq_templates_name"),
    _not_blank("templates", "name"),
    _in("templates", "category", "api web mobile data microservice"),
    _object("templates", "files"),
    *(_no_null("templates", column) for column in ("required_vars", "optional_vars", "tech_stack", "tags")),
    CheckConstraint("estimated_setup_time > 0", name="ck_templates_estimated_setup_time_positive"),
    _in("templates", "complexity", "simple medium complex"),
    Index("idx_templates_category", "category"),
    Index("idx_templates_complexity", "complexity"),
    _newest("idx_templates_created_at", "created_at"),
    _gin("idx_templates_files", "files"),
    _gin("idx_templates_tech_stack", "tech_stack"),
    _gin("idx_templates_tags", "tags"),
    comment="What new projects start from.",
)
