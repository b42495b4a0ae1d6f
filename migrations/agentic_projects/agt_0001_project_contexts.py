"""The projects that an agent works on, and the trigger function that tables share."""

from alembic import op

revision = "agt_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _function()
    _project_contexts()


def downgrade() -> None:
    op.execute("DROP TABLE project_contexts")
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = 'set_updated_at()'::regprocedure) THEN
                DROP FUNCTION set_updated_at();
            END IF;
        END
        $$
    """)


def _function() -> None:
    # OR REPLACE: it is shared by all tables of the database, and the downgrade leaves it to those that still use it.
    op.execute("""
        CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := clock_timestamp();
            RETURN NEW;
        END
        $$
    """)


def _project_contexts() -> None:
    op.execute("""
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
            CONSTRAINT ck_project_contexts_name_not_blank CHECK (name ~ '\\S'),
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
        )
    """)
    op.execute("""
        CREATE INDEX idx_project_contexts_owner_id ON project_contexts (owner_id);
        CREATE INDEX idx_project_contexts_status ON project_contexts (status);
        CREATE INDEX idx_project_contexts_type ON project_contexts (type);
        CREATE INDEX idx_project_contexts_created_at ON project_contexts (created_at DESC);
        CREATE INDEX idx_project_contexts_updated_at ON project_contexts (updated_at DESC);
        CREATE INDEX idx_project_contexts_codebase ON project_contexts USING gin (codebase);
        CREATE INDEX idx_project_contexts_environment_vars ON project_contexts USING gin (environment_vars);
        CREATE INDEX idx_project_contexts_owner_status ON project_contexts (owner_id, status);
    """)
    op.execute("""
        CREATE TRIGGER trg_project_contexts_set_updated_at BEFORE UPDATE ON project_contexts
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
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
        COMMENT ON COLUMN project_contexts.updated_at IS 'Set by trigger.';
    """)
