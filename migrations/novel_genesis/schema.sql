-- Blueprint novel_genesis: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.

SET search_path TO "public";

DO $is_db_bootstrap$
BEGIN
    CREATE SCHEMA IF NOT EXISTS is_db_bootstrap;
    CREATE TABLE IF NOT EXISTS is_db_bootstrap.lineage ( schema_name text NOT NULL, table_name text NOT NULL, blueprint text NOT NULL, revisions text[] NOT NULL, planned text[], digests jsonb, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (schema_name, table_name) );
    COMMENT ON TABLE is_db_bootstrap.lineage IS 'is-db-bootstrap: the revisions that led to what each version table records';
    GRANT USAGE ON SCHEMA is_db_bootstrap TO PUBLIC;
    GRANT SELECT ON is_db_bootstrap.lineage TO PUBLIC;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('is_db_bootstrap.lineage') AND attname = 'digests' AND NOT attisdropped) THEN
        ALTER TABLE is_db_bootstrap.lineage ADD COLUMN IF NOT EXISTS planned text[], ADD COLUMN IF NOT EXISTS digests jsonb;
    END IF;
EXCEPTION WHEN insufficient_privilege OR duplicate_table OR duplicate_schema THEN
    NULL;
END
$is_db_bootstrap$;

BEGIN;

CREATE TABLE public.alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> ng_0001

CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := clock_timestamp();
            RETURN NEW;
        END
        $$;

CREATE FUNCTION increment_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.version := OLD.version + 1;
            RETURN NEW;
        END
        $$;

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
            CONSTRAINT ck_conversation_sessions_scope_id_not_blank CHECK (scope_id ~ '\S'),
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
            WHERE status = 'ACTIVE';;

CREATE TRIGGER trg_conversation_sessions_increment_version BEFORE UPDATE ON conversation_sessions
            FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION increment_version();
        CREATE TRIGGER trg_conversation_sessions_set_updated_at BEFORE UPDATE ON conversation_sessions
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE conversation_sessions IS 'One dialogue, bound to a business object such as a novel.';
        COMMENT ON COLUMN conversation_sessions.scope_type IS 'Kind of object the dialogue is about.';
        COMMENT ON COLUMN conversation_sessions.scope_id IS
            'Identifier of that object (the novel id for GENESIS); no foreign key, it may live elsewhere.';
        COMMENT ON COLUMN conversation_sessions.status IS 'Life cycle of the dialogue.';
        COMMENT ON COLUMN conversation_sessions.stage IS 'Stage of the writing workflow, free text.';
        COMMENT ON COLUMN conversation_sessions.state IS 'Accumulated state of the dialogue, a JSON object.';
        COMMENT ON COLUMN conversation_sessions.version IS 'Optimistic-lock counter, owned by the trigger.';
        COMMENT ON COLUMN conversation_sessions.round_sequence IS 'Number of the last top-level round handed out.';
        COMMENT ON COLUMN conversation_sessions.updated_at IS 'Time of the last update, set by trigger.';;

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
            ON conversation_rounds (session_id, correlation_id) WHERE correlation_id IS NOT NULL;;

COMMENT ON TABLE conversation_rounds IS 'One message or model call inside a dialogue; dotted paths form a tree.';
        COMMENT ON COLUMN conversation_rounds.round_path IS 'Dotted positive integers without leading zeros: 1, 2, 2.1.';
        COMMENT ON COLUMN conversation_rounds.role IS 'Author of the round.';
        COMMENT ON COLUMN conversation_rounds.input IS 'What was sent.';
        COMMENT ON COLUMN conversation_rounds.output IS 'What came back.';
        COMMENT ON COLUMN conversation_rounds.tool_calls IS 'Tool calls made in this round.';
        COMMENT ON COLUMN conversation_rounds.model IS 'Model that answered.';
        COMMENT ON COLUMN conversation_rounds.cost IS 'Cost of the call, in the billing currency of the deployment.';
        COMMENT ON COLUMN conversation_rounds.correlation_id IS
            'Request that produced the round; at most one round per request and session.';;

INSERT INTO public.alembic_version (version_num) VALUES ('ng_0001') RETURNING public.alembic_version.version_num;

DO $is_db_bootstrap$
DECLARE
    place text := '"public"."alembic_version"';
    told text := coalesce(obj_description(to_regclass(place), 'pg_class'), '');
    kept text := regexp_replace(told, '(; )?begun (upgrade|downgrade) [^ ]+$', '');
    wanted text := kept;
    has_row boolean := false;
BEGIN
    BEGIN
        INSERT INTO is_db_bootstrap.lineage (schema_name, table_name, blueprint, revisions)
        VALUES ('public', 'alembic_version', 'novel_genesis', ARRAY['ng_0001'])
        ON CONFLICT (schema_name, table_name) DO UPDATE SET blueprint = excluded.blueprint,
            revisions = excluded.revisions, recorded_at = excluded.recorded_at;
        has_row := true;
    EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
        NULL;
    END;
    IF has_row THEN
        BEGIN
            UPDATE is_db_bootstrap.lineage SET digests = (
            SELECT jsonb_object_agg(key, value) FROM jsonb_each(
                coalesce(digests, '{}') || '{"ng_0001": "e52c2788f607ba8132131c8f5597ee13ff73b420f2ee9c26971b151fecfe09ee"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint novel_genesis; revisions ng_0001';
    END IF;
    BEGIN
        IF wanted <> told THEN
            EXECUTE 'COMMENT ON TABLE ' || place || ' IS ' || quote_nullable(nullif(wanted, ''));
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
END
$is_db_bootstrap$;

COMMIT;

BEGIN;

-- Running upgrade ng_0001 -> ng_0002

CREATE TYPE command_status_enum AS ENUM ('RECEIVED', 'PROCESSING', 'COMPLETED', 'FAILED');

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
        );

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
            WHERE status IN ('RECEIVED', 'PROCESSING');;

CREATE TRIGGER trg_command_inbox_set_updated_at BEFORE UPDATE ON command_inbox
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();

COMMENT ON TABLE command_inbox IS
            'Commands as they were received; the idempotency key lets only one of several repeats through.';
        COMMENT ON COLUMN command_inbox.session_id IS
            'Dialogue the command belongs to; no foreign key: the command that opens a dialogue is stored before it, and commands outlive it.';
        COMMENT ON COLUMN command_inbox.command_type IS 'Upper-case verb, such as START_GENESIS.';
        COMMENT ON COLUMN command_inbox.idempotency_key IS 'Chosen by the client, 1 to 255 characters.';
        COMMENT ON COLUMN command_inbox.error_message IS 'Why it failed; required when FAILED.';
        COMMENT ON COLUMN command_inbox.updated_at IS 'Time of the last update, set by trigger.';;

UPDATE public.alembic_version SET version_num='ng_0002' WHERE public.alembic_version.version_num = 'ng_0001';

DO $is_db_bootstrap$
DECLARE
    place text := '"public"."alembic_version"';
    told text := coalesce(obj_description(to_regclass(place), 'pg_class'), '');
    kept text := regexp_replace(told, '(; )?begun (upgrade|downgrade) [^ ]+$', '');
    wanted text := kept;
    has_row boolean := false;
BEGIN
    BEGIN
        INSERT INTO is_db_bootstrap.lineage (schema_name, table_name, blueprint, revisions)
        VALUES ('public', 'alembic_version', 'novel_genesis', ARRAY['ng_0001', 'ng_0002'])
        ON CONFLICT (schema_name, table_name) DO UPDATE SET blueprint = excluded.blueprint,
            revisions = excluded.revisions, recorded_at = excluded.recorded_at;
        has_row := true;
    EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
        NULL;
    END;
    IF has_row THEN
        BEGIN
            UPDATE is_db_bootstrap.lineage SET digests = (
            SELECT jsonb_object_agg(key, value) FROM jsonb_each(
                coalesce(digests, '{}') || '{"ng_0002": "b55ca5993b894eadf48a6d23c1edd4136007de88795212a417e436724854b13b"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint novel_genesis; revisions ng_0001 ng_0002';
    END IF;
    BEGIN
        IF wanted <> told THEN
            EXECUTE 'COMMENT ON TABLE ' || place || ' IS ' || quote_nullable(nullif(wanted, ''));
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
END
$is_db_bootstrap$;

COMMIT;

BEGIN;

-- Running upgrade ng_0002 -> ng_0003

CREATE FUNCTION enforce_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
                USING ERRCODE = 'restrict_violation';
        END
        $$;

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
            CONSTRAINT ck_domain_events_aggregate_type_not_blank CHECK (aggregate_type ~ '\S'),
            CONSTRAINT ck_domain_events_aggregate_id_not_blank CHECK (aggregate_id ~ '\S')
        );

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
        CREATE INDEX idx_domain_events_metadata ON domain_events USING gin (metadata);;

CREATE TRIGGER trg_domain_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON domain_events
            FOR EACH STATEMENT EXECUTE FUNCTION enforce_append_only();

COMMENT ON TABLE domain_events IS 'What happened, in order, for ever; rows are inserted and read, nothing else.';
        COMMENT ON COLUMN domain_events.id IS
            'Position in the log; assigned at insert, so a later commit can show a lower number.';
        COMMENT ON COLUMN domain_events.event_id IS 'Public identifier of the event.';
        COMMENT ON COLUMN domain_events.correlation_id IS 'The request all related events share.';
        COMMENT ON COLUMN domain_events.causation_id IS 'The event or command that caused this one.';
        COMMENT ON COLUMN domain_events.event_type IS 'Name of what happened, such as STAGE_ENTERED or Genesis.Session.Started.';
        COMMENT ON COLUMN domain_events.event_version IS 'Version of the shape of the payload.';
        COMMENT ON COLUMN domain_events.aggregate_type IS 'Kind of object that changed.';
        COMMENT ON COLUMN domain_events.aggregate_id IS 'Identifier of the object that changed.';;

UPDATE public.alembic_version SET version_num='ng_0003' WHERE public.alembic_version.version_num = 'ng_0002';

DO $is_db_bootstrap$
DECLARE
    place text := '"public"."alembic_version"';
    told text := coalesce(obj_description(to_regclass(place), 'pg_class'), '');
    kept text := regexp_replace(told, '(; )?begun (upgrade|downgrade) [^ ]+$', '');
    wanted text := kept;
    has_row boolean := false;
BEGIN
    BEGIN
        INSERT INTO is_db_bootstrap.lineage (schema_name, table_name, blueprint, revisions)
        VALUES ('public', 'alembic_version', 'novel_genesis', ARRAY['ng_0001', 'ng_0002', 'ng_0003'])
        ON CONFLICT (schema_name, table_name) DO UPDATE SET blueprint = excluded.blueprint,
            revisions = excluded.revisions, recorded_at = excluded.recorded_at;
        has_row := true;
    EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
        NULL;
    END;
    IF has_row THEN
        BEGIN
            UPDATE is_db_bootstrap.lineage SET digests = (
            SELECT jsonb_object_agg(key, value) FROM jsonb_each(
                coalesce(digests, '{}') || '{"ng_0003": "23048d5bd383659e20c16944556ec4c2b3d7966ee21ca163e4e1bba0a82567c5"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint novel_genesis; revisions ng_0001 ng_0002 ng_0003';
    END IF;
    BEGIN
        IF wanted <> told THEN
            EXECUTE 'COMMENT ON TABLE ' || place || ' IS ' || quote_nullable(nullif(wanted, ''));
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
END
$is_db_bootstrap$;

COMMIT;

BEGIN;

-- Running upgrade ng_0003 -> ng_0004

CREATE TYPE outbox_status_enum AS ENUM ('PENDING', 'PROCESSING', 'SENT', 'FAILED');

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
            CONSTRAINT ck_event_outbox_topic_not_blank CHECK (topic ~ '\S'),
            CONSTRAINT ck_event_outbox_headers_object CHECK (jsonb_typeof(headers) = 'object'),
            CONSTRAINT ck_event_outbox_max_retries_non_negative CHECK (max_retries >= 0),
            CONSTRAINT ck_event_outbox_retry_count_valid CHECK (retry_count >= 0 AND retry_count <= max_retries),
            CONSTRAINT ck_event_outbox_sent_has_timestamp CHECK ((status = 'SENT') = (sent_at IS NOT NULL)),
            CONSTRAINT ck_event_outbox_failed_has_error CHECK (status <> 'FAILED' OR last_error IS NOT NULL),
            CONSTRAINT ck_event_outbox_scheduled_not_before_created CHECK (scheduled_at >= created_at)
        );

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
        CREATE INDEX idx_event_outbox_headers ON event_outbox USING gin (headers);;

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
        COMMENT ON COLUMN event_outbox.sent_at IS 'Time of delivery; set exactly when SENT.';;

UPDATE public.alembic_version SET version_num='ng_0004' WHERE public.alembic_version.version_num = 'ng_0003';

DO $is_db_bootstrap$
DECLARE
    place text := '"public"."alembic_version"';
    told text := coalesce(obj_description(to_regclass(place), 'pg_class'), '');
    kept text := regexp_replace(told, '(; )?begun (upgrade|downgrade) [^ ]+$', '');
    wanted text := kept;
    has_row boolean := false;
BEGIN
    BEGIN
        INSERT INTO is_db_bootstrap.lineage (schema_name, table_name, blueprint, revisions)
        VALUES ('public', 'alembic_version', 'novel_genesis', ARRAY['ng_0001', 'ng_0002', 'ng_0003', 'ng_0004'])
        ON CONFLICT (schema_name, table_name) DO UPDATE SET blueprint = excluded.blueprint,
            revisions = excluded.revisions, recorded_at = excluded.recorded_at;
        has_row := true;
    EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
        NULL;
    END;
    IF has_row THEN
        BEGIN
            UPDATE is_db_bootstrap.lineage SET digests = (
            SELECT jsonb_object_agg(key, value) FROM jsonb_each(
                coalesce(digests, '{}') || '{"ng_0004": "fe67703a365c4fb0679013d081ef519d4004db6cb39c6d6d55916494149576b7"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint novel_genesis; revisions ng_0001 ng_0002 ng_0003 ng_0004';
    END IF;
    BEGIN
        IF wanted <> told THEN
            EXECUTE 'COMMENT ON TABLE ' || place || ' IS ' || quote_nullable(nullif(wanted, ''));
        END IF;
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
END
$is_db_bootstrap$;

COMMIT;

