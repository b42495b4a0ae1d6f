"""Traces, their events, metrics, snapshots, errors, decisions and correlations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "mplp_0005_trace"
down_revision = "mplp_0004_confirm"
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
    _traces()
    _trace_events()
    _performance_metrics()
    _context_snapshots()
    _error_information()
    _decision_logs()
    _trace_correlations()


def downgrade() -> None:
    op.drop_table("mplp_trace_correlations")
    op.drop_table("mplp_decision_logs")
    op.drop_table("mplp_error_information")
    op.drop_table("mplp_context_snapshots")
    op.drop_table("mplp_performance_metrics")
    op.drop_table("mplp_trace_events")
    op.drop_table("mplp_traces")


def _choice(table: str, column: str, *values: str) -> sa.Enum:
    """Text of up to 32 characters with a CHECK on its values."""
    return sa.Enum(
        *values, native_enum=False, create_constraint=True, length=32, name=f"ck_{table}_{column}"
    )


def _traces() -> None:
    op.create_table(
        "mplp_traces",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column("context_id", sa.String(100), nullable=False),
        sa.Column("plan_id", sa.String(100), nullable=True),
        sa.Column("task_id", sa.String(100), nullable=True),
        sa.Column("protocol_version", sa.String(20), nullable=False),
        sa.Column(
            "trace_type",
            _choice(
                "mplp_traces",
                "trace_type",
                "execution",
                "monitoring",
                "audit",
                "performance",
                "error",
                "decision",
            ),
            nullable=False,
        ),
        sa.Column(
            "severity",
            _choice("mplp_traces", "severity", "debug", "info", "warn", "error", "critical"),
            server_default="info",
            nullable=False,
        ),
        sa.Column("parent_trace_id", sa.String(100), nullable=True),
        sa.Column("user_id", sa.String(100), nullable=True),
        sa.Column("source", sa.String(100), nullable=True),
        sa.Column("status", sa.String(50), nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=True),
        sa.Column("tags", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("timestamp", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_traces"),
        sa.UniqueConstraint("trace_id", name="uq_mplp_traces_trace_id"),
        **MARIADB,
    )
    op.create_index("IDX_traces_context_id", "mplp_traces", ["context_id"])
    op.create_index("IDX_traces_plan_id", "mplp_traces", ["plan_id"])
    op.create_index("IDX_traces_task_id", "mplp_traces", ["task_id"])
    op.create_index("IDX_traces_type", "mplp_traces", ["trace_type"])
    op.create_index("IDX_traces_severity", "mplp_traces", ["severity"])
    op.create_index("IDX_traces_timestamp", "mplp_traces", ["timestamp"])
    op.create_index("IDX_traces_parent", "mplp_traces", ["parent_trace_id"])


def _trace_events() -> None:
    op.create_table(
        "mplp_trace_events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(100), nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column(
            "type",
            _choice(
                "mplp_trace_events",
                "type",
                "start",
                "progress",
                "checkpoint",
                "completion",
                "failure",
                "timeout",
                "interrupt",
            ),
            nullable=False,
        ),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "category",
            _choice("mplp_trace_events", "category", "system", "user", "external", "automatic"),
            nullable=False,
        ),
        sa.Column("source_component", sa.String(100), nullable=False),
        sa.Column("source_module", sa.String(100), nullable=True),
        sa.Column("source_function", sa.String(100), nullable=True),
        sa.Column("source_line_number", sa.Integer(), nullable=True),
        sa.Column("data", DOCUMENT, nullable=True),
        sa.Column("timestamp", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_trace_events"),
        sa.UniqueConstraint("event_id", name="uq_mplp_trace_events_event_id"),
        sa.ForeignKeyConstraint(
            ["trace_id"], ["mplp_traces.trace_id"], name="FK_events_trace", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_events_trace_id", "mplp_trace_events", ["trace_id"])
    op.create_index("IDX_events_type", "mplp_trace_events", ["type"])
    op.create_index("IDX_events_timestamp", "mplp_trace_events", ["timestamp"])
    op.create_index("IDX_events_category", "mplp_trace_events", ["category"])


def _performance_metrics() -> None:
    op.create_table(
        "mplp_performance_metrics",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column("start_time", TIMESTAMP, nullable=False),
        sa.Column("end_time", TIMESTAMP, nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("cpu_time_ms", sa.Integer(), nullable=True),
        sa.Column("memory_peak_usage_mb", sa.Double(), nullable=True),
        sa.Column("memory_average_usage_mb", sa.Double(), nullable=True),
        sa.Column("memory_allocations", sa.BigInteger(), nullable=True),
        sa.Column("memory_deallocations", sa.BigInteger(), nullable=True),
        sa.Column("cpu_utilization_percent", sa.Double(), nullable=True),
        sa.Column("cpu_instructions", sa.BigInteger(), nullable=True),
        sa.Column("cpu_cache_misses", sa.BigInteger(), nullable=True),
        sa.Column("network_bytes_sent", sa.BigInteger(), nullable=True),
        sa.Column("network_bytes_received", sa.BigInteger(), nullable=True),
        sa.Column("network_requests_count", sa.Integer(), nullable=True),
        sa.Column("network_error_count", sa.Integer(), nullable=True),
        sa.Column("storage_reads", sa.Integer(), nullable=True),
        sa.Column("storage_writes", sa.Integer(), nullable=True),
        sa.Column("storage_bytes_read", sa.BigInteger(), nullable=True),
        sa.Column("storage_bytes_written", sa.BigInteger(), nullable=True),
        sa.Column("custom_metrics", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_performance_metrics"),
        sa.ForeignKeyConstraint(
            ["trace_id"], ["mplp_traces.trace_id"], name="FK_metrics_trace", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_metrics_trace_id", "mplp_performance_metrics", ["trace_id"])
    op.create_index("IDX_metrics_duration", "mplp_performance_metrics", ["duration_ms"])


def _context_snapshots() -> None:
    op.create_table(
        "mplp_context_snapshots",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column("variables", DOCUMENT, nullable=True),
        sa.Column("environment_os", sa.String(100), nullable=True),
        sa.Column("environment_platform", sa.String(100), nullable=True),
        sa.Column("environment_runtime_version", sa.String(100), nullable=True),
        sa.Column("environment_variables", DOCUMENT, nullable=True),
        sa.Column("call_stack", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_context_snapshots"),
        sa.ForeignKeyConstraint(
            ["trace_id"], ["mplp_traces.trace_id"], name="FK_snapshots_trace", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_snapshots_trace_id", "mplp_context_snapshots", ["trace_id"])


def _error_information() -> None:
    op.create_table(
        "mplp_error_information",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column("error_code", sa.String(100), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=False),
        sa.Column(
            "error_type",
            _choice(
                "mplp_error_information",
                "error_type",
                "system",
                "business",
                "validation",
                "network",
                "timeout",
                "security",
            ),
            nullable=False,
        ),
        sa.Column("stack_trace", DOCUMENT, nullable=True),
        sa.Column("recovery_actions", DOCUMENT, nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_error_information"),
        sa.ForeignKeyConstraint(
            ["trace_id"], ["mplp_traces.trace_id"], name="FK_errors_trace", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_errors_trace_id", "mplp_error_information", ["trace_id"])
    op.create_index("IDX_errors_error_type", "mplp_error_information", ["error_type"])
    op.create_index("IDX_errors_error_code", "mplp_error_information", ["error_code"])


def _decision_logs() -> None:
    op.create_table(
        "mplp_decision_logs",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column("decision_point", sa.String(255), nullable=False),
        sa.Column("options_considered", DOCUMENT, nullable=False),
        sa.Column("selected_option", sa.String(255), nullable=False),
        sa.Column("decision_criteria", DOCUMENT, nullable=True),
        sa.Column("confidence_level", sa.Double(), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_decision_logs"),
        sa.ForeignKeyConstraint(
            ["trace_id"], ["mplp_traces.trace_id"], name="FK_decisions_trace", ondelete="CASCADE"
        ),
        **MARIADB,
    )
    op.create_index("IDX_decisions_trace_id", "mplp_decision_logs", ["trace_id"])


def _trace_correlations() -> None:
    op.create_table(
        "mplp_trace_correlations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("correlation_id", sa.String(100), nullable=False),
        sa.Column("trace_id", sa.String(100), nullable=False),
        sa.Column("related_trace_id", sa.String(100), nullable=False),
        sa.Column(
            "type",
            _choice(
                "mplp_trace_correlations", "type", "causation", "temporal", "spatial", "logical"
            ),
            nullable=False,
        ),
        sa.Column("strength", sa.Double(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", TIMESTAMP, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mplp_trace_correlations"),
        sa.UniqueConstraint("correlation_id", name="uq_mplp_trace_correlations_correlation_id"),
        sa.ForeignKeyConstraint(
            ["trace_id"], ["mplp_traces.trace_id"], name="FK_correlations_trace", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["related_trace_id"],
            ["mplp_traces.trace_id"],
            name="FK_correlations_related_trace",
            ondelete="CASCADE",
        ),
        **MARIADB,
    )
    op.create_index("IDX_correlations_trace_id", "mplp_trace_correlations", ["trace_id"])
    op.create_index(
        "IDX_correlations_related_trace_id", "mplp_trace_correlations", ["related_trace_id"]
    )
    op.create_index("IDX_correlations_type", "mplp_trace_correlations", ["type"])
