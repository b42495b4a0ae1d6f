"""The changes that people asked for."""

from alembic import op

revision = "agt_0002"
down_revision = "agt_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _modifications()


def downgrade() -> None:
    op.execute("DROP TABLE modifications")


def _modifications() -> None:
    op.execute("""
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
            CONSTRAINT ck_modifications_request_not_blank CHECK (request ~ '\\S'),
            CONSTRAINT ck_modifications_status
                CHECK (status IN ('pending', 'approved', 'applied', 'failed', 'rejected')),
            CONSTRAINT ck_modifications_applied_at CHECK ((status = 'applied') = (applied_at IS NOT NULL)),
            CONSTRAINT ck_modifications_impact_analysis_object CHECK (jsonb_typeof(impact_analysis) = 'object'),
            CONSTRAINT ck_modifications_affected_files_no_null CHECK (array_position(affected_files, NULL) IS NULL),
            CONSTRAINT ck_modifications_modified_files_object CHECK (jsonb_typeof(modified_files) = 'object'),
            CONSTRAINT ck_modifications_test_results_object CHECK (jsonb_typeof(test_results) = 'object')
        )
    """)
    op.execute("""
        CREATE INDEX idx_modifications_project_id ON modifications (project_id);
        CREATE INDEX idx_modifications_requested_by ON modifications (requested_by);
        CREATE INDEX idx_modifications_status ON modifications (status);
        CREATE INDEX idx_modifications_requested_at ON modifications (requested_at DESC);
        CREATE INDEX idx_modifications_impact_analysis ON modifications USING gin (impact_analysis);
        CREATE INDEX idx_modifications_test_results ON modifications USING gin (test_results);
        CREATE INDEX idx_modifications_project_status ON modifications (project_id, status);
    """)
    op.execute("""
        COMMENT ON TABLE modifications IS 'Change requests to a project, their analysis and their outcome.';
        COMMENT ON COLUMN modifications.request IS 'What was asked for, in natural language.';
        COMMENT ON COLUMN modifications.status IS 'See 3.1.';
        COMMENT ON COLUMN modifications.applied_at IS 'Set exactly when applied.';
        COMMENT ON COLUMN modifications.modified_files IS 'File name to new content.';
    """)
