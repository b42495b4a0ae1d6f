"""Contexts, the values they share, and sessions inside them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "mplp_0001_context"
down_revision = None
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
    _contexts()
    _shared_states()
    _context_sessions()


def downgrade() -> None:
    op.drop_table("mplp_context_sessions")
    op.drop_table("mplp_shared_states")
    op.drop_table("mplp_contexts")


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    """Text of up to 32 characters with a CHECK on its values."""
    return sa.Enum(
        *values, native_enum=False, create_constraint=True, length=32, name=f"ck_{table}_{column}"
    )


def _contexts() -> None:
    op.create_table(
        "mplp_contexts",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("agent_id", sa.String(100), nullable=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "status",
            _choice("mplp_contexts", "status", "active", "suspended", "completed", "terminated"),
            server_default="active",
            nullable=False,
        ),
        sa.Column(
            "lifecycle_stage",
            _choice(
                "mplp_contexts",
                "lifecycle_stage",
                "initializing",
                "active",
                "suspended",
                "degraded",
                "terminating",
                "terminated",
            ),
            server_default="initializing",
            nullable=False,
        ),
        sa.Column("parent_context_id", sa.String(100), nullable=True),
        sa.Column("session_data", DOCUMENT, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("tracepilot_context_id", sa.String(100), nullable=True),
        sa.Column("total_operations", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("total_state_changes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_contexts"),
        sa.UniqueConstraint("context_id", name="uq_mplp_contexts_context_id"),
        sa.ForeignKeyConstraint(
            ["parent_context_id"],
            ["mplp_contexts.context_id"],
            name="FK_contexts_parent",
            ondelete="SET NULL",
        ),
        **MARIADB,
    )
    op.create_index("IDX_contexts_context_id", "mplp_contexts", ["context_id"])
    op.create_index("IDX_contexts_user_status", "mplp_contexts", ["user_id", "status"])
    op.create_index(
        "IDX_contexts_lifecycle_updated", "mplp_contexts", ["lifecycle_stage", "updated_at"]
    )
    op.create_index("IDX_contexts_parent", "mplp_contexts", ["parent_context_id"])
    op.create_index("IDX_contexts_created_at", "mplp_contexts", ["created_at"])
    op.create_index("IDX_contexts_expires_at", "mplp_contexts", ["expires_at"])


def _shared_states() -> None:
    op.create_table(
        "mplp_shared_states",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("state_key", sa.String(255), nullable=False),
        sa.Column("state_value", DOCUMENT, nullable=False),
        sa.Column(
            "data_type",
            _choice(
                "mplp_shared_states",
                "data_type",
                "string",
                "number",
                "boolean",
                "object",
                "array",
                "binary",
                "encrypted",
            ),
            server_default="string",
            nullable=False,
        ),
        sa.Column(
            "access_level",
            _choice("mplp_shared_states", "access_level", "public", "private", "protected"),
            server_default="public",
            nullable=False,
        ),
        sa.Column("encryption_required", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column(
            "sync_priority",
            _choice("mplp_shared_states", "sync_priority", "high", "medium", "low"),
            server_default="medium",
            nullable=False,
        ),
        sa.Column("tags", DOCUMENT, server_default=sa.text("'[]'"), nullable=False),
        sa.Column("source_module", sa.String(100), nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_shared_states"),
        sa.ForeignKeyConstraint(
            ["context_id"],
            ["mplp_contexts.context_id"],
            name="FK_shared_states_context",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_shared_states_context", "mplp_shared_states", ["context_id"])
    op.create_index(
        "IDX_shared_states_access_level", "mplp_shared_states", ["context_id", "access_level"]
    )
    op.create_index(
        "IDX_shared_states_sync_priority", "mplp_shared_states", ["sync_priority", "updated_at"]
    )
    op.create_index("IDX_shared_states_expires_at", "mplp_shared_states", ["expires_at"])
    op.create_index(
        "IDX_shared_states_context_key",
        "mplp_shared_states",
        ["context_id", "state_key"],
        unique=True,
    )


def _context_sessions() -> None:
    op.create_table(
        "mplp_context_sessions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("session_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=False),
        sa.Column("agent_id", sa.String(100), nullable=True),
        sa.Column("last_active_at", TIMESTAMP, nullable=False),
        sa.Column("expires_at", TIMESTAMP, nullable=True),
        sa.Column("session_data", DOCUMENT, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("client_ip", sa.String(45), nullable=True),
        sa.Column("user_agent", sa.String(500), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_context_sessions"),
        sa.UniqueConstraint("session_id", name="uq_mplp_context_sessions_session_id"),
        sa.ForeignKeyConstraint(
            ["context_id"],
            ["mplp_contexts.context_id"],
            name="FK_sessions_context",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_sessions_session_id", "mplp_context_sessions", ["session_id"])
    op.create_index("IDX_sessions_context", "mplp_context_sessions", ["context_id"])
    op.create_index("IDX_sessions_user_expires", "mplp_context_sessions", ["user_id", "expires_at"])
    op.create_index(
        "IDX_sessions_agent_active", "mplp_context_sessions", ["agent_id", "last_active_at"]
    )
    op.create_index("IDX_sessions_is_active", "mplp_context_sessions", ["is_active"])
