"""The command inbox: each request is let through once."""

from alembic import op

revision = "ng_0002"
down_revision = "ng_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TYPE command_status_enum AS ENUM ('RECEIVED', 'PROCESSING', 'COMPLETED', 'FAILED')"
    )
    _table()
    _indexes()
    op.execute("""
        CREATE TRIGGER trg_command_inbox_set_updated_at BEFORE UPDATE ON command_inbox
            FOR EACH ROW EXECUTE FUNCTION set_updated_at()
    """)
    _comments()


def downgrade() -> None:
    op.execute("DROP TABLE command_inbox")
    op.execute("DROP TYPE command_status_enum")


def _table() -> None:
    op.execute("""
        CREATE TABLE command_inbox (
            id               uuid                 NOT NULL DEFAULT gen_random_uuid(),
            session_id       uuid                 NOT NULL,
            command_type     text                 NOT NULL,
            idempotency_key  text                 NOT NULL,
            payload          jsonb,
            status           command_status_enum  NOT NULL DEFAULT 'RECEIVED',
            error_message    text,
            retry_count      integer              NOT NULL DEFAULT 0,
            created_at       timestamptz          NOT NULL DEFAULT now(),
            updated_at       timestamptz          NOT NULL DEFAULT now(),
            CONSTRAINT pk_command_inbox PRIMARY KEY (id),
            CONSTRAINT uq_command_inbox_idempotency_key UNIQUE (idempotency_key),
            CONSTRAINT ck_command_inbox_command_type_format CHECK (command_type ~ '^[A-Z][A-Z0-9_]*$'),
            CONSTRAINT ck_command_inbox_idempotency_key_length CHECK (char_length(idempotency_key) BETWEEN 1 AND 255),
            CONSTRAINT ck_command_inbox_retry_count_non_negative CHECK (retry_count >= 0),
            CONSTRAINT ck_command_inbox_failed_has_error_message CHECK (status <> 'FAILED' OR error_message IS NOT NULL)
        )
    """)


def _indexes() -> None:
    op.execute("""
        CREATE INDEX idx_command_inbox_session_id ON command_inbox (session_id);
        CREATE INDEX idx_command_inbox_status ON command_inbox (status);
        CREATE INDEX idx_command_inbox_command_type ON command_inbox (command_type);
        CREATE INDEX idx_command_inbox_created_at ON command_inbox (created_at);
        CREATE INDEX idx_command_inbox_session_status ON command_inbox (session_id, status);
        CREATE INDEX idx_command_inbox_status_created ON command_inbox (status, created_at);
        CREATE INDEX idx_command_inbox_retry_status ON command_inbox (retry_count, status, created_at)
            WHERE status IN ('RECEIVED', 'PROCESSING', 'FAILED');
        CREATE INDEX idx_command_inbox_payload ON command_inbox USING gin (payload);
        CREATE UNIQUE INDEX idx_command_inbox_unique_pending_command ON command_inbox (session_id, command_type)
            WHERE status IN ('RECEIVED', 'PROCESSING');
    """)


def _comments() -> None:
    op.execute("""
        COMMENT ON TABLE command_inbox IS
            'Commands as they were received; the idempotency key lets only one of several repeats through.';
        COMMENT ON COLUMN command_inbox.session_id IS
            'Dialogue the command belongs to; no foreign key: the command that opens a dialogue is stored before it, and commands outlive it.';
        COMMENT ON COLUMN command_inbox.command_type IS 'Upper-case verb, such as START_GENESIS.';
        COMMENT ON COLUMN command_inbox.idempotency_key IS 'Chosen by the client, 1 to 255 characters.';
        COMMENT ON COLUMN command_inbox.error_message IS 'Why it failed; required when FAILED.';
        COMMENT ON COLUMN command_inbox.updated_at IS 'Time of the last update, set by trigger.';
    """)
