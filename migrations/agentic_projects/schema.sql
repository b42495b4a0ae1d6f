-- Blueprint agentic_projects: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.

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

-- Running upgrade  -> agt_0001

CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := clock_timestamp();
            RETURN NEW;
        END
        $$;

CREATE TABLE project_contexts (
            id                 uuid          NOT NULL DEFAULT gen_random_uuid(),
            name               varchar(255)  NOT NULL,
            type               varchar(50)   NOT NULL,
            status             varchar(20)   NOT NULL DEFAULT 'active',
            owner_id           varchar(255)  NOT NULL,
            codebase           jsonb         NOT NULL DEFAULT '{}'::jsonb,
            dependencies       text[]        NOT NULL DEFAULT '{}'::text[],
            environment_vars   jsonb         NOT NULL DEFAULT '{}'::jsonb,
            deployment_config  jsonb         NOT NULL DEFAULT '{}'::jsonb,
            test_coverage      numeric(5,4)  NOT NULL DEFAULT 0.0,
            security_score     numeric(5,4)  NOT NULL DEFAULT 0.0,
            performance_score  numeric(5,4)  NOT NULL DEFAULT 0.0,
            created_at         timestamptz   NOT NULL DEFAULT now(),
            updated_at         timestamptz   NOT NULL DEFAULT now(),
            last_deployed_at   timestamptz,
            CONSTRAINT pk_project_contexts PRIMARY KEY (id),
            CONSTRAINT ck_project_contexts_name_not_blank CHECK (name ~ '\S'),
            CONSTRAINT ck_project_contexts_type
                CHECK (type IN ('api', 'web_app', 'mobile_backend', 'data_pipeline', 'microservice')),
            CONSTRAINT ck_project_contexts_status CHECK (status IN ('active', 'archived', 'deleted')),
            CONSTRAINT ck_project_contexts_codebase_object CHECK (jsonb_typeof(codebase) = 'object'),
            CONSTRAINT ck_project_contexts_dependencies_no_null CHECK (array_position(dependencies, NULL) IS NULL),
            CONSTRAINT ck_project_contexts_environment_vars_object CHECK (jsonb_typeof(environment_vars) = 'object'),
            CONSTRAINT ck_project_contexts_deployment_config_object
                CHECK (jsonb_typeof(deployment_config) = 'object'),
            CONSTRAINT ck_project_contexts_test_coverage_range CHECK (test_coverage >= 0 AND test_coverage <= 1),
            CONSTRAINT ck_project_contexts_security_score_range CHECK (security_score >= 0 AND security_score <= 1),
            CONSTRAINT ck_project_contexts_performance_score_range
                CHECK (performance_score >= 0 AND performance_score <= 1)
        );

CREATE INDEX idx_project_contexts_owner_id ON project_contexts (owner_id);
        CREATE INDEX idx_project_contexts_status ON project_contexts (status);
        CREATE INDEX idx_project_contexts_type ON project_contexts (type);
        CREATE INDEX idx_project_contexts_created_at ON project_contexts (created_at DESC);
        CREATE INDEX idx_project_contexts_updated_at ON project_contexts (updated_at DESC);
        CREATE INDEX idx_project_contexts_codebase ON project_contexts USING gin (codebase);
        CREATE INDEX idx_project_contexts_environment_vars ON project_contexts USING gin (environment_vars);
        CREATE INDEX idx_project_contexts_owner_status ON project_contexts (owner_id, status);;

CREATE TRIGGER trg_project_contexts_set_updated_at BEFORE UPDATE ON project_contexts
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE project_contexts IS 'The full state of a project across iterations.';
        COMMENT ON COLUMN project_contexts.type IS 'Kind of software.';
        COMMENT ON COLUMN project_contexts.owner_id IS 'User or team, as the surrounding system names it.';
        COMMENT ON COLUMN project_contexts.codebase IS 'File name to content.';
        COMMENT ON COLUMN project_contexts.dependencies IS 'Package requirements.';
        COMMENT ON COLUMN project_contexts.environment_vars IS
            'Variable to value; values are references to a secret store, not secrets.';
        COMMENT ON COLUMN project_contexts.test_coverage IS '0 to 1.';
        COMMENT ON COLUMN project_contexts.security_score IS '0 to 1.';
        COMMENT ON COLUMN project_contexts.performance_score IS '0 to 1.';
        COMMENT ON COLUMN project_contexts.updated_at IS 'Set by trigger.';;

INSERT INTO public.alembic_version (version_num) VALUES ('agt_0001') RETURNING public.alembic_version.version_num;

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
        VALUES ('public', 'alembic_version', 'agentic_projects', ARRAY['agt_0001'])
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
                coalesce(digests, '{}') || '{"agt_0001": "38173eb66cbbb77e145b92aa06d9fddd0ca4af72a391f2b1b637d26e9293957b"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint agentic_projects; revisions agt_0001';
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

-- Running upgrade agt_0001 -> agt_0002

CREATE TABLE modifications (
            id               uuid          NOT NULL DEFAULT gen_random_uuid(),
            project_id       uuid          NOT NULL,
            request          text          NOT NULL,
            requested_by     varchar(255)  NOT NULL,
            requested_at     timestamptz   NOT NULL DEFAULT now(),
            impact_analysis  jsonb         NOT NULL DEFAULT '{}'::jsonb,
            affected_files   text[]        NOT NULL DEFAULT '{}'::text[],
            status           varchar(20)   NOT NULL DEFAULT 'pending',
            applied_at       timestamptz,
            modified_files   jsonb         NOT NULL DEFAULT '{}'::jsonb,
            test_results     jsonb         NOT NULL DEFAULT '{}'::jsonb,
            CONSTRAINT pk_modifications PRIMARY KEY (id),
            CONSTRAINT fk_modifications_project_id_project_contexts
                FOREIGN KEY (project_id) REFERENCES project_contexts (id) ON DELETE CASCADE,
            CONSTRAINT ck_modifications_request_not_blank CHECK (request ~ '\S'),
            CONSTRAINT ck_modifications_status
                CHECK (status IN ('pending', 'approved', 'applied', 'failed', 'rejected')),
            CONSTRAINT ck_modifications_applied_at CHECK ((status = 'applied') = (applied_at IS NOT NULL)),
            CONSTRAINT ck_modifications_impact_analysis_object CHECK (jsonb_typeof(impact_analysis) = 'object'),
            CONSTRAINT ck_modifications_affected_files_no_null CHECK (array_position(affected_files, NULL) IS NULL),
            CONSTRAINT ck_modifications_modified_files_object CHECK (jsonb_typeof(modified_files) = 'object'),
            CONSTRAINT ck_modifications_test_results_object CHECK (jsonb_typeof(test_results) = 'object')
        );

CREATE INDEX idx_modifications_project_id ON modifications (project_id);
        CREATE INDEX idx_modifications_requested_by ON modifications (requested_by);
        CREATE INDEX idx_modifications_status ON modifications (status);
        CREATE INDEX idx_modifications_requested_at ON modifications (requested_at DESC);
        CREATE INDEX idx_modifications_impact_analysis ON modifications USING gin (impact_analysis);
        CREATE INDEX idx_modifications_test_results ON modifications USING gin (test_results);
        CREATE INDEX idx_modifications_project_status ON modifications (project_id, status);;

COMMENT ON TABLE modifications IS 'Change requests to a project, their analysis and their outcome.';
        COMMENT ON COLUMN modifications.request IS 'What was asked for, in natural language.';
        COMMENT ON COLUMN modifications.status IS 'See 3.1.';
        COMMENT ON COLUMN modifications.applied_at IS 'Set exactly when applied.';
        COMMENT ON COLUMN modifications.modified_files IS 'File name to new content.';;

UPDATE public.alembic_version SET version_num='agt_0002' WHERE public.alembic_version.version_num = 'agt_0001';

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
        VALUES ('public', 'alembic_version', 'agentic_projects', ARRAY['agt_0001', 'agt_0002'])
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
                coalesce(digests, '{}') || '{"agt_0002": "2a45b789e674586dd1360f220a1d869c0cbf0e14c13088dc6e8931588cd79197"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint agentic_projects; revisions agt_0001 agt_0002';
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

-- Running upgrade agt_0002 -> agt_0003

CREATE TABLE templates (
            id                    uuid          NOT NULL DEFAULT gen_random_uuid(),
            name                  varchar(255)  NOT NULL,
            description           text          NOT NULL DEFAULT '',
            category              varchar(50)   NOT NULL,
            files                 jsonb         NOT NULL DEFAULT '{}'::jsonb,
            required_vars         text[]        NOT NULL DEFAULT '{}'::text[],
            optional_vars         text[]        NOT NULL DEFAULT '{}'::text[],
            tech_stack            text[]        NOT NULL DEFAULT '{}'::text[],
            estimated_setup_time  integer       NOT NULL DEFAULT 15,
            complexity            varchar(20)   NOT NULL DEFAULT 'medium',
            tags                  text[]        NOT NULL DEFAULT '{}'::text[],
            created_at            timestamptz   NOT NULL DEFAULT now(),
            updated_at            timestamptz   NOT NULL DEFAULT now(),
            CONSTRAINT pk_templates PRIMARY KEY (id),
            CONSTRAINT uq_templates_name UNIQUE (name),
            CONSTRAINT ck_templates_name_not_blank CHECK (name ~ '\S'),
            CONSTRAINT ck_templates_category CHECK (category IN ('api', 'web', 'mobile', 'data', 'microservice')),
            CONSTRAINT ck_templates_files_object CHECK (jsonb_typeof(files) = 'object'),
            CONSTRAINT ck_templates_required_vars_no_null CHECK (array_position(required_vars, NULL) IS NULL),
            CONSTRAINT ck_templates_optional_vars_no_null CHECK (array_position(optional_vars, NULL) IS NULL),
            CONSTRAINT ck_templates_tech_stack_no_null CHECK (array_position(tech_stack, NULL) IS NULL),
            CONSTRAINT ck_templates_tags_no_null CHECK (array_position(tags, NULL) IS NULL),
            CONSTRAINT ck_templates_estimated_setup_time_positive CHECK (estimated_setup_time > 0),
            CONSTRAINT ck_templates_complexity CHECK (complexity IN ('simple', 'medium', 'complex'))
        );

CREATE INDEX idx_templates_category ON templates (category);
        CREATE INDEX idx_templates_complexity ON templates (complexity);
        CREATE INDEX idx_templates_created_at ON templates (created_at DESC);
        CREATE INDEX idx_templates_files ON templates USING gin (files);
        CREATE INDEX idx_templates_tech_stack ON templates USING gin (tech_stack);
        CREATE INDEX idx_templates_tags ON templates USING gin (tags);;

CREATE TRIGGER trg_templates_set_updated_at BEFORE UPDATE ON templates
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();;

COMMENT ON TABLE templates IS 'What new projects start from.';
        COMMENT ON COLUMN templates.name IS 'Unique.';
        COMMENT ON COLUMN templates.files IS 'File name to template content.';
        COMMENT ON COLUMN templates.required_vars IS 'Variables the user must give.';
        COMMENT ON COLUMN templates.optional_vars IS 'Variables the user may give.';
        COMMENT ON COLUMN templates.estimated_setup_time IS 'Minutes.';
        COMMENT ON COLUMN templates.updated_at IS 'Set by trigger.';;

UPDATE public.alembic_version SET version_num='agt_0003' WHERE public.alembic_version.version_num = 'agt_0002';

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
        VALUES ('public', 'alembic_version', 'agentic_projects', ARRAY['agt_0001', 'agt_0002', 'agt_0003'])
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
                coalesce(digests, '{}') || '{"agt_0003": "87ee48f0eef2530fd7dc684ac73234bb70e70b40a287a6b6feb70f9e012a4c74"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint agentic_projects; revisions agt_0001 agt_0002 agt_0003';
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

