"""Tools by name and version, and the words that they are found by."""

from alembic import op

revision = "ctx_0002"
down_revision = "ctx_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _extension()
    op.execute("CREATE TYPE tool_mode_enum AS ENUM ('cloud', 'local')")
    _tools()
    _tool_keywords()


def downgrade() -> None:
    op.execute("DROP TABLE tool_keywords")
    op.execute("DROP TABLE tools")
    op.execute("DROP TYPE tool_mode_enum")
    op.execute("""
        DO $$
        BEGIN
            IF EXISTS (SELECT FROM pg_extension
                       WHERE extname = 'pg_trgm' AND obj_description(oid, 'pg_extension') = 'created by is-db-bootstrap') THEN
                DROP EXTENSION pg_trgm;
            END IF;
        EXCEPTION WHEN dependent_objects_still_exist THEN
            NULL;
        END
        $$
    """)


def _extension() -> None:
    # An extension that was there before is used where it is; one of ours bears a mark, by which the downgrade knows it.
    op.execute("""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
                CREATE EXTENSION pg_trgm;
                COMMENT ON EXTENSION pg_trgm IS 'created by is-db-bootstrap';
            END IF;
        END
        $$
    """)


def _tools() -> None:
    op.execute("""
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
            CONSTRAINT ck_tools_name_not_blank CHECK (name ~ '\\S'),
            CONSTRAINT ck_tools_version_not_blank CHECK (version ~ '\\S'),
            CONSTRAINT ck_tools_schema_object CHECK (jsonb_typeof(schema) = 'object')
        )
    """)
    op.execute("""
        CREATE INDEX idx_tools_name ON tools (name);
        CREATE INDEX idx_tools_execution_mode ON tools (execution_mode);
    """)
    op.execute("""
        CREATE TRIGGER trg_tools_set_updated_at BEFORE UPDATE ON tools
            FOR EACH ROW EXECUTE FUNCTION set_updated_at();
    """)
    op.execute("""
        COMMENT ON TABLE tools IS 'The tools agents may call, by name and version.';
        COMMENT ON COLUMN tools.schema IS 'JSON Schema of the arguments, a JSON object.';
        COMMENT ON COLUMN tools.updated_at IS 'Set by trigger.';
    """)


def _tool_keywords() -> None:
    op.execute("""
        CREATE TABLE tool_keywords (
            id       bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,
            tool_id  uuid    NOT NULL,
            keyword  text    NOT NULL,
            CONSTRAINT pk_tool_keywords PRIMARY KEY (id),
            CONSTRAINT fk_tool_keywords_tool_id_tools FOREIGN KEY (tool_id) REFERENCES tools (id) ON DELETE CASCADE,
            CONSTRAINT uq_tool_keywords_tool_id_keyword UNIQUE (tool_id, keyword),
            CONSTRAINT ck_tool_keywords_keyword_not_blank CHECK (keyword ~ '\\S')
        )
    """)
    op.execute("""
        CREATE INDEX idx_tool_keywords_tool ON tool_keywords (tool_id);
    """)
    # The operator class is named with its schema, because an extension of others may stand outside the search path.
    op.execute("""
        DO $$
        BEGIN
            EXECUTE (
                SELECT format('CREATE INDEX idx_tool_keywords_keyword ON tool_keywords USING gin (keyword %I.gin_trgm_ops)', nspname)
                FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
                WHERE extname = 'pg_trgm'
            );
        END
        $$
    """)
    op.execute("""
        COMMENT ON TABLE tool_keywords IS 'Words a tool is found by, matched by trigram similarity.';
    """)
