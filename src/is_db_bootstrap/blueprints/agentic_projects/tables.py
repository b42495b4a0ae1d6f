"""SQLAlchemy tables of agentic_projects, as the revisions create them.

Queries are built with these tables. Triggers and functions are not part of the metadata.
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


def _id_column() -> Column[object]:
    return Column("id", Uuid, server_default=text("gen_random_uuid()"), nullable=False)


def _time_column(
    name: str,
    comment: str | None = None,
    *,
    optional: bool = False,
) -> Column[object]:
    """A point in time. A required time defaults to the time of the insert."""
    default = None if optional else text("now()")
    return Column(
        name,
        TIMESTAMP(timezone=True),
        server_default=default,
        nullable=optional,
        comment=comment,
    )


def _json_column(name: str, comment: str | None = None) -> Column[object]:
    """A JSON object, empty by default."""
    empty = text("'{}'::jsonb")
    return Column(name, JSONB, server_default=empty, nullable=False, comment=comment)


def _texts_column(name: str, comment: str | None = None) -> Column[object]:
    """An array of texts, empty by default."""
    empty = text("'{}'::text[]")
    return Column(name, ARRAY(Text), server_default=empty, nullable=False, comment=comment)


def _score_column(name: str) -> Column[object]:
    zero = text("0.0")
    return Column(name, Numeric(5, 4), server_default=zero, nullable=False, comment="0 to 1.")


def _values_check(table: str, column: str, *values: str) -> CheckConstraint:
    """Only these values are accepted."""
    listed = ", ".join(repr(value) for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"ck_{table}_{column}")


def _object_check(table: str, column: str) -> CheckConstraint:
    """The JSON value is an object."""
    condition = f"jsonb_typeof({column}) = 'object'"
    return CheckConstraint(condition, name=f"ck_{table}_{column}_object")


def _no_null_check(table: str, column: str) -> CheckConstraint:
    """The array holds no NULL."""
    condition = f"array_position({column}, NULL) IS NULL"
    return CheckConstraint(condition, name=f"ck_{table}_{column}_no_null")


def _range_check(table: str, column: str) -> CheckConstraint:
    """The number is between 0 and 1, both included."""
    condition = f"{column} >= 0 AND {column} <= 1"
    return CheckConstraint(condition, name=f"ck_{table}_{column}_range")


def _not_blank_check(table: str, column: str) -> CheckConstraint:
    """The text holds more than white space."""
    return CheckConstraint(rf"{column} ~ '\S'", name=f"ck_{table}_{column}_not_blank")


def _gin_index(name: str, column: str) -> Index:
    return Index(name, column, postgresql_using="gin")


def _newest_first_index(name: str, column: str) -> Index:
    return Index(name, text(f"{column} DESC"))


project_contexts = Table(
    "project_contexts",
    metadata,
    _id_column(),
    Column("name", String(255), nullable=False),
    Column("type", String(50), nullable=False, comment="Kind of software."),
    Column("status", String(20), server_default="active", nullable=False),
    Column(
        "owner_id",
        String(255),
        nullable=False,
        comment="User or team, as the surrounding system names it.",
    ),
    _json_column("codebase", "File name to content."),
    _texts_column("dependencies", "Package requirements."),
    _json_column(
        "environment_vars",
        "Variable to value; values are references to a secret store, not secrets.",
    ),
    _json_column("deployment_config"),
    _score_column("test_coverage"),
    _score_column("security_score"),
    _score_column("performance_score"),
    _time_column("created_at"),
    _time_column("updated_at", "Set by trigger."),
    _time_column("last_deployed_at", optional=True),
    PrimaryKeyConstraint("id", name="pk_project_contexts"),
    _not_blank_check("project_contexts", "name"),
    _values_check(
        "project_contexts",
        "type",
        "api",
        "web_app",
        "mobile_backend",
        "data_pipeline",
        "microservice",
    ),
    _values_check("project_contexts", "status", "active", "archived", "deleted"),
    _object_check("project_contexts", "codebase"),
    _object_check("project_contexts", "environment_vars"),
    _object_check("project_contexts", "deployment_config"),
    _no_null_check("project_contexts", "dependencies"),
    _range_check("project_contexts", "test_coverage"),
    _range_check("project_contexts", "security_score"),
    _range_check("project_contexts", "performance_score"),
    Index("idx_project_contexts_owner_id", "owner_id"),
    Index("idx_project_contexts_status", "status"),
    Index("idx_project_contexts_type", "type"),
    _newest_first_index("idx_project_contexts_created_at", "created_at"),
    _newest_first_index("idx_project_contexts_updated_at", "updated_at"),
    _gin_index("idx_project_contexts_codebase", "codebase"),
    _gin_index("idx_project_contexts_environment_vars", "environment_vars"),
    Index("idx_project_contexts_owner_status", "owner_id", "status"),
    comment="The full state of a project across iterations.",
)

modifications = Table(
    "modifications",
    metadata,
    _id_column(),
    Column("project_id", Uuid, nullable=False),
    Column("request", Text, nullable=False, comment="What was asked for, in natural language."),
    Column("requested_by", String(255), nullable=False),
    _time_column("requested_at"),
    _json_column("impact_analysis"),
    _texts_column("affected_files"),
    Column("status", String(20), server_default="pending", nullable=False, comment="See 3.1."),
    _time_column("applied_at", "Set exactly when applied.", optional=True),
    _json_column("modified_files", "File name to new content."),
    _json_column("test_results"),
    PrimaryKeyConstraint("id", name="pk_modifications"),
    ForeignKeyConstraint(
        ["project_id"],
        ["project_contexts.id"],
        name="fk_modifications_project_id_project_contexts",
        ondelete="CASCADE",
    ),
    _not_blank_check("modifications", "request"),
    _values_check(
        "modifications", "status", "pending", "approved", "applied", "failed", "rejected"
    ),
    CheckConstraint(
        "(status = 'applied') = (applied_at IS NOT NULL)", name="ck_modifications_applied_at"
    ),
    _object_check("modifications", "impact_analysis"),
    _object_check("modifications", "modified_files"),
    _object_check("modifications", "test_results"),
    _no_null_check("modifications", "affected_files"),
    Index("idx_modifications_project_id", "project_id"),
    Index("idx_modifications_requested_by", "requested_by"),
    Index("idx_modifications_status", "status"),
    _newest_first_index("idx_modifications_requested_at", "requested_at"),
    _gin_index("idx_modifications_impact_analysis", "impact_analysis"),
    _gin_index("idx_modifications_test_results", "test_results"),
    Index("idx_modifications_project_status", "project_id", "status"),
    comment="Change requests to a project, their analysis and their outcome.",
)

templates = Table(
    "templates",
    metadata,
    _id_column(),
    Column("name", String(255), nullable=False, comment="Unique."),
    Column("description", Text, server_default="", nullable=False),
    Column("category", String(50), nullable=False),
    _json_column("files", "File name to template content."),
    _texts_column("required_vars", "Variables the user must give."),
    _texts_column("optional_vars", "Variables the user may give."),
    _texts_column("tech_stack"),
    Column(
        "estimated_setup_time",
        Integer,
        server_default=text("15"),
        nullable=False,
        comment="Minutes.",
    ),
    Column("complexity", String(20), server_default="medium", nullable=False),
    _texts_column("tags"),
    _time_column("created_at"),
    _time_column("updated_at", "Set by trigger."),
    PrimaryKeyConstraint("id", name="pk_templates"),
    UniqueConstraint("name", name="uq_templates_name"),
    _not_blank_check("templates", "name"),
    _values_check("templates", "category", "api", "web", "mobile", "data", "microservice"),
    _object_check("templates", "files"),
    _no_null_check("templates", "required_vars"),
    _no_null_check("templates", "optional_vars"),
    _no_null_check("templates", "tech_stack"),
    _no_null_check("templates", "tags"),
    CheckConstraint("estimated_setup_time > 0", name="ck_templates_estimated_setup_time_positive"),
    _values_check("templates", "complexity", "simple", "medium", "complex"),
    Index("idx_templates_category", "category"),
    Index("idx_templates_complexity", "complexity"),
    _newest_first_index("idx_templates_created_at", "created_at"),
    _gin_index("idx_templates_files", "files"),
    _gin_index("idx_templates_tech_stack", "tech_stack"),
    _gin_index("idx_templates_tags", "tags"),
    comment="What new projects start from.",
)
