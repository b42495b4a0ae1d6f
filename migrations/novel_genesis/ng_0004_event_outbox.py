"""The outbox: messages written in the transaction of the change they announce."""

from alembic import op

revision = "ng_0004"
down_revision = "ng_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TYPE outbox_status_enum AS ENUM ('PENDING', 'PROCESSING', 'SENT', 'FAILED')")
    _table()
    _indexes()
    _comments()


def downgrade() -> None:
    op.execute("DROP TABLE event_outbox")
    op.execute("DROP TYPE outbox_status_enum")


def _table() -> None:
    op.execute("""
        CREATE TABLE event_outbox (
            id             uuid                NOT NULL DEFAULT gen_random_uuid(),
            event_id       uuid,
            topic          text                NOT NULL,
            key            text,
            partition_key  text,
            payload        jsonb               NOT NULL,
            headers        jsonb,
            status         outbox_status_enum  NOT NULL DEFAULT 'PENDING',
            retry_count    integer             NOT NULL DEFAULT 0,
            max_retries    integer             NOT NULL DEFAULT 5,
            last_error     text,
            scheduled_at   timestamptz         NOT NULL DEFAULT now(),
            sent_at        timestamptz,
            created_at     timestamptz         NOT NULL DEFAULT now(),
            CONSTRAINT pk_event_outbox PRIMARY KEY (id),
            CONSTRAINT fk_event_outbox_event_id_domain_events
                FOREIGN KEY (event_id) REFERENCES domain_events (event_id) ON DELETE RESTRICT,
            CONSTRAINT ck_event_outbox_topic_not_blank CHECK (topic ~ '\\S'),
            CONSTRAINT ck_event_outbox_headers_object CHECK (jsonb_typeof(headers) = 'object'),
            CONSTRAINT ck_event_outbox_max_retries_non_negative CHECK (max_retries >= 0),
            CONSTRAINT ck_event_outbox_retry_count_valid CHECK (retry_count >= 0 AND retry_count <= max_retries),
            CONSTRAINT ck_event_outbox_sent_has_timestamp CHECK ((status = 'SENT') = (sent_at IS NOT NULL)),
            CONSTRAINT ck_event_outbox_failed_has_error CHECK (status <> 'FAILED' OR last_error IS NOT NULL),
            CONSTRAINT ck_event_outbox_scheduled_not_before_created CHECK (scheduled_at >= created_at)
        )
    """)


def _indexes() -> None:
    op.execute("""
        CREATE INDEX idx_event_outbox_status ON event_outbox (status);
        CREATE INDEX idx_event_outbox_topic ON event_outbox (topic);
        CREATE INDEX idx_event_outbox_created_at ON event_outbox (created_at);
        CREATE INDEX idx_event_outbox_retry_count ON event_outbox (retry_count);
        CREATE INDEX idx_event_outbox_key ON event_outbox (key) WHERE key IS NOT NULL;
        CREATE INDEX idx_event_outbox_partition_key ON event_outbox (partition_key) WHERE partition_key IS NOT NULL;
        CREATE INDEX idx_event_outbox_event_id ON event_outbox (event_id) WHERE event_id IS NOT NULL;
        CREATE INDEX idx_event_outbox_topic_status ON event_outbox (topic, status);
        CREATE INDEX idx_event_outbox_status_created ON event_outbox (status, created_at);
        CREATE INDEX idx_event_outbox_pending_scheduled ON event_outbox (scheduled_at, created_at) WHERE status = 'PENDING';
        CREATE INDEX idx_event_outbox_processing_scheduled ON event_outbox (scheduled_at) WHERE status = 'PROCESSING';
        CREATE INDEX idx_event_outbox_payload ON event_outbox USING gin (payload);
        CREATE INDEX idx_event_outbox_headers ON event_outbox USING gin (headers);
    """)


def _comments() -> None:
    op.execute("""
        COMMENT ON TABLE event_outbox IS
            'Messages to be published, written in the same transaction as the change they announce.';
        COMMENT ON COLUMN event_outbox.id IS 'Message identifier; consumers drop repeats by it.';
        COMMENT ON COLUMN event_outbox.event_id IS 'The logged event this message announces, if any.';
        COMMENT ON COLUMN event_outbox.topic IS 'Destination.';
        COMMENT ON COLUMN event_outbox.key IS 'Message key; the aggregate id for event messages.';
        COMMENT ON COLUMN event_outbox.partition_key IS 'Overrides the key for partitioning.';
        COMMENT ON COLUMN event_outbox.headers IS
            'JSON object; event messages carry event_type, event_version, aggregate_type, aggregate_id, correlation_id, causation_id.';
        COMMENT ON COLUMN event_outbox.retry_count IS 'Failed deliveries so far.';
        COMMENT ON COLUMN event_outbox.max_retries IS 'At this many failures the message is FAILED.';
        COMMENT ON COLUMN event_outbox.last_error IS 'Why the last delivery failed; required when FAILED.';
        COMMENT ON COLUMN event_outbox.scheduled_at IS 'PENDING: earliest delivery; PROCESSING: end of the lease of the relay.';
        COMMENT ON COLUMN event_outbox.sent_at IS 'Time of delivery; set exactly when SENT.';
    """)
