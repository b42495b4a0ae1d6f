"""What tools and tasks produced, and how it was judged."""

from alembic import op

revision = "ctx_0003"
down_revision = "ctx_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TYPE result_type_enum AS ENUM ('tool_result', 'task_result')")
    op.execute("CREATE TYPE review_status_enum AS ENUM ('pass', 'fail')")
    _task_results()
    _review_records()


def downgrade() -> None:
    op.execute("DROP TABLE review_records")
    op.execute("DROP TABLE task_results")
    op.execute("DROP TYPE review_status_enum")
    op.execute("DROP TYPE result_type_enum")


def _task_results() -> None:
    op.execute("""
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
        )
    """)
    op.execute("""
        CREATE INDEX idx_task_results_task ON task_results (task_id);
        CREATE INDEX idx_task_results_tool ON task_results (tool_id);
        CREATE INDEX idx_task_results_type ON task_results (result_type);
        CREATE INDEX idx_task_results_created ON task_results (created_at);
    """)
    op.execute("""
        COMMENT ON TABLE task_results IS 'What tools and tasks produced.';
        COMMENT ON COLUMN task_results.tool_id IS 'The tool that produced it, while it exists.';
        COMMENT ON COLUMN task_results.data IS 'Any JSON value.';
    """)


def _review_records() -> None:
    op.execute("""
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
            CONSTRAINT ck_review_records_reviewer_not_blank CHECK (reviewer ~ '\\S')
        )
    """)
    op.execute("""
        CREATE INDEX idx_review_status ON review_records (status);
        CREATE INDEX idx_review_task ON review_records (task_id);
        CREATE INDEX idx_review_created ON review_records (created_at);
    """)
    op.execute("""
        COMMENT ON TABLE review_records IS 'Judgements on a task''s outcome, by a model or a person.';
        COMMENT ON COLUMN review_records.score IS '0 to 100.';
        COMMENT ON COLUMN review_records.reviewer IS 'Model name or person.';
    """)
