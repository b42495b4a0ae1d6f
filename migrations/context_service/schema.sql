-- Blueprint context_service: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.

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

-- Running upgrade  -> ctx_0001

CREATE TYPE agent_status_enum AS ENUM ('active', 'inactive', 'error');

CREATE TYPE task_status_enum AS ENUM ('pending', 'in_progress', 'completed', 'failed', 'cancelled');

CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := clock_timestamp();
            RETURN NEW;
        END
        $$;

CREATE TABLE agents (
            id                uuid               NOT NULL DEFAULT gen_random_uuid(),
            name              text               NOT NULL,
            description       text,
            base_prompt       text               NOT NULL,
            allowed_tool_ids  uuid[]             NOT NULL DEFAULT '{}'::uuid[],
            status            agent_status_enum  NOT NULL DEFAULT 'active',
            created_at        timestamptz        NOT NULL DEFAULT now(),
            updated_at        timestamptz        NOT NULL DEFAULT now(),
            CONSTRAINT pk_agents PRIMARY KEY (id),
            CONSTRAINT uq_agents_name UNIQUE (name),
            CONSTRAINT ck_agents_name_not_blank CHECK (name ~ '\S'),
            CONSTRAINT ck_agents_allowed_tool_ids_no_null CHECK (array_position(allowed_tool_ids, NULL) IS NULL)
        );

CREATE INDEX idx_agents_name ON agents (name);
        CREATE INDEX idx_agents_status ON agents (status);;

CREATE TRIGGER trg_agents_set_updated_at BEFORE UPDATE ON agents
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE agents IS 'The agents that may be given work.';
        COMMENT ON COLUMN agents.name IS 'Unique.';
        COMMENT ON COLUMN agents.base_prompt IS 'Default system prompt.';
        COMMENT ON COLUMN agents.allowed_tool_ids IS
            'Tools this agent may use; an array cannot carry a foreign key, so readers ignore ids that no longer exist.';
        COMMENT ON COLUMN agents.updated_at IS 'Set by trigger.';;

CREATE TABLE tasks (
            id              uuid              NOT NULL DEFAULT gen_random_uuid(),
            parent_task_id  uuid,
            agent_id        uuid              NOT NULL,
            payload         jsonb             NOT NULL,
            status          task_status_enum  NOT NULL DEFAULT 'pending',
            priority        smallint          NOT NULL DEFAULT 100,
            retries         smallint          NOT NULL DEFAULT 0,
            scheduled_at    timestamptz,
            started_at      timestamptz,
            completed_at    timestamptz,
            created_at      timestamptz       NOT NULL DEFAULT now(),
            updated_at      timestamptz       NOT NULL DEFAULT now(),
            CONSTRAINT pk_tasks PRIMARY KEY (id),
            CONSTRAINT fk_tasks_parent_task_id_tasks
                FOREIGN KEY (parent_task_id) REFERENCES tasks (id) ON DELETE CASCADE,
            CONSTRAINT fk_tasks_agent_id_agents FOREIGN KEY (agent_id) REFERENCES agents (id) ON DELETE RESTRICT,
            CONSTRAINT ck_tasks_parent_not_self CHECK (parent_task_id <> id),
            CONSTRAINT ck_tasks_payload_object CHECK (jsonb_typeof(payload) = 'object'),
            CONSTRAINT ck_tasks_priority_non_negative CHECK (priority >= 0),
            CONSTRAINT ck_tasks_retries_non_negative CHECK (retries >= 0),
            CONSTRAINT ck_tasks_completed_after_started CHECK (completed_at >= started_at)
        );

CREATE INDEX idx_tasks_status ON tasks (status);
        CREATE INDEX idx_tasks_agent_status ON tasks (agent_id, status);
        CREATE INDEX idx_tasks_parent ON tasks (parent_task_id);
        CREATE INDEX idx_tasks_scheduled ON tasks (scheduled_at);;

CREATE TRIGGER trg_tasks_set_updated_at BEFORE UPDATE ON tasks
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE tasks IS 'Work given to an agent.';
        COMMENT ON COLUMN tasks.parent_task_id IS 'A child goes with its parent.';
        COMMENT ON COLUMN tasks.agent_id IS 'An agent that has tasks cannot be deleted, so history is not lost.';
        COMMENT ON COLUMN tasks.payload IS 'JSON object, see 3.1.';
        COMMENT ON COLUMN tasks.priority IS 'Smaller is served first.';
        COMMENT ON COLUMN tasks.scheduled_at IS 'Planned start.';
        COMMENT ON COLUMN tasks.started_at IS 'Actual start.';
        COMMENT ON COLUMN tasks.completed_at IS 'End.';
        COMMENT ON COLUMN tasks.updated_at IS 'Set by trigger.';;

CREATE TABLE task_slices (
            id           uuid              NOT NULL DEFAULT gen_random_uuid(),
            task_id      uuid              NOT NULL,
            slice_index  integer           NOT NULL,
            content      jsonb             NOT NULL,
            status       task_status_enum  NOT NULL DEFAULT 'pending',
            created_at   timestamptz       NOT NULL DEFAULT now(),
            updated_at   timestamptz       NOT NULL DEFAULT now(),
            CONSTRAINT pk_task_slices PRIMARY KEY (id),
            CONSTRAINT fk_task_slices_task_id_tasks FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
            CONSTRAINT uq_task_slices_task_id_slice_index UNIQUE (task_id, slice_index),
            CONSTRAINT ck_task_slices_slice_index_non_negative CHECK (slice_index >= 0),
            CONSTRAINT ck_task_slices_content_object CHECK (jsonb_typeof(content) = 'object')
        );

CREATE INDEX idx_task_slices_task ON task_slices (task_id);
        CREATE INDEX idx_task_slices_task_index ON task_slices (task_id, slice_index);;

CREATE TRIGGER trg_task_slices_set_updated_at BEFORE UPDATE ON task_slices
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE task_slices IS 'The steps a task is cut into.';
        COMMENT ON COLUMN task_slices.slice_index IS 'Position, counted from 0.';
        COMMENT ON COLUMN task_slices.content IS 'JSON object, see 3.1.';
        COMMENT ON COLUMN task_slices.updated_at IS 'Set by trigger.';;

CREATE TABLE event_queue (
            id                  uuid         NOT NULL DEFAULT gen_random_uuid(),
            task_id             uuid         NOT NULL,
            payload             jsonb        NOT NULL,
            priority            smallint     NOT NULL DEFAULT 100,
            available_at        timestamptz  NOT NULL DEFAULT now(),
            visibility_timeout  integer      NOT NULL DEFAULT 300,
            attempts            smallint     NOT NULL DEFAULT 0,
            max_attempts        smallint     NOT NULL DEFAULT 3,
            created_at          timestamptz  NOT NULL DEFAULT now(),
            updated_at          timestamptz  NOT NULL DEFAULT now(),
            CONSTRAINT pk_event_queue PRIMARY KEY (id),
            CONSTRAINT fk_event_queue_task_id_tasks FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
            CONSTRAINT ck_event_queue_payload_object CHECK (jsonb_typeof(payload) = 'object'),
            CONSTRAINT ck_event_queue_priority_non_negative CHECK (priority >= 0),
            CONSTRAINT ck_event_queue_visibility_timeout_positive CHECK (visibility_timeout > 0),
            CONSTRAINT ck_event_queue_attempts_non_negative CHECK (attempts >= 0),
            CONSTRAINT ck_event_queue_max_attempts_positive CHECK (max_attempts > 0),
            CONSTRAINT ck_event_queue_attempts_within_max CHECK (attempts <= max_attempts)
        );

CREATE INDEX idx_event_queue_available ON event_queue (available_at);
        CREATE INDEX idx_event_queue_task ON event_queue (task_id);
        CREATE INDEX idx_event_queue_priority_available ON event_queue (priority, available_at);;

CREATE TRIGGER trg_event_queue_set_updated_at BEFORE UPDATE ON event_queue
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE event_queue IS 'Tasks waiting to be picked up.';
        COMMENT ON COLUMN event_queue.payload IS 'Snapshot of what the worker needs, a JSON object.';
        COMMENT ON COLUMN event_queue.priority IS 'Smaller is served first.';
        COMMENT ON COLUMN event_queue.available_at IS 'Not handed out before; moved forward by each claim.';
        COMMENT ON COLUMN event_queue.visibility_timeout IS 'Seconds a claimed row stays hidden.';
        COMMENT ON COLUMN event_queue.attempts IS 'Claims so far.';
        COMMENT ON COLUMN event_queue.updated_at IS 'Set by trigger.';;

INSERT INTO public.alembic_version (version_num) VALUES ('ctx_0001') RETURNING public.alembic_version.version_num;

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
        VALUES ('public', 'alembic_version', 'context_service', ARRAY['ctx_0001'])
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
                coalesce(digests, '{}') || '{"ctx_0001": "b4a8a6e45dd489b2fc741603f88f277bb63fff8f9936882ab069f6a1c3c2ab13"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint context_service; revisions ctx_0001';
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

-- Running upgrade ctx_0001 -> ctx_0002

DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
                CREATE EXTENSION pg_trgm;
                COMMENT ON EXTENSION pg_trgm IS 'created by is-db-bootstrap';
            END IF;
        END
        $$;

CREATE TYPE tool_mode_enum AS ENUM ('cloud', 'local');

CREATE TABLE tools (
            id              uuid            NOT NULL DEFAULT gen_random_uuid(),
            name            text            NOT NULL,
            version         text            NOT NULL DEFAULT 'v1.0.0',
            execution_mode  tool_mode_enum  NOT NULL DEFAULT 'cloud',
            schema          jsonb           NOT NULL,
            description     text,
            created_at      timestamptz     NOT NULL DEFAULT now(),
            updated_at      timestamptz     NOT NULL DEFAULT now(),
            CONSTRAINT pk_tools PRIMARY KEY (id),
            CONSTRAINT uq_tools_name_version UNIQUE (name, version),
            CONSTRAINT ck_tools_name_not_blank CHECK (name ~ '\S'),
            CONSTRAINT ck_tools_version_not_blank CHECK (version ~ '\S'),
            CONSTRAINT ck_tools_schema_object CHECK (jsonb_typeof(schema) = 'object')
        );

CREATE INDEX idx_tools_name ON tools (name);
        CREATE INDEX idx_tools_execution_mode ON tools (execution_mode);;

CREATE TRIGGER trg_tools_set_updated_at BEFORE UPDATE ON tools
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE tools IS 'The tools agents may call, by name and version.';
        COMMENT ON COLUMN tools.schema IS 'JSON Schema of the arguments, a JSON object.';
        COMMENT ON COLUMN tools.updated_at IS 'Set by trigger.';;

CREATE TABLE tool_keywords (
            id       bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,
            tool_id  uuid    NOT NULL,
            keyword  text    NOT NULL,
            CONSTRAINT pk_tool_keywords PRIMARY KEY (id),
            CONSTRAINT fk_tool_keywords_tool_id_tools FOREIGN KEY (tool_id) REFERENCES tools (id) ON DELETE CASCADE,
            CONSTRAINT uq_tool_keywords_tool_id_keyword UNIQUE (tool_id, keyword),
            CONSTRAINT ck_tool_keywords_keyword_not_blank CHECK (keyword ~ '\S')
        );

CREATE INDEX idx_tool_keywords_tool ON tool_keywords (tool_id);;

DO $$
        BEGIN
            EXECUTE (
                SELECT format('CREATE INDEX idx_tool_keywords_keyword ON tool_keywords USING gin (keyword %I.gin_trgm_ops)', nspname)
                FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
                WHERE extname = 'pg_trgm'
            );
        END
        $$;

COMMENT ON TABLE tool_keywords IS 'Words a tool is found by, matched by trigram similarity.';;

UPDATE public.alembic_version SET version_num='ctx_0002' WHERE public.alembic_version.version_num = 'ctx_0001';

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
        VALUES ('public', 'alembic_version', 'context_service', ARRAY['ctx_0001', 'ctx_0002'])
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
                coalesce(digests, '{}') || '{"ctx_0002": "e4bc12db47b8f840169816b5790842c9b918cec757411fed511a4abacaa8af39"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint context_service; revisions ctx_0001 ctx_0002';
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

-- Running upgrade ctx_0002 -> ctx_0003

CREATE TYPE result_type_enum AS ENUM ('tool_result', 'task_result');

CREATE TYPE review_status_enum AS ENUM ('pass', 'fail');

CREATE TABLE task_results (
            id           uuid              NOT NULL DEFAULT gen_random_uuid(),
            task_id      uuid              NOT NULL,
            tool_id      uuid,
            result_type  result_type_enum  NOT NULL,
            data         jsonb             NOT NULL,
            created_at   timestamptz       NOT NULL DEFAULT now(),
            CONSTRAINT pk_task_results PRIMARY KEY (id),
            CONSTRAINT fk_task_results_task_id_tasks FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
            CONSTRAINT fk_task_results_tool_id_tools FOREIGN KEY (tool_id) REFERENCES tools (id) ON DELETE SET NULL
        );

CREATE INDEX idx_task_results_task ON task_results (task_id);
        CREATE INDEX idx_task_results_tool ON task_results (tool_id);
        CREATE INDEX idx_task_results_type ON task_results (result_type);
        CREATE INDEX idx_task_results_created ON task_results (created_at);;

COMMENT ON TABLE task_results IS 'What tools and tasks produced.';
        COMMENT ON COLUMN task_results.tool_id IS 'The tool that produced it, while it exists.';
        COMMENT ON COLUMN task_results.data IS 'Any JSON value.';;

CREATE TABLE review_records (
            id          uuid                NOT NULL DEFAULT gen_random_uuid(),
            task_id     uuid                NOT NULL,
            status      review_status_enum  NOT NULL,
            score       numeric(5,2),
            reviewer    text                NOT NULL,
            created_at  timestamptz         NOT NULL DEFAULT now(),
            CONSTRAINT pk_review_records PRIMARY KEY (id),
            CONSTRAINT fk_review_records_task_id_tasks FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
            CONSTRAINT ck_review_records_score_range CHECK (score >= 0 AND score <= 100),
            CONSTRAINT ck_review_records_reviewer_not_blank CHECK (reviewer ~ '\S')
        );

CREATE INDEX idx_review_status ON review_records (status);
        CREATE INDEX idx_review_task ON review_records (task_id);
        CREATE INDEX idx_review_created ON review_records (created_at);;

COMMENT ON TABLE review_records IS 'Judgements on a task''s outcome, by a model or a person.';
        COMMENT ON COLUMN review_records.score IS '0 to 100.';
        COMMENT ON COLUMN review_records.reviewer IS 'Model name or person.';;

UPDATE public.alembic_version SET version_num='ctx_0003' WHERE public.alembic_version.version_num = 'ctx_0002';

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
        VALUES ('public', 'alembic_version', 'context_service', ARRAY['ctx_0001', 'ctx_0002', 'ctx_0003'])
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
                coalesce(digests, '{}') || '{"ctx_0003": "3257acb78318d2776c4a18859aa790d38968ac333ee75319201d21e8218ef5f7"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint context_service; revisions ctx_0001 ctx_0002 ctx_0003';
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

