"""Roles, permissions, inheritance, delegation, assignments and their audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "mplp_0003_role"
down_revision = "mplp_0002_plan"
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
    _roles()
    _permissions()
    _role_inheritance()
    _role_delegations()
    _user_role_assignments()
    _role_audit_logs()


def downgrade() -> None:
    op.drop_table("mplp_role_audit_logs")
    op.drop_table("mplp_user_role_assignments")
    op.drop_table("mplp_role_delegations")
    op.drop_table("mplp_role_inheritance")
    op.drop_table("mplp_permissions")
    op.drop_table("mplp_roles")


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    """Text of up to 32 characters with a CHECK on its values."""
    return sa.Enum(
        *values, native_enum=False, create_constraint=True, length=32, name=f"ck_{table}_{column}"
    )


def _roles() -> None:
    op.create_table(
        "mplp_roles",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("role_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "role_type",
            _choice(
                "mplp_roles",
                "role_type",
                "system",
                "organizational",
                "functional",
                "project",
                "temporary",
            ),
            nullable=False,
        ),
        sa.Column(
            "status",
            _choice("mplp_roles", "status", "active", "inactive", "deprecated", "suspended"),
            server_default="active",
            nullable=False,
        ),
        sa.Column(
            "scope_level",
            _choice(
                "mplp_roles",
                "scope_level",
                "global",
                "organization",
                "project",
                "team",
                "individual",
            ),
            server_default="project",
            nullable=False,
        ),
        sa.Column("scope_context_ids", DOCUMENT, nullable=True),
        sa.Column("scope_plan_ids", DOCUMENT, nullable=True),
        sa.Column("resource_constraints", DOCUMENT, nullable=True),
        sa.Column("attributes", DOCUMENT, nullable=True),
        sa.Column("validation_rules", DOCUMENT, nullable=True),
        sa.Column("audit_settings", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_roles"),
        sa.UniqueConstraint("role_id", name="uq_mplp_roles_role_id"),
        **MARIADB,
    )
    op.create_index("IDX_roles_context_id", "mplp_roles", ["context_id"])
    op.create_index("IDX_roles_name", "mplp_roles", ["name"])
    op.create_index("IDX_roles_status", "mplp_roles", ["status"])
    op.create_index("IDX_roles_type", "mplp_roles", ["role_type"])
    op.create_index("IDX_roles_scope", "mplp_roles", ["scope_level"])


def _permissions() -> None:
    op.create_table(
        "mplp_permissions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("permission_id", sa.String(100), nullable=False),
        sa.Column("role_id", sa.String(100), nullable=False),
        sa.Column(
            "resource_type",
            _choice(
                "mplp_permissions",
                "resource_type",
                "context",
                "plan",
                "task",
                "confirmation",
                "trace",
                "role",
                "extension",
                "system",
            ),
            nullable=False,
        ),
        sa.Column("resource_id", sa.String(100), nullable=False),
        sa.Column("actions", DOCUMENT, nullable=False),
        sa.Column("conditions", DOCUMENT, nullable=True),
        sa.Column(
            "grant_type",
            _choice(
                "mplp_permissions", "grant_type", "direct", "inherited", "delegated", "temporary"
            ),
            server_default="direct",
            nullable=False,
        ),
        sa.Column("expiry", TIMESTAMP, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_permissions"),
        sa.UniqueConstraint("permission_id", name="uq_mplp_permissions_permission_id"),
        sa.ForeignKeyConstraint(
            ["role_id"], ["mplp_roles.role_id"], name="FK_permissions_role", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_permissions_role_id", "mplp_permissions", ["role_id"])
    op.create_index(
        "IDX_permissions_resource", "mplp_permissions", ["resource_type", "resource_id"]
    )
    op.create_index("IDX_permissions_grant_type", "mplp_permissions", ["grant_type"])
    op.create_index("IDX_permissions_expiry", "mplp_permissions", ["expiry"])


def _role_inheritance() -> None:
    op.create_table(
        "mplp_role_inheritance",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("inheritance_id", sa.String(100), nullable=False),
        sa.Column("role_id", sa.String(100), nullable=False),
        sa.Column("parent_role_id", sa.String(100), nullable=False),
        sa.Column(
            "inheritance_type",
            _choice("mplp_role_inheritance", "inheritance_type", "full", "partial", "conditional"),
            server_default="full",
            nullable=False,
        ),
        sa.Column("excluded_permissions", DOCUMENT, nullable=True),
        sa.Column("conditions", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_role_inheritance"),
        sa.UniqueConstraint("inheritance_id", name="uq_mplp_role_inheritance_inheritance_id"),
        sa.ForeignKeyConstraint(
            ["role_id"], ["mplp_roles.role_id"], name="FK_inheritance_role", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_role_id"],
            ["mplp_roles.role_id"],
            name="FK_inheritance_parent_role",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_inheritance_role_id", "mplp_role_inheritance", ["role_id"])
    op.create_index("IDX_inheritance_parent_role_id", "mplp_role_inheritance", ["parent_role_id"])
    op.create_index("IDX_inheritance_type", "mplp_role_inheritance", ["inheritance_type"])


def _role_delegations() -> None:
    op.create_table(
        "mplp_role_delegations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("delegation_id", sa.String(100), nullable=False),
        sa.Column("role_id", sa.String(100), nullable=False),
        sa.Column("delegated_to", sa.String(100), nullable=False),
        sa.Column("permissions", DOCUMENT, nullable=False),
        sa.Column("start_time", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("end_time", TIMESTAMP, nullable=True),
        sa.Column(
            "status",
            _choice("mplp_role_delegations", "status", "active", "suspended", "revoked", "expired"),
            server_default="active",
            nullable=False,
        ),
        sa.Column("delegation_constraints", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_role_delegations"),
        sa.UniqueConstraint("delegation_id", name="uq_mplp_role_delegations_delegation_id"),
        sa.ForeignKeyConstraint(
            ["role_id"], ["mplp_roles.role_id"], name="FK_delegations_role", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_delegations_role_id", "mplp_role_delegations", ["role_id"])
    op.create_index("IDX_delegations_delegated_to", "mplp_role_delegations", ["delegated_to"])
    op.create_index("IDX_delegations_status", "mplp_role_delegations", ["status"])
    op.create_index("IDX_delegations_end_time", "mplp_role_delegations", ["end_time"])


def _user_role_assignments() -> None:
    op.create_table(
        "mplp_user_role_assignments",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("assignment_id", sa.String(100), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("role_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=True),
        sa.Column("assigned_by", sa.String(100), nullable=False),
        sa.Column("assigned_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=True),
        sa.Column(
            "status",
            _choice(
                "mplp_user_role_assignments", "status", "active", "suspended", "expired", "revoked"
            ),
            server_default="active",
            nullable=False,
        ),
        sa.Column("conditions", DOCUMENT, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_user_role_assignments"),
        sa.UniqueConstraint("assignment_id", name="uq_mplp_user_role_assignments_assignment_id"),
        sa.ForeignKeyConstraint(
            ["role_id"], ["mplp_roles.role_id"], name="FK_assignments_role", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_assignments_user_id", "mplp_user_role_assignments", ["user_id"])
    op.create_index("IDX_assignments_role_id", "mplp_user_role_assignments", ["role_id"])
    op.create_index("IDX_assignments_context_id", "mplp_user_role_assignments", ["context_id"])
    op.create_index("IDX_assignments_status", "mplp_user_role_assignments", ["status"])
    op.create_index("IDX_assignments_expires_at", "mplp_user_role_assignments", ["expires_at"])


def _role_audit_logs() -> None:
    op.create_table(
        "mplp_role_audit_logs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(100), nullable=False),
        sa.Column("event_type", sa.String(100), nullable=False),
        sa.Column("role_id", sa.String(100), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=True),
        sa.Column("context_id", sa.String(100), nullable=True),
        sa.Column("actor_id", sa.String(100), nullable=True),
        sa.Column("timestamp", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("details", DOCUMENT, nullable=False),
        sa.Column(
            "severity",
            _choice("mplp_role_audit_logs", "severity", "warning", "error", "critical"),
            nullable=False,
        ),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_role_audit_logs"),
        sa.UniqueConstraint("event_id", name="uq_mplp_role_audit_logs_event_id"),
        sa.ForeignKeyConstraint(
            ["role_id"], ["mplp_roles.role_id"], name="FK_audit_logs_role", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_audit_logs_role_id", "mplp_role_audit_logs", ["role_id"])
    op.create_index("IDX_audit_logs_event_type", "mplp_role_audit_logs", ["event_type"])
    op.create_index("IDX_audit_logs_user_id", "mplp_role_audit_logs", ["user_id"])
    op.create_index("IDX_audit_logs_timestamp", "mplp_role_audit_logs", ["timestamp"])
    op.create_index("IDX_audit_logs_severity", "mplp_role_audit_logs", ["severity"])
