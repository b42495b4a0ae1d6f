"""Agents, their tasks cut into slices, and the queue of tasks that wait."""

from alembic import op

revision = "ctx_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE TYPE agent_status_enum AS ENUM ('active', 'inactive', 'error')")
    op.execute(
        "CREATE TYPE task_status_enum AS ENUM ('pending', 'in_progress', 'completed', 'failed', 'cancelled')"
    )
    _function()
    _agents()
    _tasks()
    _task_slices()
    _event_queue()


def downgrade() -> None:
    op.execute("DROP TABLE event_queue")
    op.execute("DROP TABLE task_slices")
    op.execute("DROP TABLE tasks")
    op.execute("DROP TABLE agents")
    op.execute("DROP TYPE task_status_enum")
    op.execute("DROP TYPE agent_status_enum")
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


def _agents() -> None:
    op.execute("""
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
            CONSTRAINT ck_agents_name_not_blank CHECK (name ~ '\\S'),
            CONSTRAINT ck_agents_allowed_tool_ids_no_null CHECK (array_position(allowed_tool_ids, NULL) IS NULL)
        )
    """)
    op.execute("""
        CREATE INDEX idx_agents_name ON agents (name);
        CREATE INDEX idx_agents_status ON agents (status);
    """)
    op.execute("""
        CREATE TRIGGER trg_agents_set_updated_at BEFORE UPDATE ON agents
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE agents IS 'The agents that may be given work.';
        COMMENT ON COLUMN agents.name IS 'Unique.';
        COMMENT ON COLUMN agents.base_prompt IS 'Default system prompt.';
        COMMENT ON COLUMN agents.allowed_tool_ids IS
            'Tools this agent may use; an array cannot carry a foreign key, so readers ignore ids that no longer exist.';
        COMMENT ON COLUMN agents.updated_at IS 'Set by trigger.';
    """)


def _tasks() -> None:
    op.execute("""
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
        )
    """)
    op.execute("""
        CREATE INDEX idx_tasks_status ON tasks (status);
        CREATE INDEX idx_tasks_agent_status ON tasks (agent_id, status);
        CREATE INDEX idx_tasks_parent ON tasks (parent_task_id);
        CREATE INDEX idx_tasks_scheduled ON tasks (scheduled_at);
    """)
    op.execute("""
        CREATE TRIGGER trg_tasks_set_updated_at BEFORE UPDATE ON tasks
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE tasks IS 'Work given to an agent.';
        COMMENT ON COLUMN tasks.parent_task_id IS 'A child goes with its parent.';
        COMMENT ON COLUMN tasks.agent_id IS 'An agent that has tasks cannot be deleted, so history is not lost.';
        COMMENT ON COLUMN tasks.payload IS 'JSON object, see 3.1.';
        COMMENT ON COLUMN tasks.priority IS 'Smaller is served first.';
        COMMENT ON COLUMN tasks.scheduled_at IS 'Planned start.';
        COMMENT ON COLUMN tasks.started_at IS 'Actual start.';
        COMMENT ON COLUMN tasks.completed_at IS 'End.';
        COMMENT ON COLUMN tasks.updated_at IS 'Set by trigger.';
    """)


def _task_slices() -> None:
    op.execute("""
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
        )
    """)
    op.execute("""
        CREATE INDEX idx_task_slices_task ON task_slices (task_id);
        CREATE INDEX idx_task_slices_task_index ON task_slices (task_id, slice_index);
    """)
    op.execute("""
        CREATE TRIGGER trg_task_slices_set_updated_at BEFORE UPDATE ON task_slices
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE task_slices IS 'The steps a task is cut into.';
        COMMENT ON COLUMN task_slices.slice_index IS 'Position, counted from 0.';
        COMMENT ON COLUMN task_slices.content IS 'JSON object, see 3.1.';
        COMMENT ON COLUMN task_slices.updated_at IS 'Set by trigger.';
    """)


def _event_queue() -> None:
    op.execute("""
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
        )
    """)
    op.execute("""
        CREATE INDEX idx_event_queue_available ON event_queue (available_at);
        CREATE INDEX idx_event_queue_task ON event_queue (task_id);
        CREATE INDEX idx_event_queue_priority_available ON event_queue (priority, available_at);
    """)
    op.execute("""
        CREATE TRIGGER trg_event_queue_set_updated_at BEFORE UPDATE ON event_queue
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE event_queue IS 'Tasks waiting to be picked up.';
        COMMENT ON COLUMN event_queue.payload IS 'Snapshot of what the worker needs, a JSON object.';
        COMMENT ON COLUMN event_queue.priority IS 'Smaller is served first.';
        COMMENT ON COLUMN event_queue.available_at IS 'Not handed out before; moved forward by each claim.';
        COMMENT ON COLUMN event_queue.visibility_timeout IS 'Seconds a claimed row stays hidden.';
        COMMENT ON COLUMN event_queue.attempts IS 'Claims so far.';
        COMMENT ON COLUMN event_queue.updated_at IS 'Set by trigger.';
    """)
