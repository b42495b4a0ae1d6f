"""Dialogue sessions and their rounds, and the trigger functions they share."""

from alembic import op

revision = "ng_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _functions()
    _sessions()
    _rounds()


def downgrade() -> None:
    op.execute("DROP TABLE conversation_rounds")
    op.execute("DROP TABLE conversation_sessions")
    op.execute("DROP FUNCTION increment_version()")
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = 'set_updated_at()'::regprocedure) THEN
                DROP FUNCTION set_updated_at();
            END IF;
        END
        $$
    """)


def _functions() -> None:
    # OR REPLACE: this one is shared by all tables, and its downgrade leaves it to those that still use it.
    op.execute("""
        CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := clock_timestamp();
            RETURN NEW;
        END
        $$
    """)
    op.execute("""
        CREATE FUNCTION increment_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.version := OLD.version + 1;
            RETURN NEW;
        END
        $$
    """)


def _sessions() -> None:
    op.execute("""
        CREATE TABLE conversation_sessions (
            id              uuid         NOT NULL DEFAULT gen_random_uuid(),
            scope_type      varchar(32)  NOT NULL,
            scope_id        text         NOT NULL,
            status          varchar(16)  NOT NULL DEFAULT 'ACTIVE',
            stage           varchar(64),
            state           jsonb,
            version         integer      NOT NULL DEFAULT 0,
            round_sequence  integer      NOT NULL DEFAULT 0,
            created_at      timestamptz  NOT NULL DEFAULT now(),
            updated_at      timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT pk_conversation_sessions PRIMARY KEY (id),
            CONSTRAINT ck_conversation_sessions_scope_type
                CHECK (scope_type IN ('GENESIS', 'CHAPTER', 'REVIEW', 'PLANNING', 'WORLDBUILDING')),
            CONSTRAINT ck_conversation_sessions_scope_id_not_blank CHECK (scope_id ~ '\\S'),
            CONSTRAINT ck_conversation_sessions_status
                CHECK (status IN ('ACTIVE', 'PROCESSING', 'COMPLETED', 'FAILED', 'ABANDONED', 'PAUSED')),
            CONSTRAINT ck_conversation_sessions_state_object CHECK (jsonb_typeof(state) = 'object'),
            CONSTRAINT ck_conversation_sessions_version_non_negative CHECK (version >= 0),
            CONSTRAINT ck_conversation_sessions_round_sequence_non_negative CHECK (round_sequence >= 0)
        );
        CREATE INDEX idx_conversation_sessions_scope ON conversation_sessions (scope_type, scope_id);
        CREATE INDEX idx_conversation_sessions_status ON conversation_sessions (status);
        CREATE INDEX idx_conversation_sessions_updated_at ON conversation_sessions (updated_at);
        CREATE INDEX idx_conversation_sessions_scope_status ON conversation_sessions (scope_type, scope_id, status);
        CREATE UNIQUE INDEX uq_conversation_sessions_active_per_scope ON conversation_sessions (scope_type, scope_id)
            WHERE status = 'ACTIVE';
    """)
    # Triggers fire in name order: the version is decided before updated_at makes every row look changed.
    op.execute("""
        CREATE TRIGGER trg_conversation_sessions_increment_version BEFORE UPDATE ON conversation_sessions
            FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION increment_version();
        CREATE TRIGGER trg_conversation_sessions_set_updated_at BEFORE UPDATE ON conversation_sessions
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE conversation_sessions IS 'One dialogue, bound to a business object such as a novel.';
        COMMENT ON COLUMN conversation_sessions.scope_type IS 'Kind of object the dialogue is about.';
        COMMENT ON COLUMN conversation_sessions.scope_id IS
            'Identifier of that object (the novel id for GENESIS); no foreign key, it may live elsewhere.';
        COMMENT ON COLUMN conversation_sessions.status IS 'Life cycle of the dialogue.';
        COMMENT ON COLUMN conversation_sessions.stage IS 'Stage of the writing workflow, free text.';
        COMMENT ON COLUMN conversation_sessions.state IS 'Accumulated state of the dialogue, a JSON object.';
        COMMENT ON COLUMN conversation_sessions.version IS 'Optimistic-lock counter, owned by the trigger.';
        COMMENT ON COLUMN conversation_sessions.round_sequence IS 'Number of the last top-level round handed out.';
        COMMENT ON COLUMN conversation_sessions.updated_at IS 'Time of the last update, set by trigger.';
    """)


def _rounds() -> None:
    op.execute("""
        CREATE TABLE conversation_rounds (
            session_id      uuid           NOT NULL,
            round_path      varchar(64)    NOT NULL,
            role            varchar(16)    NOT NULL,
            input           jsonb,
            output          jsonb,
            tool_calls      jsonb,
            model           varchar(128),
            tokens_in       integer,
            tokens_out      integer,
            latency_ms      integer,
            cost            numeric(10,4),
            correlation_id  varchar(64),
            created_at      timestamptz    NOT NULL DEFAULT now(),
            CONSTRAINT pk_conversation_rounds PRIMARY KEY (session_id, round_path),
            CONSTRAINT fk_conversation_rounds_session_id_conversation_sessions
                FOREIGN KEY (session_id) REFERENCES conversation_sessions (id) ON DELETE CASCADE,
            CONSTRAINT ck_conversation_rounds_round_path_format CHECK (round_path ~ '^[1-9][0-9]*([.][1-9][0-9]*)*$'),
            CONSTRAINT ck_conversation_rounds_role CHECK (role IN ('user', 'assistant', 'system', 'tool')),
            CONSTRAINT ck_conversation_rounds_tokens_in_non_negative CHECK (tokens_in >= 0),
            CONSTRAINT ck_conversation_rounds_tokens_out_non_negative CHECK (tokens_out >= 0),
            CONSTRAINT ck_conversation_rounds_latency_ms_non_negative CHECK (latency_ms >= 0),
            CONSTRAINT ck_conversation_rounds_cost_non_negative CHECK (cost >= 0)
        );
        CREATE INDEX idx_conversation_rounds_session_id ON conversation_rounds (session_id);
        CREATE INDEX idx_conversation_rounds_correlation_id ON conversation_rounds (correlation_id)
            WHERE correlation_id IS NOT NULL;
        CREATE INDEX idx_conversation_rounds_created_at ON conversation_rounds (created_at);
        CREATE INDEX idx_conversation_rounds_role ON conversation_rounds (role);
        CREATE INDEX idx_conversation_rounds_session_id_created_at ON conversation_rounds (session_id, created_at);
        CREATE UNIQUE INDEX uq_conversation_rounds_session_id_correlation_id
            ON conversation_rounds (session_id, correlation_id) WHERE correlation_id IS NOT NULL;
    """)
    op.execute("""
        COMMENT ON TABLE conversation_rounds IS 'One message or model call inside a dialogue; dotted paths form a tree.';
        COMMENT ON COLUMN conversation_rounds.round_path IS 'Dotted positive integers without leading zeros: 1, 2, 2.1.';
        COMMENT ON COLUMN conversation_rounds.role IS 'Author of the round.';
        COMMENT ON COLUMN conversation_rounds.input IS 'What was sent.';
        COMMENT ON COLUMN conversation_rounds.output IS 'What came back.';
        COMMENT ON COLUMN conversation_rounds.tool_calls IS 'Tool calls made in this round.';
        COMMENT ON COLUMN conversation_rounds.model IS 'Model that answered.';
        COMMENT ON COLUMN conversation_rounds.cost IS 'Cost of the call, in the billing currency of the deployment.';
        COMMENT ON COLUMN conversation_rounds.correlation_id IS
            'Request that produced the round; at most one round per request and session.';
    """)
