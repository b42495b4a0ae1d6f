"""The append-only log of domain events."""

from alembic import op

revision = "ng_0003"
down_revision = "ng_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION enforce_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
                USING ERRCODE = 'restrict_violation';
        END
        $$
    """)
    _table()
    _indexes()
    op.execute("""
        CREATE TRIGGER trg_domain_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON domain_events
            FOR EACH STATEMENT EXECUTE FUNCTION enforce_append_only()
    """)
    _comments()


def downgrade() -> None:
    op.execute("DROP TABLE domain_events")
    op.execute("DROP FUNCTION enforce_append_only()")


def _table() -> None:
    op.execute("""
        CREATE TABLE domain_events (
            id              bigint       GENERATED ALWAYS AS IDENTITY,
            event_id        uuid         NOT NULL DEFAULT gen_random_uuid(),
            correlation_id  uuid,
            causation_id    uuid,
            event_type      text         NOT NULL,
            event_version   integer      NOT NULL DEFAULT 1,
            aggregate_type  text         NOT NULL,
            aggregate_id    text         NOT NULL,
            payload         jsonb,
            metadata        jsonb,
            created_at      timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT pk_domain_events PRIMARY KEY (id),
            CONSTRAINT uq_domain_events_event_id UNIQUE (event_id),
            CONSTRAINT ck_domain_events_event_type_format
                CHECK (event_type ~ '^[A-Za-z][A-Za-z0-9_]*([.][A-Za-z][A-Za-z0-9_]*)*$'),
            CONSTRAINT ck_domain_events_event_version_positive CHECK (event_version > 0),
            CONSTRAINT ck_domain_events_aggregate_type_not_blank CHECK (aggregate_type ~ '\\S'),
            CONSTRAINT ck_domain_events_aggregate_id_not_blank CHECK (aggregate_id ~ '\\S')
        )
    """)


def _indexes() -> None:
    op.execute("""
        CREATE INDEX idx_domain_events_aggregate ON domain_events (aggregate_type, aggregate_id);
        CREATE INDEX idx_domain_events_event_type ON domain_events (event_type);
        CREATE INDEX idx_domain_events_created_at ON domain_events (created_at);
        CREATE INDEX idx_domain_events_correlation_id ON domain_events (correlation_id) WHERE correlation_id IS NOT NULL;
        CREATE INDEX idx_domain_events_causation_id ON domain_events (causation_id) WHERE causation_id IS NOT NULL;
        CREATE INDEX idx_domain_events_correlation_causation ON domain_events (correlation_id, causation_id)
            WHERE correlation_id IS NOT NULL AND causation_id IS NOT NULL;
        CREATE INDEX idx_domain_events_aggregate_type_time ON domain_events (aggregate_type, created_at);
        CREATE INDEX idx_domain_events_event_type_time ON domain_events (event_type, created_at);
        CREATE INDEX idx_domain_events_aggregate_event_time ON domain_events (aggregate_type, event_type, created_at);
        CREATE INDEX idx_domain_events_payload ON domain_events USING gin (payload);
        CREATE INDEX idx_domain_events_metadata ON domain_events USING gin (metadata);
    """)


def _comments() -> None:
    op.execute("""
        COMMENT ON TABLE domain_events IS 'What happened, in order, for ever; rows are inserted and read, nothing else.';
        COMMENT ON COLUMN domain_events.id IS
            'Position in the log; assigned at insert, so a later commit can show a lower number.';
        COMMENT ON COLUMN domain_events.event_id IS 'Public identifier of the event.';
        COMMENT ON COLUMN domain_events.correlation_id IS 'The request all related events share.';
        COMMENT ON COLUMN domain_events.causation_id IS 'The event or command that caused this one.';
        COMMENT ON COLUMN domain_events.event_type IS 'Name of what happened, such as STAGE_ENTERED or Genesis.Session.Started.';
        COMMENT ON COLUMN domain_events.event_version IS 'Version of the shape of the payload.';
        COMMENT ON COLUMN domain_events.aggregate_type IS 'Kind of object that changed.';
        COMMENT ON COLUMN domain_events.aggregate_id IS 'Identifier of the object that changed.';
    """)
