"""Plans, their tasks and milestones, and how failures are resolved."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "mplp_0002_plan"
down_revision = "mplp_0001_context"
branch_labels = None
depends_on = None

#: Fractions of a second, which a plain MariaDB DATETIME drops.
TIMESTAMP = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
DOCUMENT = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True), "postgresql"
)
MARIADB = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}


def upgrade() -> None:
    _plans()
    _tasks()
    _task_dependencies()
    _milestones()
    _failure_resolvers()
    _failures()


def downgrade() -> None:
    op.drop_table("mplp_failures")
    op.drop_table("mplp_failure_resolvers")
    op.drop_table("mplp_milestones")
    op.drop_table("mplp_task_dependencies")
    op.drop_table("mplp_tasks")
    op.drop_table("mplp_plans")


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    """Text of up to 32 characters with a CHECK on its values."""
    return sa.Enum(
        *values, native_enum=False, create_constraint=True, length=32, name=f"ck_{table}_{column}"
    )


def _plans() -> None:
    op.create_table(
        "mplp_plans",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "status",
            _choice(
                "mplp_plans",
                "status",
                "draft",
                "approved",
                "active",
                "paused",
                "completed",
                "cancelled",
                "failed",
            ),
            server_default="draft",
            nullable=False,
        ),
        sa.Column(
            "priority",
            _choice("mplp_plans", "priority", "critical", "high", "medium", "low"),
            server_default="medium",
            nullable=False,
        ),
        sa.Column("start_date", TIMESTAMP, nullable=True),
        sa.Column("end_date", TIMESTAMP, nullable=True),
        sa.Column(
            "estimated_duration_value", sa.Integer(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column(
            "estimated_duration_unit",
            _choice(
                "mplp_plans",
                "estimated_duration_unit",
                "minutes",
                "hours",
                "days",
                "weeks",
                "months",
            ),
            server_default="days",
            nullable=False,
        ),
        sa.Column("actual_duration_value", sa.Integer(), nullable=True),
        sa.Column(
            "actual_duration_unit",
            _choice(
                "mplp_plans", "actual_duration_unit", "minutes", "hours", "days", "weeks", "months"
            ),
            nullable=True,
        ),
        sa.Column(
            "optimization_strategy",
            _choice(
                "mplp_plans",
                "optimization_strategy",
                "time_optimal",
                "resource_optimal",
                "cost_optimal",
                "quality_optimal",
                "balanced",
            ),
            nullable=True,
        ),
        sa.Column("optimization_constraints", DOCUMENT, nullable=True),
        sa.Column("optimization_parameters", DOCUMENT, nullable=True),
        sa.Column("risk_assessment", DOCUMENT, nullable=True),
        sa.Column("failure_resolver_config", DOCUMENT, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_plans"),
        sa.UniqueConstraint("plan_id", name="uq_mplp_plans_plan_id"),
        **MARIADB,
    )
    op.create_index("IDX_plans_context_id", "mplp_plans", ["context_id"])
    op.create_index("IDX_plans_status", "mplp_plans", ["status"])
    op.create_index("IDX_plans_priority", "mplp_plans", ["priority"])


def _tasks() -> None:
    op.create_table(
        "mplp_tasks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.String(100), nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=False),
        sa.Column("parent_task_id", sa.String(100), nullable=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "type",
            _choice("mplp_tasks", "type", "atomic", "composite", "milestone", "checkpoint"),
            server_default="atomic",
            nullable=False,
        ),
        sa.Column(
            "status",
            _choice(
                "mplp_tasks",
                "status",
                "pending",
                "ready",
                "running",
                "blocked",
                "completed",
                "failed",
                "skipped",
            ),
            server_default="pending",
            nullable=False,
        ),
        sa.Column(
            "priority",
            _choice("mplp_tasks", "priority", "critical", "high", "medium", "low"),
            server_default="medium",
            nullable=False,
        ),
        sa.Column("assignee_user_id", sa.String(100), nullable=True),
        sa.Column("assignee_role", sa.String(100), nullable=True),
        sa.Column("assignee_team", sa.String(100), nullable=True),
        sa.Column("estimated_effort_value", sa.Double(), nullable=True),
        sa.Column(
            "estimated_effort_unit",
            _choice("mplp_tasks", "estimated_effort_unit", "hours", "days", "story_points"),
            nullable=True,
        ),
        sa.Column("actual_effort_value", sa.Double(), nullable=True),
        sa.Column(
            "actual_effort_unit",
            _choice("mplp_tasks", "actual_effort_unit", "hours", "days", "story_points"),
            nullable=True,
        ),
        sa.Column("resources_required", DOCUMENT, nullable=True),
        sa.Column("acceptance_criteria", DOCUMENT, nullable=True),
        sa.Column("progress_percentage", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("actual_duration_minutes", sa.Integer(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("result_data", DOCUMENT, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("execution_context", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("started_at", TIMESTAMP, nullable=True),
        sa.Column("completed_at", TIMESTAMP, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_tasks"),
        sa.UniqueConstraint("task_id", name="uq_mplp_tasks_task_id"),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["mplp_plans.plan_id"], name="FK_tasks_plan", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_task_id"], ["mplp_tasks.task_id"], name="FK_tasks_parent", ondelete="SET NULL"
        ),
        **MARIADB,
    )
    op.create_index("IDX_tasks_plan_id", "mplp_tasks", ["plan_id"])
    op.create_index("IDX_tasks_parent_id", "mplp_tasks", ["parent_task_id"])
    op.create_index("IDX_tasks_status", "mplp_tasks", ["status"])
    op.create_index("IDX_tasks_priority", "mplp_tasks", ["priority"])
    op.create_index("IDX_tasks_assignee", "mplp_tasks", ["assignee_user_id"])


def _task_dependencies() -> None:
    op.create_table(
        "mplp_task_dependencies",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("dependency_id", sa.String(100), nullable=False),
        sa.Column("source_task_id", sa.String(100), nullable=False),
        sa.Column("target_task_id", sa.String(100), nullable=False),
        sa.Column(
            "dependency_type",
            _choice(
                "mplp_task_dependencies",
                "dependency_type",
                "finish_to_start",
                "start_to_start",
                "finish_to_finish",
                "start_to_finish",
            ),
            server_default="finish_to_start",
            nullable=False,
        ),
        sa.Column("lag_value", sa.Integer(), nullable=True),
        sa.Column(
            "lag_unit",
            _choice(
                "mplp_task_dependencies", "lag_unit", "minutes", "hours", "days", "weeks", "months"
            ),
            nullable=True,
        ),
        sa.Column(
            "criticality",
            _choice(
                "mplp_task_dependencies", "criticality", "blocking", "important", "nice_to_have"
            ),
            server_default="blocking",
            nullable=False,
        ),
        sa.Column("condition", sa.Text(), nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_task_dependencies"),
        sa.UniqueConstraint("dependency_id", name="uq_mplp_task_dependencies_dependency_id"),
        sa.ForeignKeyConstraint(
            ["source_task_id"],
            ["mplp_tasks.task_id"],
            name="FK_dependencies_source",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["target_task_id"],
            ["mplp_tasks.task_id"],
            name="FK_dependencies_target",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_dependencies_source", "mplp_task_dependencies", ["source_task_id"])
    op.create_index("IDX_dependencies_target", "mplp_task_dependencies", ["target_task_id"])
    op.create_index("IDX_dependencies_type", "mplp_task_dependencies", ["dependency_type"])


def _milestones() -> None:
    op.create_table(
        "mplp_milestones",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("milestone_id", sa.String(100), nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("target_date", TIMESTAMP, nullable=False),
        sa.Column(
            "status",
            _choice("mplp_milestones", "status", "upcoming", "at_risk", "achieved", "missed"),
            server_default="upcoming",
            nullable=False,
        ),
        sa.Column("success_criteria", DOCUMENT, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("dependencies", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_milestones"),
        sa.UniqueConstraint("milestone_id", name="uq_mplp_milestones_milestone_id"),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["mplp_plans.plan_id"], name="FK_milestones_plan", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_milestones_plan_id", "mplp_milestones", ["plan_id"])
    op.create_index("IDX_milestones_status", "mplp_milestones", ["status"])
    op.create_index("IDX_milestones_target_date", "mplp_milestones", ["target_date"])


def _failure_resolvers() -> None:
    op.create_table(
        "mplp_failure_resolvers",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("resolver_id", sa.String(100), nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=False),
        sa.Column("task_id", sa.String(100), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("strategies", DOCUMENT, nullable=False),
        sa.Column("retry_config", DOCUMENT, nullable=True),
        sa.Column("rollback_config", DOCUMENT, nullable=True),
        sa.Column("manual_intervention_config", DOCUMENT, nullable=True),
        sa.Column(
            "notification_channels", DOCUMENT, server_default=sa.text("'[]'"), nullable=False
        ),
        sa.Column(
            "performance_thresholds", DOCUMENT, server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("intelligent_diagnostics", DOCUMENT, nullable=True),
        sa.Column("vendor_integration", DOCUMENT, nullable=True),
        sa.Column("proactive_prevention", DOCUMENT, nullable=True),
        sa.Column("self_learning", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_failure_resolvers"),
        sa.UniqueConstraint("resolver_id", name="uq_mplp_failure_resolvers_resolver_id"),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["mplp_plans.plan_id"], name="FK_resolvers_plan", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["mplp_tasks.task_id"], name="FK_resolvers_task", ondelete="SET NULL"
        ),
        **MARIADB,
    )
    op.create_index("IDX_resolvers_plan_id", "mplp_failure_resolvers", ["plan_id"])
    op.create_index("IDX_resolvers_task_id", "mplp_failure_resolvers", ["task_id"])


def _failures() -> None:
    op.create_table(
        "mplp_failures",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("failure_id", sa.String(100), nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=False),
        sa.Column("task_id", sa.String(100), nullable=False),
        sa.Column("failure_type", sa.String(100), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column("root_cause_analysis", sa.Text(), nullable=True),
        sa.Column(
            "recovery_strategy",
            _choice(
                "mplp_failures",
                "recovery_strategy",
                "retry",
                "rollback",
                "skip",
                "manual_intervention",
            ),
            nullable=True,
        ),
        sa.Column("recovery_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("resolved", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("resolution_time", TIMESTAMP, nullable=True),
        sa.Column("diagnostics_data", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_failures"),
        sa.UniqueConstraint("failure_id", name="uq_mplp_failures_failure_id"),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["mplp_plans.plan_id"], name="FK_failures_plan", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["mplp_tasks.task_id"], name="FK_failures_task", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_failures_plan_id", "mplp_failures", ["plan_id"])
    op.create_index("IDX_failures_task_id", "mplp_failures", ["task_id"])
    op.create_index("IDX_failures_resolved", "mplp_failures", ["resolved"])
