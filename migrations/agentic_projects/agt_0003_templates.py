"""What new projects start from."""

from alembic import op

revision = "agt_0003"
down_revision = "agt_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _templates()


def downgrade() -> None:
    op.execute("DROP TABLE templates")


def _templates() -> None:
    op.execute("""
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
            CONSTRAINT ck_templates_name_not_blank CHECK (name ~ '\\S'),
            CONSTRAINT ck_templates_category CHECK (category IN ('api', 'web', 'mobile', 'data', 'microservice')),
            CONSTRAINT ck_templates_files_object CHECK (jsonb_typeof(files) = 'object'),
            CONSTRAINT ck_templates_required_vars_no_null CHECK (array_position(required_vars, NULL) IS NULL),
            CONSTRAINT ck_templates_optional_vars_no_null CHECK (array_position(optional_vars, NULL) IS NULL),
            CONSTRAINT ck_templates_tech_stack_no_null CHECK (array_position(tech_stack, NULL) IS NULL),
            CONSTRAINT ck_templates_tags_no_null CHECK (array_position(tags, NULL) IS NULL),
            CONSTRAINT ck_templates_estimated_setup_time_positive CHECK (estimated_setup_time > 0),
            CONSTRAINT ck_templates_complexity CHECK (complexity IN ('simple', 'medium', 'complex'))
        )
    """)
    op.execute("""
        CREATE INDEX idx_templates_category ON templates (category);
        CREATE INDEX idx_templates_complexity ON templates (complexity);
        CREATE INDEX idx_templates_created_at ON templates (created_at DESC);
        CREATE INDEX idx_templates_files ON templates USING gin (files);
        CREATE INDEX idx_templates_tech_stack ON templates USING gin (tech_stack);
        CREATE INDEX idx_templates_tags ON templates USING gin (tags);
    """)
    op.execute("""
        CREATE TRIGGER trg_templates_set_updated_at BEFORE UPDATE ON templates
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE templates IS 'What new projects start from.';
        COMMENT ON COLUMN templates.name IS 'Unique.';
        COMMENT ON COLUMN templates.files IS 'File name to template content.';
        COMMENT ON COLUMN templates.required_vars IS 'Variables the user must give.';
        COMMENT ON COLUMN templates.optional_vars IS 'Variables the user may give.';
        COMMENT ON COLUMN templates.estimated_setup_time IS 'Minutes.';
        COMMENT ON COLUMN templates.updated_at IS 'Set by trigger.';
    """)
