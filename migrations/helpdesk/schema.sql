-- Blueprint helpdesk: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.

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

-- Running upgrade  -> hd_0001

CREATE TABLE agents (
            id                 serial            NOT NULL,
            agent_id           varchar(50)       NOT NULL,
            username           varchar(50)       NOT NULL,
            password_hash      varchar(255)      NOT NULL,
            name               varchar(100)      NOT NULL,
            avatar_url         varchar(500),
            role               varchar(20)       NOT NULL,
            status             varchar(20)       NOT NULL,
            status_note        varchar(200),
            status_updated_at  double precision,
            last_active_at     double precision,
            last_login_at      double precision,
            max_sessions       integer           NOT NULL,
            skills             jsonb,
            created_at         double precision  NOT NULL,
            updated_at         double precision  NOT NULL,
            CONSTRAINT pk_agents PRIMARY KEY (id),
            CONSTRAINT ck_agents_role CHECK (role IN ('agent', 'admin')),
            CONSTRAINT ck_agents_status CHECK (status IN ('online', 'busy', 'break', 'lunch', 'training', 'offline'))
        );

CREATE UNIQUE INDEX ix_agents_agent_id ON agents (agent_id);
        CREATE UNIQUE INDEX ix_agents_username ON agents (username);
        CREATE INDEX ix_agents_role ON agents (role);
        CREATE INDEX ix_agents_status ON agents (status);
        CREATE INDEX ix_agents_role_status ON agents (role, status);;

CREATE TABLE audit_logs (
            id             serial            NOT NULL,
            audit_id       varchar(50)       NOT NULL,
            ticket_id      varchar(50)       NOT NULL,
            event_type     varchar(50)       NOT NULL,
            operator_id    varchar(100)      NOT NULL,
            operator_name  varchar(100),
            details        jsonb,
            created_at     double precision  NOT NULL,
            CONSTRAINT pk_audit_logs PRIMARY KEY (id),
            CONSTRAINT ck_audit_logs_event_type
                CHECK (event_type IN ('created', 'status_changed', 'priority_changed', 'assigned', 'commented', 'attachment_uploaded'))
        );

CREATE UNIQUE INDEX ix_audit_logs_audit_id ON audit_logs (audit_id);
        CREATE INDEX ix_audit_logs_ticket_id ON audit_logs (ticket_id);
        CREATE INDEX ix_audit_logs_event_type ON audit_logs (event_type);
        CREATE INDEX ix_audit_logs_operator_id ON audit_logs (operator_id);
        CREATE INDEX ix_audit_logs_created_at ON audit_logs (created_at);
        CREATE INDEX ix_audit_logs_ticket_created ON audit_logs (ticket_id, created_at);
        CREATE INDEX ix_audit_logs_operator_created ON audit_logs (operator_id, created_at);;

CREATE TABLE email_records (
            id                 serial            NOT NULL,
            record_id          varchar(50)       NOT NULL,
            subject            varchar(500)      NOT NULL,
            from_email         varchar(200)      NOT NULL,
            to_email           varchar(200)      NOT NULL,
            cc_emails          varchar(1000),
            bcc_emails         varchar(1000),
            body_text          text,
            body_html          text,
            email_type         varchar(50),
            template_id        varchar(100),
            session_id         varchar(100),
            ticket_id          varchar(50),
            customer_id        varchar(100),
            status             varchar(20)       NOT NULL,
            error_message      text,
            retry_count        integer           NOT NULL,
            external_id        varchar(200),
            external_response  jsonb,
            created_at         double precision  NOT NULL,
            sent_at            double precision,
            CONSTRAINT pk_email_records PRIMARY KEY (id),
            CONSTRAINT ck_email_records_email_type
                CHECK (email_type IN ('general', 'notification', 'reply', 'escalation', 'system')),
            CONSTRAINT ck_email_records_status CHECK (status IN ('pending', 'sent', 'failed'))
        );

CREATE UNIQUE INDEX ix_email_records_record_id ON email_records (record_id);
        CREATE INDEX ix_email_records_to_email ON email_records (to_email);
        CREATE INDEX ix_email_records_email_type ON email_records (email_type);
        CREATE INDEX ix_email_records_session_id ON email_records (session_id);
        CREATE INDEX ix_email_records_ticket_id ON email_records (ticket_id);
        CREATE INDEX ix_email_records_customer_id ON email_records (customer_id);
        CREATE INDEX ix_email_records_status ON email_records (status);
        CREATE INDEX ix_email_records_created_at ON email_records (created_at);
        CREATE INDEX ix_email_records_to_created ON email_records (to_email, created_at);
        CREATE INDEX ix_email_records_status_created ON email_records (status, created_at);;

CREATE TABLE session_archives (
            id                serial            NOT NULL,
            archive_id        varchar(50)       NOT NULL,
            session_id        varchar(100)      NOT NULL,
            session_name      varchar(200),
            customer_id       varchar(100),
            customer_email    varchar(200),
            customer_name     varchar(100),
            agent_id          varchar(100),
            agent_name        varchar(100),
            channel           varchar(50),
            messages          jsonb,
            message_count     integer,
            duration_seconds  integer,
            ticket_id         varchar(50),
            started_at        double precision,
            ended_at          double precision,
            archived_at       double precision  NOT NULL,
            CONSTRAINT pk_session_archives PRIMARY KEY (id),
            CONSTRAINT ck_session_archives_channel CHECK (channel IN ('web', 'email', 'chat'))
        );

CREATE UNIQUE INDEX ix_session_archives_archive_id ON session_archives (archive_id);
        CREATE INDEX ix_session_archives_session_id ON session_archives (session_id);
        CREATE INDEX ix_session_archives_customer_id ON session_archives (customer_id);
        CREATE INDEX ix_session_archives_customer_email ON session_archives (customer_email);
        CREATE INDEX ix_session_archives_agent_id ON session_archives (agent_id);
        CREATE INDEX ix_session_archives_channel ON session_archives (channel);
        CREATE INDEX ix_session_archives_ticket_id ON session_archives (ticket_id);
        CREATE INDEX ix_session_archives_archived_at ON session_archives (archived_at);
        CREATE INDEX ix_session_archives_customer_archived ON session_archives (customer_id, archived_at);
        CREATE INDEX ix_session_archives_agent_archived ON session_archives (agent_id, archived_at);;

CREATE TABLE tickets (
            id                   serial            NOT NULL,
            ticket_id            varchar(50)       NOT NULL,
            title                varchar(500)      NOT NULL,
            description          text              NOT NULL,
            session_name         varchar(100),
            ticket_type          varchar(20)       NOT NULL,
            status               varchar(30)       NOT NULL,
            priority             varchar(20)       NOT NULL,
            created_by           varchar(100)      NOT NULL,
            created_by_name      varchar(100),
            assigned_agent_id    varchar(100),
            assigned_agent_name  varchar(100),
            customer             jsonb,
            extra_data           jsonb,
            closed_at            double precision,
            archived_at          double precision,
            first_response_at    double precision,
            resolved_at          double precision,
            reopened_at          double precision,
            reopened_count       integer           NOT NULL,
            reopened_by          varchar(100),
            created_at           double precision  NOT NULL,
            updated_at           double precision  NOT NULL,
            CONSTRAINT pk_tickets PRIMARY KEY (id),
            CONSTRAINT ck_tickets_ticket_type CHECK (ticket_type IN ('pre_sale', 'after_sale', 'complaint')),
            CONSTRAINT ck_tickets_status
                CHECK (status IN ('pending', 'in_progress', 'waiting_customer', 'waiting_vendor', 'resolved', 'closed', 'archived')),
            CONSTRAINT ck_tickets_priority CHECK (priority IN ('low', 'medium', 'high', 'urgent'))
        );

CREATE UNIQUE INDEX ix_tickets_ticket_id ON tickets (ticket_id);
        CREATE INDEX ix_tickets_session_name ON tickets (session_name);
        CREATE INDEX ix_tickets_status ON tickets (status);
        CREATE INDEX ix_tickets_priority ON tickets (priority);
        CREATE INDEX ix_tickets_created_by ON tickets (created_by);
        CREATE INDEX ix_tickets_assigned_agent_id ON tickets (assigned_agent_id);
        CREATE INDEX ix_tickets_status_priority ON tickets (status, priority);
        CREATE INDEX ix_tickets_created_at ON tickets (created_at);;

CREATE TABLE ticket_assignments (
            id           serial            NOT NULL,
            ticket_id    varchar(50)       NOT NULL,
            agent_id     varchar(100),
            agent_name   varchar(100),
            assigned_by  varchar(100),
            note         text,
            assigned_at  double precision  NOT NULL,
            CONSTRAINT pk_ticket_assignments PRIMARY KEY (id),
            CONSTRAINT fk_ticket_assignments_ticket_id_tickets FOREIGN KEY (ticket_id) REFERENCES tickets (ticket_id) ON DELETE CASCADE
        );

CREATE INDEX ix_ticket_assignments_ticket_id ON ticket_assignments (ticket_id);
        CREATE INDEX ix_ticket_assignments_agent_id ON ticket_assignments (agent_id);
        CREATE INDEX ix_ticket_assignments_assigned_at ON ticket_assignments (assigned_at);;

CREATE TABLE ticket_attachments (
            id             serial            NOT NULL,
            attachment_id  varchar(50)       NOT NULL,
            ticket_id      varchar(50)       NOT NULL,
            filename       varchar(500)      NOT NULL,
            stored_path    varchar(1000)     NOT NULL,
            content_type   varchar(100),
            size           integer           NOT NULL,
            comment_type   varchar(20)       NOT NULL,
            uploader_id    varchar(100)      NOT NULL,
            uploader_name  varchar(100),
            created_at     double precision  NOT NULL,
            updated_at     double precision  NOT NULL,
            CONSTRAINT pk_ticket_attachments PRIMARY KEY (id),
            CONSTRAINT fk_ticket_attachments_ticket_id_tickets FOREIGN KEY (ticket_id) REFERENCES tickets (ticket_id) ON DELETE CASCADE,
            CONSTRAINT ck_ticket_attachments_comment_type CHECK (comment_type IN ('internal', 'public'))
        );

CREATE UNIQUE INDEX ix_ticket_attachments_attachment_id ON ticket_attachments (attachment_id);
        CREATE INDEX ix_ticket_attachments_ticket_id ON ticket_attachments (ticket_id);;

CREATE TABLE ticket_comments (
            id            serial            NOT NULL,
            comment_id    varchar(50)       NOT NULL,
            ticket_id     varchar(50)       NOT NULL,
            content       text              NOT NULL,
            author_id     varchar(100)      NOT NULL,
            author_name   varchar(100),
            comment_type  varchar(20)       NOT NULL,
            mentions      jsonb,
            created_at    double precision  NOT NULL,
            updated_at    double precision  NOT NULL,
            CONSTRAINT pk_ticket_comments PRIMARY KEY (id),
            CONSTRAINT fk_ticket_comments_ticket_id_tickets FOREIGN KEY (ticket_id) REFERENCES tickets (ticket_id) ON DELETE CASCADE,
            CONSTRAINT ck_ticket_comments_comment_type CHECK (comment_type IN ('internal', 'public'))
        );

CREATE UNIQUE INDEX ix_ticket_comments_comment_id ON ticket_comments (comment_id);
        CREATE INDEX ix_ticket_comments_ticket_id ON ticket_comments (ticket_id);
        CREATE INDEX ix_ticket_comments_author_id ON ticket_comments (author_id);
        CREATE INDEX ix_ticket_comments_created_at ON ticket_comments (created_at);;

CREATE TABLE ticket_status_history (
            id             serial            NOT NULL,
            history_id     varchar(50)       NOT NULL,
            ticket_id      varchar(50)       NOT NULL,
            from_status    varchar(30),
            to_status      varchar(30)       NOT NULL,
            changed_by     varchar(100)      NOT NULL,
            change_reason  varchar(500),
            comment        text,
            changed_at     double precision  NOT NULL,
            CONSTRAINT pk_ticket_status_history PRIMARY KEY (id),
            CONSTRAINT fk_ticket_status_history_ticket_id_tickets FOREIGN KEY (ticket_id) REFERENCES tickets (ticket_id) ON DELETE CASCADE,
            CONSTRAINT ck_ticket_status_history_from_status
                CHECK (from_status IN ('pending', 'in_progress', 'waiting_customer', 'waiting_vendor', 'resolved', 'closed', 'archived')),
            CONSTRAINT ck_ticket_status_history_to_status
                CHECK (to_status IN ('pending', 'in_progress', 'waiting_customer', 'waiting_vendor', 'resolved', 'closed', 'archived'))
        );

CREATE UNIQUE INDEX ix_ticket_status_history_history_id ON ticket_status_history (history_id);
        CREATE INDEX ix_ticket_status_history_ticket_id ON ticket_status_history (ticket_id);
        CREATE INDEX ix_ticket_status_history_changed_at ON ticket_status_history (changed_at);;

INSERT INTO public.alembic_version (version_num) VALUES ('hd_0001') RETURNING public.alembic_version.version_num;

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
        VALUES ('public', 'alembic_version', 'helpdesk', ARRAY['hd_0001'])
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
                coalesce(digests, '{}') || '{"hd_0001": "58f1592d8d512a42456a38e9ad2201e579ff3b7dff680b77d6405141110360c1"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint helpdesk; revisions hd_0001';
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

