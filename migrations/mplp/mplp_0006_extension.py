"""Extensions, their points, APIs, subscriptions, life cycles, dependencies and runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "mplp_0006_extension"
down_revision = "mplp_0005_trace"
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
    _extensions()
    _extension_points()
    _api_extensions()
    _event_subscriptions()
    _extension_lifecycles()
    _extension_dependencies()
    _extension_executions()


def downgrade() -> None:
    op.drop_table("mplp_extension_executions")
    op.drop_table("mplp_extension_dependencies")
    op.drop_table("mplp_extension_lifecycles")
    op.drop_table("mplp_event_subscriptions")
    op.drop_table("mplp_api_extensions")
    op.drop_table("mplp_extension_points")
    op.drop_table("mplp_extensions")


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    """Text of up to 32 characters with a CHECK on its values."""
    return sa.Enum(
        *values, native_enum=False, create_constraint=True, length=32, name=f"ck_{table}_{column}"
    )


def _extensions() -> None:
    op.create_table(
        "mplp_extensions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("version", sa.String(50), nullable=False),
        sa.Column(
            "type",
            _choice(
                "mplp_extensions",
                "type",
                "plugin",
                "adapter",
                "connector",
                "middleware",
                "hook",
                "transformer",
            ),
            nullable=False,
        ),
        sa.Column(
            "status",
            _choice(
                "mplp_extensions",
                "status",
                "installed",
                "active",
                "inactive",
                "disabled",
                "error",
                "updating",
                "uninstalling",
            ),
            server_default="installed",
            nullable=False,
        ),
        sa.Column("compatibility", DOCUMENT, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("configuration", DOCUMENT, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("security", DOCUMENT, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_extensions"),
        sa.UniqueConstraint("extension_id", name="uq_mplp_extensions_extension_id"),
        **MARIADB,
    )
    op.create_index("IDX_extensions_context_id", "mplp_extensions", ["context_id"])
    op.create_index("IDX_extensions_name", "mplp_extensions", ["name"])
    op.create_index("IDX_extensions_type", "mplp_extensions", ["type"])
    op.create_index("IDX_extensions_status", "mplp_extensions", ["status"])
    op.create_index("IDX_extensions_version", "mplp_extensions", ["version"])


def _extension_points() -> None:
    op.create_table(
        "mplp_extension_points",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("point_id", sa.String(100), nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column(
            "type",
            _choice(
                "mplp_extension_points",
                "type",
                "hook",
                "filter",
                "action",
                "api_endpoint",
                "event_listener",
            ),
            nullable=False,
        ),
        sa.Column(
            "target_module",
            _choice(
                "mplp_extension_points",
                "target_module",
                "context",
                "plan",
                "confirm",
                "trace",
                "role",
                "extension",
                "system",
            ),
            nullable=False,
        ),
        sa.Column("event_name", sa.String(255), nullable=True),
        sa.Column("execution_order", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("handler", DOCUMENT, nullable=False),
        sa.Column("conditions", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_extension_points"),
        sa.UniqueConstraint("point_id", name="uq_mplp_extension_points_point_id"),
        sa.ForeignKeyConstraint(
            ["extension_id"],
            ["mplp_extensions.extension_id"],
            name="FK_points_extension",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_points_extension_id", "mplp_extension_points", ["extension_id"])
    op.create_index("IDX_points_type", "mplp_extension_points", ["type"])
    op.create_index("IDX_points_target_module", "mplp_extension_points", ["target_module"])
    op.create_index("IDX_points_execution_order", "mplp_extension_points", ["execution_order"])
    op.create_index("IDX_points_enabled", "mplp_extension_points", ["enabled"])


def _api_extensions() -> None:
    op.create_table(
        "mplp_api_extensions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("endpoint_id", sa.String(100), nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("path", sa.String(255), nullable=False),
        sa.Column(
            "method",
            _choice(
                "mplp_api_extensions",
                "method",
                "GET",
                "POST",
                "PUT",
                "PATCH",
                "DELETE",
                "OPTIONS",
                "HEAD",
            ),
            nullable=False,
        ),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("handler", sa.String(255), nullable=False),
        sa.Column("middleware", DOCUMENT, nullable=True),
        sa.Column(
            "authentication_required", sa.Boolean(), server_default=sa.true(), nullable=False
        ),
        sa.Column("required_permissions", DOCUMENT, nullable=True),
        sa.Column("rate_limit", DOCUMENT, nullable=True),
        sa.Column("request_schema", DOCUMENT, nullable=True),
        sa.Column("response_schema", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_api_extensions"),
        sa.UniqueConstraint("endpoint_id", name="uq_mplp_api_extensions_endpoint_id"),
        sa.ForeignKeyConstraint(
            ["extension_id"],
            ["mplp_extensions.extension_id"],
            name="FK_api_extension",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_api_extension_id", "mplp_api_extensions", ["extension_id"])
    op.create_index("IDX_api_path", "mplp_api_extensions", ["path"])
    op.create_index("IDX_api_method", "mplp_api_extensions", ["method"])
    op.create_index("IDX_api_auth_required", "mplp_api_extensions", ["authentication_required"])


def _event_subscriptions() -> None:
    op.create_table(
        "mplp_event_subscriptions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subscription_id", sa.String(100), nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("event_pattern", sa.String(255), nullable=False),
        sa.Column(
            "source_module",
            _choice(
                "mplp_event_subscriptions",
                "source_module",
                "context",
                "plan",
                "confirm",
                "trace",
                "role",
                "extension",
                "system",
                "*",
            ),
            nullable=False,
        ),
        sa.Column("handler", sa.String(255), nullable=False),
        sa.Column("filter_conditions", DOCUMENT, nullable=True),
        sa.Column(
            "delivery_guarantees",
            _choice(
                "mplp_event_subscriptions",
                "delivery_guarantees",
                "at_least_once",
                "at_most_once",
                "exactly_once",
            ),
            server_default="at_least_once",
            nullable=False,
        ),
        sa.Column("dead_letter_queue", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_event_subscriptions"),
        sa.UniqueConstraint("subscription_id", name="uq_mplp_event_subscriptions_subscription_id"),
        sa.ForeignKeyConstraint(
            ["extension_id"],
            ["mplp_extensions.extension_id"],
            name="FK_subscriptions_extension",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_subscriptions_extension_id", "mplp_event_subscriptions", ["extension_id"])
    op.create_index(
        "IDX_subscriptions_source_module", "mplp_event_subscriptions", ["source_module"]
    )
    op.create_index(
        "IDX_subscriptions_event_pattern", "mplp_event_subscriptions", ["event_pattern"]
    )
    op.create_index(
        "IDX_subscriptions_delivery", "mplp_event_subscriptions", ["delivery_guarantees"]
    )


def _extension_lifecycles() -> None:
    op.create_table(
        "mplp_extension_lifecycles",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("install_date", TIMESTAMP, nullable=False),
        sa.Column("activation_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", DOCUMENT, nullable=True),
        sa.Column("performance_metrics", DOCUMENT, nullable=True),
        sa.Column("health_check", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_extension_lifecycles"),
        sa.ForeignKeyConstraint(
            ["extension_id"],
            ["mplp_extensions.extension_id"],
            name="FK_lifecycles_extension",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_lifecycles_install_date", "mplp_extension_lifecycles", ["install_date"])
    op.create_index("IDX_lifecycles_error_count", "mplp_extension_lifecycles", ["error_count"])
    op.create_index(
        "IDX_lifecycles_extension_id", "mplp_extension_lifecycles", ["extension_id"], unique=True
    )


def _extension_dependencies() -> None:
    op.create_table(
        "mplp_extension_dependencies",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("dependency_extension_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("version_range", sa.String(100), nullable=False),
        sa.Column("optional", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_extension_dependencies"),
        sa.ForeignKeyConstraint(
            ["extension_id"],
            ["mplp_extensions.extension_id"],
            name="FK_dependencies_extension",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index(
        "IDX_dependencies_extension_id", "mplp_extension_dependencies", ["extension_id"]
    )
    op.create_index(
        "IDX_dependencies_dependency_id", "mplp_extension_dependencies", ["dependency_extension_id"]
    )
    op.create_index("IDX_dependencies_optional", "mplp_extension_dependencies", ["optional"])


def _extension_executions() -> None:
    op.create_table(
        "mplp_extension_executions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("execution_id", sa.String(100), nullable=False),
        sa.Column("extension_id", sa.String(100), nullable=False),
        sa.Column("point_id", sa.String(100), nullable=True),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("user_id", sa.String(100), nullable=True),
        sa.Column("session_id", sa.String(100), nullable=True),
        sa.Column("trace_id", sa.String(100), nullable=True),
        sa.Column("start_time", TIMESTAMP, nullable=False),
        sa.Column("end_time", TIMESTAMP, nullable=True),
        sa.Column("execution_time_ms", sa.Integer(), nullable=True),
        sa.Column("memory_usage_mb", sa.Double(), nullable=True),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("parameters", DOCUMENT, nullable=True),
        sa.Column("result", DOCUMENT, nullable=True),
        sa.Column("error", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_extension_executions"),
        sa.UniqueConstraint("execution_id", name="uq_mplp_extension_executions_execution_id"),
        sa.ForeignKeyConstraint(
            ["extension_id"],
            ["mplp_extensions.extension_id"],
            name="FK_executions_extension",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["point_id"],
            ["mplp_extension_points.point_id"],
            name="FK_executions_point",
            ondelete="SET NULL",
        ),
        **MARIADB,
    )
    op.create_index("IDX_executions_extension_id", "mplp_extension_executions", ["extension_id"])
    op.create_index("IDX_executions_point_id", "mplp_extension_executions", ["point_id"])
    op.create_index("IDX_executions_context_id", "mplp_extension_executions", ["context_id"])
    op.create_index("IDX_executions_start_time", "mplp_extension_executions", ["start_time"])
    op.create_index("IDX_executions_success", "mplp_extension_executions", ["success"])
    op.create_index(
        "IDX_executions_execution_time", "mplp_extension_executions", ["execution_time_ms"]
    )
