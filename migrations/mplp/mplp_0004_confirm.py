"""Confirmations, their workflows, steps and escalations, the audit trail and attachments."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "mplp_0004_confirm"
down_revision = "mplp_0003_role"
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
    _confirmations()
    _approval_workflows()
    _approval_steps()
    _escalation_rules()
    _audit_trails()
    _confirm_attachments()


def downgrade() -> None:
    op.drop_table("mplp_confirm_attachments")
    op.drop_table("mplp_audit_trails")
    op.drop_table("mplp_escalation_rules")
    op.drop_table("mplp_approval_steps")
    op.drop_table("mplp_approval_workflows")
    op.drop_table("mplp_confirmations")


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    """Text of up to 32 characters with a CHECK on its values."""
    return sa.Enum(
        *values, native_enum=False, create_constraint=True, length=32, name=f"ck_{table}_{column}"
    )


def _confirmations() -> None:
    op.create_table(
        "mplp_confirmations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("confirm_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=True),
        sa.Column(
            "confirmation_type",
            _choice(
                "mplp_confirmations",
                "confirmation_type",
                "plan_approval",
                "task_approval",
                "milestone_confirmation",
                "risk_acceptance",
                "resource_allocation",
                "emergency_approval",
            ),
            nullable=False,
        ),
        sa.Column(
            "status",
            _choice(
                "mplp_confirmations",
                "status",
                "pending",
                "in_review",
                "approved",
                "rejected",
                "cancelled",
                "expired",
            ),
            server_default="pending",
            nullable=False,
        ),
        sa.Column(
            "priority",
            _choice("mplp_confirmations", "priority", "critical", "high", "medium", "low"),
            server_default="medium",
            nullable=False,
        ),
        sa.Column("requester", DOCUMENT, nullable=True),
        sa.Column("subject", DOCUMENT, nullable=True),
        sa.Column("risk_assessment", DOCUMENT, nullable=True),
        sa.Column("notification_settings", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_confirmations"),
        sa.UniqueConstraint("confirm_id", name="uq_mplp_confirmations_confirm_id"),
        **MARIADB,
    )
    op.create_index("IDX_confirmations_context_id", "mplp_confirmations", ["context_id"])
    op.create_index("IDX_confirmations_plan_id", "mplp_confirmations", ["plan_id"])
    op.create_index("IDX_confirmations_type", "mplp_confirmations", ["confirmation_type"])
    op.create_index("IDX_confirmations_status", "mplp_confirmations", ["status"])
    op.create_index("IDX_confirmations_priority", "mplp_confirmations", ["priority"])
    op.create_index("IDX_confirmations_expires_at", "mplp_confirmations", ["expires_at"])


def _approval_workflows() -> None:
    op.create_table(
        "mplp_approval_workflows",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("workflow_id", sa.String(100), nullable=False),
        sa.Column("confirm_id", sa.String(100), nullable=False),
        sa.Column(
            "workflow_type",
            _choice(
                "mplp_approval_workflows",
                "workflow_type",
                "single_approver",
                "sequential",
                "parallel",
                "consensus",
                "escalation",
            ),
            nullable=False,
        ),
        sa.Column("current_step", sa.Integer(), nullable=True),
        sa.Column("total_steps", sa.Integer(), nullable=False),
        sa.Column("completed_steps", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("rejected_steps", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_approval_workflows"),
        sa.UniqueConstraint("workflow_id", name="uq_mplp_approval_workflows_workflow_id"),
        sa.ForeignKeyConstraint(
            ["confirm_id"],
            ["mplp_confirmations.confirm_id"],
            name="FK_workflows_confirmation",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_workflows_confirm_id", "mplp_approval_workflows", ["confirm_id"])
    op.create_index("IDX_workflows_type", "mplp_approval_workflows", ["workflow_type"])


def _approval_steps() -> None:
    op.create_table(
        "mplp_approval_steps",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("step_id", sa.String(100), nullable=False),
        sa.Column("workflow_id", sa.String(100), nullable=False),
        sa.Column("step_order", sa.Integer(), nullable=False),
        sa.Column("approver", DOCUMENT, nullable=False),
        sa.Column("approval_criteria", DOCUMENT, nullable=True),
        sa.Column(
            "status",
            _choice(
                "mplp_approval_steps",
                "status",
                "pending",
                "approved",
                "rejected",
                "delegated",
                "skipped",
            ),
            server_default="pending",
            nullable=False,
        ),
        sa.Column("decision", DOCUMENT, nullable=True),
        sa.Column("timeout_duration", sa.Integer(), nullable=True),
        sa.Column(
            "timeout_unit",
            _choice("mplp_approval_steps", "timeout_unit", "minutes", "hours", "days"),
            nullable=True,
        ),
        sa.Column(
            "timeout_action",
            _choice(
                "mplp_approval_steps",
                "timeout_action",
                "auto_approve",
                "auto_reject",
                "escalate",
                "extend",
            ),
            nullable=True,
        ),
        sa.Column("timeout_at", TIMESTAMP, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_approval_steps"),
        sa.UniqueConstraint("step_id", name="uq_mplp_approval_steps_step_id"),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["mplp_approval_workflows.workflow_id"],
            name="FK_steps_workflow",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_steps_workflow_id", "mplp_approval_steps", ["workflow_id"])
    op.create_index("IDX_steps_order", "mplp_approval_steps", ["step_order"])
    op.create_index("IDX_steps_status", "mplp_approval_steps", ["status"])
    op.create_index("IDX_steps_timeout_at", "mplp_approval_steps", ["timeout_at"])


def _escalation_rules() -> None:
    op.create_table(
        "mplp_escalation_rules",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("rule_id", sa.String(100), nullable=False),
        sa.Column("workflow_id", sa.String(100), nullable=False),
        sa.Column(
            "trigger",
            _choice("mplp_escalation_rules", "trigger", "timeout", "rejection", "manual", "system"),
            nullable=False,
        ),
        sa.Column("escalate_to", DOCUMENT, nullable=False),
        sa.Column("notification_delay", sa.Integer(), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_escalation_rules"),
        sa.UniqueConstraint("rule_id", name="uq_mplp_escalation_rules_rule_id"),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["mplp_approval_workflows.workflow_id"],
            name="FK_rules_workflow",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_rules_workflow_id", "mplp_escalation_rules", ["workflow_id"])
    op.create_index("IDX_rules_trigger", "mplp_escalation_rules", ["trigger"])


def _audit_trails() -> None:
    op.create_table(
        "mplp_audit_trails",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(100), nullable=False),
        sa.Column("confirm_id", sa.String(100), nullable=False),
        sa.Column("timestamp", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column(
            "event_type",
            _choice(
                "mplp_audit_trails",
                "event_type",
                "created",
                "updated",
                "approved",
                "rejected",
                "escalated",
                "cancelled",
                "timeout",
            ),
            nullable=False,
        ),
        sa.Column("actor", DOCUMENT, nullable=False),
        sa.Column("changes", DOCUMENT, nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_audit_trails"),
        sa.UniqueConstraint("event_id", name="uq_mplp_audit_trails_event_id"),
        sa.ForeignKeyConstraint(
            ["confirm_id"],
            ["mplp_confirmations.confirm_id"],
            name="FK_audit_confirmation",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_audit_confirm_id", "mplp_audit_trails", ["confirm_id"])
    op.create_index("IDX_audit_event_type", "mplp_audit_trails", ["event_type"])
    op.create_index("IDX_audit_timestamp", "mplp_audit_trails", ["timestamp"])


def _confirm_attachments() -> None:
    op.create_table(
        "mplp_confirm_attachments",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("file_id", sa.String(100), nullable=False),
        sa.Column("confirm_id", sa.String(100), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("mime_type", sa.String(100), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("storage_path", sa.String(255), nullable=False),
        sa.Column("uploaded_by", sa.String(100), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_confirm_attachments"),
        sa.UniqueConstraint("file_id", name="uq_mplp_confirm_attachments_file_id"),
        sa.ForeignKeyConstraint(
            ["confirm_id"],
            ["mplp_confirmations.confirm_id"],
            name="FK_attachments_confirmation",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_attachments_confirm_id", "mplp_confirm_attachments", ["confirm_id"])
    op.create_index("IDX_attachments_mime_type", "mplp_confirm_attachments", ["mime_type"])
