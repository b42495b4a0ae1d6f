-- Blueprint mplp: what `is-db-bootstrap migrate sql` prints for an empty schema public. Generated.

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

-- Running upgrade  -> mplp_0001_context

CREATE TABLE mplp_contexts (
    id SERIAL NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    user_id VARCHAR(100) NOT NULL, 
    agent_id VARCHAR(100), 
    name VARCHAR(255) NOT NULL, 
    description TEXT DEFAULT '' NOT NULL, 
    status VARCHAR(32) DEFAULT 'active' NOT NULL, 
    lifecycle_stage VARCHAR(32) DEFAULT 'initializing' NOT NULL, 
    parent_context_id VARCHAR(100), 
    session_data JSONB, 
    metadata JSONB, 
    tracepilot_context_id VARCHAR(100), 
    total_operations INTEGER DEFAULT 0 NOT NULL, 
    total_state_changes INTEGER DEFAULT 0 NOT NULL, 
    expires_at TIMESTAMP WITHOUT TIME ZONE, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_contexts PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_contexts_context_id UNIQUE (context_id), 
    CONSTRAINT "FK_contexts_parent" FOREIGN KEY(parent_context_id) REFERENCES mplp_contexts (context_id) ON DELETE SET NULL, 
    CONSTRAINT ck_mplp_contexts_status CHECK (status IN ('active', 'suspended', 'completed', 'terminated')), 
    CONSTRAINT ck_mplp_contexts_lifecycle_stage CHECK (lifecycle_stage IN ('initializing', 'active', 'suspended', 'degraded', 'terminating', 'terminated'))
);

CREATE INDEX "IDX_contexts_context_id" ON mplp_contexts (context_id);

CREATE INDEX "IDX_contexts_user_status" ON mplp_contexts (user_id, status);

CREATE INDEX "IDX_contexts_lifecycle_updated" ON mplp_contexts (lifecycle_stage, updated_at);

CREATE INDEX "IDX_contexts_parent" ON mplp_contexts (parent_context_id);

CREATE INDEX "IDX_contexts_created_at" ON mplp_contexts (created_at);

CREATE INDEX "IDX_contexts_expires_at" ON mplp_contexts (expires_at);

CREATE TABLE mplp_shared_states (
    id SERIAL NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    state_key VARCHAR(255) NOT NULL, 
    state_value JSONB NOT NULL, 
    data_type VARCHAR(32) DEFAULT 'string' NOT NULL, 
    access_level VARCHAR(32) DEFAULT 'public' NOT NULL, 
    encryption_required BOOLEAN DEFAULT false NOT NULL, 
    sync_priority VARCHAR(32) DEFAULT 'medium' NOT NULL, 
    tags JSONB DEFAULT '[]' NOT NULL, 
    source_module VARCHAR(100) NOT NULL, 
    expires_at TIMESTAMP WITHOUT TIME ZONE, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_shared_states PRIMARY KEY (id), 
    CONSTRAINT "FK_shared_states_context" FOREIGN KEY(context_id) REFERENCES mplp_contexts (context_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_shared_states_data_type CHECK (data_type IN ('string', 'number', 'boolean', 'object', 'array', 'binary', 'encrypted')), 
    CONSTRAINT ck_mplp_shared_states_access_level CHECK (access_level IN ('public', 'private', 'protected')), 
    CONSTRAINT ck_mplp_shared_states_sync_priority CHECK (sync_priority IN ('high', 'medium', 'low'))
);

CREATE INDEX "IDX_shared_states_context" ON mplp_shared_states (context_id);

CREATE INDEX "IDX_shared_states_access_level" ON mplp_shared_states (context_id, access_level);

CREATE INDEX "IDX_shared_states_sync_priority" ON mplp_shared_states (sync_priority, updated_at);

CREATE INDEX "IDX_shared_states_expires_at" ON mplp_shared_states (expires_at);

CREATE UNIQUE INDEX "IDX_shared_states_context_key" ON mplp_shared_states (context_id, state_key);

CREATE TABLE mplp_context_sessions (
    id SERIAL NOT NULL, 
    session_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    user_id VARCHAR(100) NOT NULL, 
    agent_id VARCHAR(100), 
    last_active_at TIMESTAMP WITHOUT TIME ZONE NOT NULL, 
    expires_at TIMESTAMP WITHOUT TIME ZONE, 
    session_data JSONB DEFAULT '{}' NOT NULL, 
    is_active BOOLEAN DEFAULT true NOT NULL, 
    client_ip VARCHAR(45), 
    user_agent VARCHAR(500), 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_context_sessions PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_context_sessions_session_id UNIQUE (session_id), 
    CONSTRAINT "FK_sessions_context" FOREIGN KEY(context_id) REFERENCES mplp_contexts (context_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_sessions_session_id" ON mplp_context_sessions (session_id);

CREATE INDEX "IDX_sessions_context" ON mplp_context_sessions (context_id);

CREATE INDEX "IDX_sessions_user_expires" ON mplp_context_sessions (user_id, expires_at);

CREATE INDEX "IDX_sessions_agent_active" ON mplp_context_sessions (agent_id, last_active_at);

CREATE INDEX "IDX_sessions_is_active" ON mplp_context_sessions (is_active);

INSERT INTO public.alembic_version (version_num) VALUES ('mplp_0001_context') RETURNING public.alembic_version.version_num;

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
        VALUES ('public', 'alembic_version', 'mplp', ARRAY['mplp_0001_context'])
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
                coalesce(digests, '{}') || '{"mplp_0001_context": "15cf4ecee941ec25300de0ca86d32741249e7fb703a43192b8b014d4996acdc9"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint mplp; revisions mplp_0001_context';
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

-- Running upgrade mplp_0001_context -> mplp_0002_plan

CREATE TABLE mplp_plans (
    id SERIAL NOT NULL, 
    plan_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    name VARCHAR(255) NOT NULL, 
    description TEXT, 
    status VARCHAR(32) DEFAULT 'draft' NOT NULL, 
    priority VARCHAR(32) DEFAULT 'medium' NOT NULL, 
    start_date TIMESTAMP WITHOUT TIME ZONE, 
    end_date TIMESTAMP WITHOUT TIME ZONE, 
    estimated_duration_value INTEGER DEFAULT 0 NOT NULL, 
    estimated_duration_unit VARCHAR(32) DEFAULT 'days' NOT NULL, 
    actual_duration_value INTEGER, 
    actual_duration_unit VARCHAR(32), 
    optimization_strategy VARCHAR(32), 
    optimization_constraints JSONB, 
    optimization_parameters JSONB, 
    risk_assessment JSONB, 
    failure_resolver_config JSONB, 
    metadata JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_plans PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_plans_plan_id UNIQUE (plan_id), 
    CONSTRAINT ck_mplp_plans_status CHECK (status IN ('draft', 'approved', 'active', 'paused', 'completed', 'cancelled', 'failed')), 
    CONSTRAINT ck_mplp_plans_priority CHECK (priority IN ('critical', 'high', 'medium', 'low')), 
    CONSTRAINT ck_mplp_plans_estimated_duration_unit CHECK (estimated_duration_unit IN ('minutes', 'hours', 'days', 'weeks', 'months')), 
    CONSTRAINT ck_mplp_plans_actual_duration_unit CHECK (actual_duration_unit IN ('minutes', 'hours', 'days', 'weeks', 'months')), 
    CONSTRAINT ck_mplp_plans_optimization_strategy CHECK (optimization_strategy IN ('time_optimal', 'resource_optimal', 'cost_optimal', 'quality_optimal', 'balanced'))
);

CREATE INDEX "IDX_plans_context_id" ON mplp_plans (context_id);

CREATE INDEX "IDX_plans_status" ON mplp_plans (status);

CREATE INDEX "IDX_plans_priority" ON mplp_plans (priority);

CREATE TABLE mplp_tasks (
    id SERIAL NOT NULL, 
    task_id VARCHAR(100) NOT NULL, 
    plan_id VARCHAR(100) NOT NULL, 
    parent_task_id VARCHAR(100), 
    name VARCHAR(255) NOT NULL, 
    description TEXT, 
    type VARCHAR(32) DEFAULT 'atomic' NOT NULL, 
    status VARCHAR(32) DEFAULT 'pending' NOT NULL, 
    priority VARCHAR(32) DEFAULT 'medium' NOT NULL, 
    assignee_user_id VARCHAR(100), 
    assignee_role VARCHAR(100), 
    assignee_team VARCHAR(100), 
    estimated_effort_value DOUBLE PRECISION, 
    estimated_effort_unit VARCHAR(32), 
    actual_effort_value DOUBLE PRECISION, 
    actual_effort_unit VARCHAR(32), 
    resources_required JSONB, 
    acceptance_criteria JSONB, 
    progress_percentage DOUBLE PRECISION DEFAULT 0 NOT NULL, 
    actual_duration_minutes INTEGER, 
    error_message TEXT, 
    result_data JSONB, 
    metadata JSONB, 
    execution_context JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    started_at TIMESTAMP WITHOUT TIME ZONE, 
    completed_at TIMESTAMP WITHOUT TIME ZONE, 
    CONSTRAINT pk_mplp_tasks PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_tasks_task_id UNIQUE (task_id), 
    CONSTRAINT "FK_tasks_plan" FOREIGN KEY(plan_id) REFERENCES mplp_plans (plan_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_tasks_parent" FOREIGN KEY(parent_task_id) REFERENCES mplp_tasks (task_id) ON DELETE SET NULL, 
    CONSTRAINT ck_mplp_tasks_type CHECK (type IN ('atomic', 'composite', 'milestone', 'checkpoint')), 
    CONSTRAINT ck_mplp_tasks_status CHECK (status IN ('pending', 'ready', 'running', 'blocked', 'completed', 'failed', 'skipped')), 
    CONSTRAINT ck_mplp_tasks_priority CHECK (priority IN ('critical', 'high', 'medium', 'low')), 
    CONSTRAINT ck_mplp_tasks_estimated_effort_unit CHECK (estimated_effort_unit IN ('hours', 'days', 'story_points')), 
    CONSTRAINT ck_mplp_tasks_actual_effort_unit CHECK (actual_effort_unit IN ('hours', 'days', 'story_points'))
);

CREATE INDEX "IDX_tasks_plan_id" ON mplp_tasks (plan_id);

CREATE INDEX "IDX_tasks_parent_id" ON mplp_tasks (parent_task_id);

CREATE INDEX "IDX_tasks_status" ON mplp_tasks (status);

CREATE INDEX "IDX_tasks_priority" ON mplp_tasks (priority);

CREATE INDEX "IDX_tasks_assignee" ON mplp_tasks (assignee_user_id);

CREATE TABLE mplp_task_dependencies (
    id SERIAL NOT NULL, 
    dependency_id VARCHAR(100) NOT NULL, 
    source_task_id VARCHAR(100) NOT NULL, 
    target_task_id VARCHAR(100) NOT NULL, 
    dependency_type VARCHAR(32) DEFAULT 'finish_to_start' NOT NULL, 
    lag_value INTEGER, 
    lag_unit VARCHAR(32), 
    criticality VARCHAR(32) DEFAULT 'blocking' NOT NULL, 
    condition TEXT, 
    metadata JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_task_dependencies PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_task_dependencies_dependency_id UNIQUE (dependency_id), 
    CONSTRAINT "FK_dependencies_source" FOREIGN KEY(source_task_id) REFERENCES mplp_tasks (task_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_dependencies_target" FOREIGN KEY(target_task_id) REFERENCES mplp_tasks (task_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_task_dependencies_dependency_type CHECK (dependency_type IN ('finish_to_start', 'start_to_start', 'finish_to_finish', 'start_to_finish')), 
    CONSTRAINT ck_mplp_task_dependencies_lag_unit CHECK (lag_unit IN ('minutes', 'hours', 'days', 'weeks', 'months')), 
    CONSTRAINT ck_mplp_task_dependencies_criticality CHECK (criticality IN ('blocking', 'important', 'nice_to_have'))
);

CREATE INDEX "IDX_dependencies_source" ON mplp_task_dependencies (source_task_id);

CREATE INDEX "IDX_dependencies_target" ON mplp_task_dependencies (target_task_id);

CREATE INDEX "IDX_dependencies_type" ON mplp_task_dependencies (dependency_type);

CREATE TABLE mplp_milestones (
    id SERIAL NOT NULL, 
    milestone_id VARCHAR(100) NOT NULL, 
    plan_id VARCHAR(100) NOT NULL, 
    name VARCHAR(255) NOT NULL, 
    description TEXT, 
    target_date TIMESTAMP WITHOUT TIME ZONE NOT NULL, 
    status VARCHAR(32) DEFAULT 'upcoming' NOT NULL, 
    success_criteria JSONB DEFAULT '[]' NOT NULL, 
    dependencies JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_milestones PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_milestones_milestone_id UNIQUE (milestone_id), 
    CONSTRAINT "FK_milestones_plan" FOREIGN KEY(plan_id) REFERENCES mplp_plans (plan_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_milestones_status CHECK (status IN ('upcoming', 'at_risk', 'achieved', 'missed'))
);

CREATE INDEX "IDX_milestones_plan_id" ON mplp_milestones (plan_id);

CREATE INDEX "IDX_milestones_status" ON mplp_milestones (status);

CREATE INDEX "IDX_milestones_target_date" ON mplp_milestones (target_date);

CREATE TABLE mplp_failure_resolvers (
    id SERIAL NOT NULL, 
    resolver_id VARCHAR(100) NOT NULL, 
    plan_id VARCHAR(100) NOT NULL, 
    task_id VARCHAR(100), 
    enabled BOOLEAN DEFAULT true NOT NULL, 
    strategies JSONB NOT NULL, 
    retry_config JSONB, 
    rollback_config JSONB, 
    manual_intervention_config JSONB, 
    notification_channels JSONB DEFAULT '[]' NOT NULL, 
    performance_thresholds JSONB DEFAULT '{}' NOT NULL, 
    intelligent_diagnostics JSONB, 
    vendor_integration JSONB, 
    proactive_prevention JSONB, 
    self_learning JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_failure_resolvers PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_failure_resolvers_resolver_id UNIQUE (resolver_id), 
    CONSTRAINT "FK_resolvers_plan" FOREIGN KEY(plan_id) REFERENCES mplp_plans (plan_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_resolvers_task" FOREIGN KEY(task_id) REFERENCES mplp_tasks (task_id) ON DELETE SET NULL
);

CREATE INDEX "IDX_resolvers_plan_id" ON mplp_failure_resolvers (plan_id);

CREATE INDEX "IDX_resolvers_task_id" ON mplp_failure_resolvers (task_id);

CREATE TABLE mplp_failures (
    id SERIAL NOT NULL, 
    failure_id VARCHAR(100) NOT NULL, 
    plan_id VARCHAR(100) NOT NULL, 
    task_id VARCHAR(100) NOT NULL, 
    failure_type VARCHAR(100) NOT NULL, 
    error_message TEXT NOT NULL, 
    root_cause_analysis TEXT, 
    recovery_strategy VARCHAR(32), 
    recovery_attempts INTEGER DEFAULT 0 NOT NULL, 
    resolved BOOLEAN DEFAULT false NOT NULL, 
    resolution_time TIMESTAMP WITHOUT TIME ZONE, 
    diagnostics_data JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_failures PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_failures_failure_id UNIQUE (failure_id), 
    CONSTRAINT "FK_failures_plan" FOREIGN KEY(plan_id) REFERENCES mplp_plans (plan_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_failures_task" FOREIGN KEY(task_id) REFERENCES mplp_tasks (task_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_failures_recovery_strategy CHECK (recovery_strategy IN ('retry', 'rollback', 'skip', 'manual_intervention'))
);

CREATE INDEX "IDX_failures_plan_id" ON mplp_failures (plan_id);

CREATE INDEX "IDX_failures_task_id" ON mplp_failures (task_id);

CREATE INDEX "IDX_failures_resolved" ON mplp_failures (resolved);

UPDATE public.alembic_version SET version_num='mplp_0002_plan' WHERE public.alembic_version.version_num = 'mplp_0001_context';

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
        VALUES ('public', 'alembic_version', 'mplp', ARRAY['mplp_0001_context', 'mplp_0002_plan'])
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
                coalesce(digests, '{}') || '{"mplp_0002_plan": "adf7f430564176ca6b55077da56a5d47599aaaed22e695af805f558b413b5df0"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint mplp; revisions mplp_0001_context mplp_0002_plan';
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

-- Running upgrade mplp_0002_plan -> mplp_0003_role

CREATE TABLE mplp_roles (
    id SERIAL NOT NULL, 
    role_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    name VARCHAR(64) NOT NULL, 
    display_name VARCHAR(255), 
    description TEXT, 
    role_type VARCHAR(32) NOT NULL, 
    status VARCHAR(32) DEFAULT 'active' NOT NULL, 
    scope_level VARCHAR(32) DEFAULT 'project' NOT NULL, 
    scope_context_ids JSONB, 
    scope_plan_ids JSONB, 
    resource_constraints JSONB, 
    attributes JSONB, 
    validation_rules JSONB, 
    audit_settings JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_roles PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_roles_role_id UNIQUE (role_id), 
    CONSTRAINT ck_mplp_roles_role_type CHECK (role_type IN ('system', 'organizational', 'functional', 'project', 'temporary')), 
    CONSTRAINT ck_mplp_roles_status CHECK (status IN ('active', 'inactive', 'deprecated', 'suspended')), 
    CONSTRAINT ck_mplp_roles_scope_level CHECK (scope_level IN ('global', 'organization', 'project', 'team', 'individual'))
);

CREATE INDEX "IDX_roles_context_id" ON mplp_roles (context_id);

CREATE INDEX "IDX_roles_name" ON mplp_roles (name);

CREATE INDEX "IDX_roles_status" ON mplp_roles (status);

CREATE INDEX "IDX_roles_type" ON mplp_roles (role_type);

CREATE INDEX "IDX_roles_scope" ON mplp_roles (scope_level);

CREATE TABLE mplp_permissions (
    id SERIAL NOT NULL, 
    permission_id VARCHAR(100) NOT NULL, 
    role_id VARCHAR(100) NOT NULL, 
    resource_type VARCHAR(32) NOT NULL, 
    resource_id VARCHAR(100) NOT NULL, 
    actions JSONB NOT NULL, 
    conditions JSONB, 
    grant_type VARCHAR(32) DEFAULT 'direct' NOT NULL, 
    expiry TIMESTAMP WITHOUT TIME ZONE, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_permissions PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_permissions_permission_id UNIQUE (permission_id), 
    CONSTRAINT "FK_permissions_role" FOREIGN KEY(role_id) REFERENCES mplp_roles (role_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_permissions_resource_type CHECK (resource_type IN ('context', 'plan', 'task', 'confirmation', 'trace', 'role', 'extension', 'system')), 
    CONSTRAINT ck_mplp_permissions_grant_type CHECK (grant_type IN ('direct', 'inherited', 'delegated', 'temporary'))
);

CREATE INDEX "IDX_permissions_role_id" ON mplp_permissions (role_id);

CREATE INDEX "IDX_permissions_resource" ON mplp_permissions (resource_type, resource_id);

CREATE INDEX "IDX_permissions_grant_type" ON mplp_permissions (grant_type);

CREATE INDEX "IDX_permissions_expiry" ON mplp_permissions (expiry);

CREATE TABLE mplp_role_inheritance (
    id SERIAL NOT NULL, 
    inheritance_id VARCHAR(100) NOT NULL, 
    role_id VARCHAR(100) NOT NULL, 
    parent_role_id VARCHAR(100) NOT NULL, 
    inheritance_type VARCHAR(32) DEFAULT 'full' NOT NULL, 
    excluded_permissions JSONB, 
    conditions JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_role_inheritance PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_role_inheritance_inheritance_id UNIQUE (inheritance_id), 
    CONSTRAINT "FK_inheritance_role" FOREIGN KEY(role_id) REFERENCES mplp_roles (role_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_inheritance_parent_role" FOREIGN KEY(parent_role_id) REFERENCES mplp_roles (role_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_role_inheritance_inheritance_type CHECK (inheritance_type IN ('full', 'partial', 'conditional'))
);

CREATE INDEX "IDX_inheritance_role_id" ON mplp_role_inheritance (role_id);

CREATE INDEX "IDX_inheritance_parent_role_id" ON mplp_role_inheritance (parent_role_id);

CREATE INDEX "IDX_inheritance_type" ON mplp_role_inheritance (inheritance_type);

CREATE TABLE mplp_role_delegations (
    id SERIAL NOT NULL, 
    delegation_id VARCHAR(100) NOT NULL, 
    role_id VARCHAR(100) NOT NULL, 
    delegated_to VARCHAR(100) NOT NULL, 
    permissions JSONB NOT NULL, 
    start_time TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    end_time TIMESTAMP WITHOUT TIME ZONE, 
    status VARCHAR(32) DEFAULT 'active' NOT NULL, 
    delegation_constraints JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_role_delegations PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_role_delegations_delegation_id UNIQUE (delegation_id), 
    CONSTRAINT "FK_delegations_role" FOREIGN KEY(role_id) REFERENCES mplp_roles (role_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_role_delegations_status CHECK (status IN ('active', 'suspended', 'revoked', 'expired'))
);

CREATE INDEX "IDX_delegations_role_id" ON mplp_role_delegations (role_id);

CREATE INDEX "IDX_delegations_delegated_to" ON mplp_role_delegations (delegated_to);

CREATE INDEX "IDX_delegations_status" ON mplp_role_delegations (status);

CREATE INDEX "IDX_delegations_end_time" ON mplp_role_delegations (end_time);

CREATE TABLE mplp_user_role_assignments (
    id SERIAL NOT NULL, 
    assignment_id VARCHAR(100) NOT NULL, 
    user_id VARCHAR(100) NOT NULL, 
    role_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100), 
    assigned_by VARCHAR(100) NOT NULL, 
    assigned_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    expires_at TIMESTAMP WITHOUT TIME ZONE, 
    status VARCHAR(32) DEFAULT 'active' NOT NULL, 
    conditions JSONB, 
    metadata JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_user_role_assignments PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_user_role_assignments_assignment_id UNIQUE (assignment_id), 
    CONSTRAINT "FK_assignments_role" FOREIGN KEY(role_id) REFERENCES mplp_roles (role_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_user_role_assignments_status CHECK (status IN ('active', 'suspended', 'expired', 'revoked'))
);

CREATE INDEX "IDX_assignments_user_id" ON mplp_user_role_assignments (user_id);

CREATE INDEX "IDX_assignments_role_id" ON mplp_user_role_assignments (role_id);

CREATE INDEX "IDX_assignments_context_id" ON mplp_user_role_assignments (context_id);

CREATE INDEX "IDX_assignments_status" ON mplp_user_role_assignments (status);

CREATE INDEX "IDX_assignments_expires_at" ON mplp_user_role_assignments (expires_at);

CREATE TABLE mplp_role_audit_logs (
    id SERIAL NOT NULL, 
    event_id VARCHAR(100) NOT NULL, 
    event_type VARCHAR(100) NOT NULL, 
    role_id VARCHAR(100) NOT NULL, 
    user_id VARCHAR(100), 
    context_id VARCHAR(100), 
    actor_id VARCHAR(100), 
    timestamp TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    details JSONB NOT NULL, 
    severity VARCHAR(32) NOT NULL, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_role_audit_logs PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_role_audit_logs_event_id UNIQUE (event_id), 
    CONSTRAINT "FK_audit_logs_role" FOREIGN KEY(role_id) REFERENCES mplp_roles (role_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_role_audit_logs_severity CHECK (severity IN ('warning', 'error', 'critical'))
);

CREATE INDEX "IDX_audit_logs_role_id" ON mplp_role_audit_logs (role_id);

CREATE INDEX "IDX_audit_logs_event_type" ON mplp_role_audit_logs (event_type);

CREATE INDEX "IDX_audit_logs_user_id" ON mplp_role_audit_logs (user_id);

CREATE INDEX "IDX_audit_logs_timestamp" ON mplp_role_audit_logs (timestamp);

CREATE INDEX "IDX_audit_logs_severity" ON mplp_role_audit_logs (severity);

UPDATE public.alembic_version SET version_num='mplp_0003_role' WHERE public.alembic_version.version_num = 'mplp_0002_plan';

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
        VALUES ('public', 'alembic_version', 'mplp', ARRAY['mplp_0001_context', 'mplp_0002_plan', 'mplp_0003_role'])
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
                coalesce(digests, '{}') || '{"mplp_0003_role": "57a7e777b204daf01395f110c1b41dffb413020ff0c545cfe0f4169e60f0d70e"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint mplp; revisions mplp_0001_context mplp_0002_plan mplp_0003_role';
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

-- Running upgrade mplp_0003_role -> mplp_0004_confirm

CREATE TABLE mplp_confirmations (
    id SERIAL NOT NULL, 
    confirm_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    plan_id VARCHAR(100), 
    confirmation_type VARCHAR(32) NOT NULL, 
    status VARCHAR(32) DEFAULT 'pending' NOT NULL, 
    priority VARCHAR(32) DEFAULT 'medium' NOT NULL, 
    requester JSONB, 
    subject JSONB, 
    risk_assessment JSONB, 
    notification_settings JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    expires_at TIMESTAMP WITHOUT TIME ZONE, 
    CONSTRAINT pk_mplp_confirmations PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_confirmations_confirm_id UNIQUE (confirm_id), 
    CONSTRAINT ck_mplp_confirmations_confirmation_type CHECK (confirmation_type IN ('plan_approval', 'task_approval', 'milestone_confirmation', 'risk_acceptance', 'resource_allocation', 'emergency_approval')), 
    CONSTRAINT ck_mplp_confirmations_status CHECK (status IN ('pending', 'in_review', 'approved', 'rejected', 'cancelled', 'expired')), 
    CONSTRAINT ck_mplp_confirmations_priority CHECK (priority IN ('critical', 'high', 'medium', 'low'))
);

CREATE INDEX "IDX_confirmations_context_id" ON mplp_confirmations (context_id);

CREATE INDEX "IDX_confirmations_plan_id" ON mplp_confirmations (plan_id);

CREATE INDEX "IDX_confirmations_type" ON mplp_confirmations (confirmation_type);

CREATE INDEX "IDX_confirmations_status" ON mplp_confirmations (status);

CREATE INDEX "IDX_confirmations_priority" ON mplp_confirmations (priority);

CREATE INDEX "IDX_confirmations_expires_at" ON mplp_confirmations (expires_at);

CREATE TABLE mplp_approval_workflows (
    id SERIAL NOT NULL, 
    workflow_id VARCHAR(100) NOT NULL, 
    confirm_id VARCHAR(100) NOT NULL, 
    workflow_type VARCHAR(32) NOT NULL, 
    current_step INTEGER, 
    total_steps INTEGER NOT NULL, 
    completed_steps INTEGER DEFAULT 0 NOT NULL, 
    rejected_steps INTEGER DEFAULT 0 NOT NULL, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_approval_workflows PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_approval_workflows_workflow_id UNIQUE (workflow_id), 
    CONSTRAINT "FK_workflows_confirmation" FOREIGN KEY(confirm_id) REFERENCES mplp_confirmations (confirm_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_approval_workflows_workflow_type CHECK (workflow_type IN ('single_approver', 'sequential', 'parallel', 'consensus', 'escalation'))
);

CREATE INDEX "IDX_workflows_confirm_id" ON mplp_approval_workflows (confirm_id);

CREATE INDEX "IDX_workflows_type" ON mplp_approval_workflows (workflow_type);

CREATE TABLE mplp_approval_steps (
    id SERIAL NOT NULL, 
    step_id VARCHAR(100) NOT NULL, 
    workflow_id VARCHAR(100) NOT NULL, 
    step_order INTEGER NOT NULL, 
    approver JSONB NOT NULL, 
    approval_criteria JSONB, 
    status VARCHAR(32) DEFAULT 'pending' NOT NULL, 
    decision JSONB, 
    timeout_duration INTEGER, 
    timeout_unit VARCHAR(32), 
    timeout_action VARCHAR(32), 
    timeout_at TIMESTAMP WITHOUT TIME ZONE, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_approval_steps PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_approval_steps_step_id UNIQUE (step_id), 
    CONSTRAINT "FK_steps_workflow" FOREIGN KEY(workflow_id) REFERENCES mplp_approval_workflows (workflow_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_approval_steps_status CHECK (status IN ('pending', 'approved', 'rejected', 'delegated', 'skipped')), 
    CONSTRAINT ck_mplp_approval_steps_timeout_unit CHECK (timeout_unit IN ('minutes', 'hours', 'days')), 
    CONSTRAINT ck_mplp_approval_steps_timeout_action CHECK (timeout_action IN ('auto_approve', 'auto_reject', 'escalate', 'extend'))
);

CREATE INDEX "IDX_steps_workflow_id" ON mplp_approval_steps (workflow_id);

CREATE INDEX "IDX_steps_order" ON mplp_approval_steps (step_order);

CREATE INDEX "IDX_steps_status" ON mplp_approval_steps (status);

CREATE INDEX "IDX_steps_timeout_at" ON mplp_approval_steps (timeout_at);

CREATE TABLE mplp_escalation_rules (
    id SERIAL NOT NULL, 
    rule_id VARCHAR(100) NOT NULL, 
    workflow_id VARCHAR(100) NOT NULL, 
    trigger VARCHAR(32) NOT NULL, 
    escalate_to JSONB NOT NULL, 
    notification_delay INTEGER, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_escalation_rules PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_escalation_rules_rule_id UNIQUE (rule_id), 
    CONSTRAINT "FK_rules_workflow" FOREIGN KEY(workflow_id) REFERENCES mplp_approval_workflows (workflow_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_escalation_rules_trigger CHECK (trigger IN ('timeout', 'rejection', 'manual', 'system'))
);

CREATE INDEX "IDX_rules_workflow_id" ON mplp_escalation_rules (workflow_id);

CREATE INDEX "IDX_rules_trigger" ON mplp_escalation_rules (trigger);

CREATE TABLE mplp_audit_trails (
    id SERIAL NOT NULL, 
    event_id VARCHAR(100) NOT NULL, 
    confirm_id VARCHAR(100) NOT NULL, 
    timestamp TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    event_type VARCHAR(32) NOT NULL, 
    actor JSONB NOT NULL, 
    changes JSONB, 
    description TEXT, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_audit_trails PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_audit_trails_event_id UNIQUE (event_id), 
    CONSTRAINT "FK_audit_confirmation" FOREIGN KEY(confirm_id) REFERENCES mplp_confirmations (confirm_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_audit_trails_event_type CHECK (event_type IN ('created', 'updated', 'approved', 'rejected', 'escalated', 'cancelled', 'timeout'))
);

CREATE INDEX "IDX_audit_confirm_id" ON mplp_audit_trails (confirm_id);

CREATE INDEX "IDX_audit_event_type" ON mplp_audit_trails (event_type);

CREATE INDEX "IDX_audit_timestamp" ON mplp_audit_trails (timestamp);

CREATE TABLE mplp_confirm_attachments (
    id SERIAL NOT NULL, 
    file_id VARCHAR(100) NOT NULL, 
    confirm_id VARCHAR(100) NOT NULL, 
    filename VARCHAR(255) NOT NULL, 
    mime_type VARCHAR(100) NOT NULL, 
    size BIGINT NOT NULL, 
    description TEXT, 
    storage_path VARCHAR(255) NOT NULL, 
    uploaded_by VARCHAR(100) NOT NULL, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_confirm_attachments PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_confirm_attachments_file_id UNIQUE (file_id), 
    CONSTRAINT "FK_attachments_confirmation" FOREIGN KEY(confirm_id) REFERENCES mplp_confirmations (confirm_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_attachments_confirm_id" ON mplp_confirm_attachments (confirm_id);

CREATE INDEX "IDX_attachments_mime_type" ON mplp_confirm_attachments (mime_type);

UPDATE public.alembic_version SET version_num='mplp_0004_confirm' WHERE public.alembic_version.version_num = 'mplp_0003_role';

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
        VALUES ('public', 'alembic_version', 'mplp', ARRAY['mplp_0001_context', 'mplp_0002_plan', 'mplp_0003_role', 'mplp_0004_confirm'])
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
                coalesce(digests, '{}') || '{"mplp_0004_confirm": "ac4cc07532b4e3166d498b0b6f3f2c61d7ca473169d4b2ea70182fb6183304e0"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint mplp; revisions mplp_0001_context mplp_0002_plan mplp_0003_role mplp_0004_confirm';
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

-- Running upgrade mplp_0004_confirm -> mplp_0005_trace

CREATE TABLE mplp_traces (
    id SERIAL NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    plan_id VARCHAR(100), 
    task_id VARCHAR(100), 
    protocol_version VARCHAR(20) NOT NULL, 
    trace_type VARCHAR(32) NOT NULL, 
    severity VARCHAR(32) DEFAULT 'info' NOT NULL, 
    parent_trace_id VARCHAR(100), 
    user_id VARCHAR(100), 
    source VARCHAR(100), 
    status VARCHAR(50), 
    metadata JSONB, 
    tags JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    timestamp TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_traces PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_traces_trace_id UNIQUE (trace_id), 
    CONSTRAINT ck_mplp_traces_trace_type CHECK (trace_type IN ('execution', 'monitoring', 'audit', 'performance', 'error', 'decision')), 
    CONSTRAINT ck_mplp_traces_severity CHECK (severity IN ('debug', 'info', 'warn', 'error', 'critical'))
);

CREATE INDEX "IDX_traces_context_id" ON mplp_traces (context_id);

CREATE INDEX "IDX_traces_plan_id" ON mplp_traces (plan_id);

CREATE INDEX "IDX_traces_task_id" ON mplp_traces (task_id);

CREATE INDEX "IDX_traces_type" ON mplp_traces (trace_type);

CREATE INDEX "IDX_traces_severity" ON mplp_traces (severity);

CREATE INDEX "IDX_traces_timestamp" ON mplp_traces (timestamp);

CREATE INDEX "IDX_traces_parent" ON mplp_traces (parent_trace_id);

CREATE TABLE mplp_trace_events (
    id SERIAL NOT NULL, 
    event_id VARCHAR(100) NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    type VARCHAR(32) NOT NULL, 
    name VARCHAR(255) NOT NULL, 
    description TEXT, 
    category VARCHAR(32) NOT NULL, 
    source_component VARCHAR(100) NOT NULL, 
    source_module VARCHAR(100), 
    source_function VARCHAR(100), 
    source_line_number INTEGER, 
    data JSONB, 
    timestamp TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    duration_ms INTEGER, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_trace_events PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_trace_events_event_id UNIQUE (event_id), 
    CONSTRAINT "FK_events_trace" FOREIGN KEY(trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_trace_events_type CHECK (type IN ('start', 'progress', 'checkpoint', 'completion', 'failure', 'timeout', 'interrupt')), 
    CONSTRAINT ck_mplp_trace_events_category CHECK (category IN ('system', 'user', 'external', 'automatic'))
);

CREATE INDEX "IDX_events_trace_id" ON mplp_trace_events (trace_id);

CREATE INDEX "IDX_events_type" ON mplp_trace_events (type);

CREATE INDEX "IDX_events_timestamp" ON mplp_trace_events (timestamp);

CREATE INDEX "IDX_events_category" ON mplp_trace_events (category);

CREATE TABLE mplp_performance_metrics (
    id SERIAL NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    start_time TIMESTAMP WITHOUT TIME ZONE NOT NULL, 
    end_time TIMESTAMP WITHOUT TIME ZONE, 
    duration_ms INTEGER NOT NULL, 
    cpu_time_ms INTEGER, 
    memory_peak_usage_mb DOUBLE PRECISION, 
    memory_average_usage_mb DOUBLE PRECISION, 
    memory_allocations BIGINT, 
    memory_deallocations BIGINT, 
    cpu_utilization_percent DOUBLE PRECISION, 
    cpu_instructions BIGINT, 
    cpu_cache_misses BIGINT, 
    network_bytes_sent BIGINT, 
    network_bytes_received BIGINT, 
    network_requests_count INTEGER, 
    network_error_count INTEGER, 
    storage_reads INTEGER, 
    storage_writes INTEGER, 
    storage_bytes_read BIGINT, 
    storage_bytes_written BIGINT, 
    custom_metrics JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_performance_metrics PRIMARY KEY (id), 
    CONSTRAINT "FK_metrics_trace" FOREIGN KEY(trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_metrics_trace_id" ON mplp_performance_metrics (trace_id);

CREATE INDEX "IDX_metrics_duration" ON mplp_performance_metrics (duration_ms);

CREATE TABLE mplp_context_snapshots (
    id SERIAL NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    variables JSONB, 
    environment_os VARCHAR(100), 
    environment_platform VARCHAR(100), 
    environment_runtime_version VARCHAR(100), 
    environment_variables JSONB, 
    call_stack JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_context_snapshots PRIMARY KEY (id), 
    CONSTRAINT "FK_snapshots_trace" FOREIGN KEY(trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_snapshots_trace_id" ON mplp_context_snapshots (trace_id);

CREATE TABLE mplp_error_information (
    id SERIAL NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    error_code VARCHAR(100) NOT NULL, 
    error_message TEXT NOT NULL, 
    error_type VARCHAR(32) NOT NULL, 
    stack_trace JSONB, 
    recovery_actions JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_error_information PRIMARY KEY (id), 
    CONSTRAINT "FK_errors_trace" FOREIGN KEY(trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_error_information_error_type CHECK (error_type IN ('system', 'business', 'validation', 'network', 'timeout', 'security'))
);

CREATE INDEX "IDX_errors_trace_id" ON mplp_error_information (trace_id);

CREATE INDEX "IDX_errors_error_type" ON mplp_error_information (error_type);

CREATE INDEX "IDX_errors_error_code" ON mplp_error_information (error_code);

CREATE TABLE mplp_decision_logs (
    id SERIAL NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    decision_point VARCHAR(255) NOT NULL, 
    options_considered JSONB NOT NULL, 
    selected_option VARCHAR(255) NOT NULL, 
    decision_criteria JSONB, 
    confidence_level DOUBLE PRECISION, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_decision_logs PRIMARY KEY (id), 
    CONSTRAINT "FK_decisions_trace" FOREIGN KEY(trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_decisions_trace_id" ON mplp_decision_logs (trace_id);

CREATE TABLE mplp_trace_correlations (
    id SERIAL NOT NULL, 
    correlation_id VARCHAR(100) NOT NULL, 
    trace_id VARCHAR(100) NOT NULL, 
    related_trace_id VARCHAR(100) NOT NULL, 
    type VARCHAR(32) NOT NULL, 
    strength DOUBLE PRECISION, 
    description TEXT, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_trace_correlations PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_trace_correlations_correlation_id UNIQUE (correlation_id), 
    CONSTRAINT "FK_correlations_trace" FOREIGN KEY(trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_correlations_related_trace" FOREIGN KEY(related_trace_id) REFERENCES mplp_traces (trace_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_trace_correlations_type CHECK (type IN ('causation', 'temporal', 'spatial', 'logical'))
);

CREATE INDEX "IDX_correlations_trace_id" ON mplp_trace_correlations (trace_id);

CREATE INDEX "IDX_correlations_related_trace_id" ON mplp_trace_correlations (related_trace_id);

CREATE INDEX "IDX_correlations_type" ON mplp_trace_correlations (type);

UPDATE public.alembic_version SET version_num='mplp_0005_trace' WHERE public.alembic_version.version_num = 'mplp_0004_confirm';

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
        VALUES ('public', 'alembic_version', 'mplp', ARRAY['mplp_0001_context', 'mplp_0002_plan', 'mplp_0003_role', 'mplp_0004_confirm', 'mplp_0005_trace'])
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
                coalesce(digests, '{}') || '{"mplp_0005_trace": "a35f67d4b09e70ef863dc5c76ad1c954c1c1452db5760b580babd67599b0ce1f"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint mplp; revisions mplp_0001_context mplp_0002_plan mplp_0003_role mplp_0004_confirm mplp_0005_trace';
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

-- Running upgrade mplp_0005_trace -> mplp_0006_extension

CREATE TABLE mplp_extensions (
    id SERIAL NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    context_id VARCHAR(100) NOT NULL, 
    name VARCHAR(64) NOT NULL, 
    display_name VARCHAR(255), 
    description TEXT, 
    version VARCHAR(50) NOT NULL, 
    type VARCHAR(32) NOT NULL, 
    status VARCHAR(32) DEFAULT 'installed' NOT NULL, 
    compatibility JSONB DEFAULT '{}' NOT NULL, 
    configuration JSONB DEFAULT '{}' NOT NULL, 
    security JSONB, 
    metadata JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_extensions PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_extensions_extension_id UNIQUE (extension_id), 
    CONSTRAINT ck_mplp_extensions_type CHECK (type IN ('plugin', 'adapter', 'connector', 'middleware', 'hook', 'transformer')), 
    CONSTRAINT ck_mplp_extensions_status CHECK (status IN ('installed', 'active', 'inactive', 'disabled', 'error', 'updating', 'uninstalling'))
);

CREATE INDEX "IDX_extensions_context_id" ON mplp_extensions (context_id);

CREATE INDEX "IDX_extensions_name" ON mplp_extensions (name);

CREATE INDEX "IDX_extensions_type" ON mplp_extensions (type);

CREATE INDEX "IDX_extensions_status" ON mplp_extensions (status);

CREATE INDEX "IDX_extensions_version" ON mplp_extensions (version);

CREATE TABLE mplp_extension_points (
    id SERIAL NOT NULL, 
    point_id VARCHAR(100) NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    name VARCHAR(255) NOT NULL, 
    type VARCHAR(32) NOT NULL, 
    target_module VARCHAR(32) NOT NULL, 
    event_name VARCHAR(255), 
    execution_order INTEGER NOT NULL, 
    enabled BOOLEAN DEFAULT true NOT NULL, 
    handler JSONB NOT NULL, 
    conditions JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_extension_points PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_extension_points_point_id UNIQUE (point_id), 
    CONSTRAINT "FK_points_extension" FOREIGN KEY(extension_id) REFERENCES mplp_extensions (extension_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_extension_points_type CHECK (type IN ('hook', 'filter', 'action', 'api_endpoint', 'event_listener')), 
    CONSTRAINT ck_mplp_extension_points_target_module CHECK (target_module IN ('context', 'plan', 'confirm', 'trace', 'role', 'extension', 'system'))
);

CREATE INDEX "IDX_points_extension_id" ON mplp_extension_points (extension_id);

CREATE INDEX "IDX_points_type" ON mplp_extension_points (type);

CREATE INDEX "IDX_points_target_module" ON mplp_extension_points (target_module);

CREATE INDEX "IDX_points_execution_order" ON mplp_extension_points (execution_order);

CREATE INDEX "IDX_points_enabled" ON mplp_extension_points (enabled);

CREATE TABLE mplp_api_extensions (
    id SERIAL NOT NULL, 
    endpoint_id VARCHAR(100) NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    path VARCHAR(255) NOT NULL, 
    method VARCHAR(32) NOT NULL, 
    description TEXT, 
    handler VARCHAR(255) NOT NULL, 
    middleware JSONB, 
    authentication_required BOOLEAN DEFAULT true NOT NULL, 
    required_permissions JSONB, 
    rate_limit JSONB, 
    request_schema JSONB, 
    response_schema JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_api_extensions PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_api_extensions_endpoint_id UNIQUE (endpoint_id), 
    CONSTRAINT "FK_api_extension" FOREIGN KEY(extension_id) REFERENCES mplp_extensions (extension_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_api_extensions_method CHECK (method IN ('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD'))
);

CREATE INDEX "IDX_api_extension_id" ON mplp_api_extensions (extension_id);

CREATE INDEX "IDX_api_path" ON mplp_api_extensions (path);

CREATE INDEX "IDX_api_method" ON mplp_api_extensions (method);

CREATE INDEX "IDX_api_auth_required" ON mplp_api_extensions (authentication_required);

CREATE TABLE mplp_event_subscriptions (
    id SERIAL NOT NULL, 
    subscription_id VARCHAR(100) NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    event_pattern VARCHAR(255) NOT NULL, 
    source_module VARCHAR(32) NOT NULL, 
    handler VARCHAR(255) NOT NULL, 
    filter_conditions JSONB, 
    delivery_guarantees VARCHAR(32) DEFAULT 'at_least_once' NOT NULL, 
    dead_letter_queue BOOLEAN DEFAULT false NOT NULL, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_event_subscriptions PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_event_subscriptions_subscription_id UNIQUE (subscription_id), 
    CONSTRAINT "FK_subscriptions_extension" FOREIGN KEY(extension_id) REFERENCES mplp_extensions (extension_id) ON DELETE CASCADE, 
    CONSTRAINT ck_mplp_event_subscriptions_source_module CHECK (source_module IN ('context', 'plan', 'confirm', 'trace', 'role', 'extension', 'system', '*')), 
    CONSTRAINT ck_mplp_event_subscriptions_delivery_guarantees CHECK (delivery_guarantees IN ('at_least_once', 'at_most_once', 'exactly_once'))
);

CREATE INDEX "IDX_subscriptions_extension_id" ON mplp_event_subscriptions (extension_id);

CREATE INDEX "IDX_subscriptions_source_module" ON mplp_event_subscriptions (source_module);

CREATE INDEX "IDX_subscriptions_event_pattern" ON mplp_event_subscriptions (event_pattern);

CREATE INDEX "IDX_subscriptions_delivery" ON mplp_event_subscriptions (delivery_guarantees);

CREATE TABLE mplp_extension_lifecycles (
    id SERIAL NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    install_date TIMESTAMP WITHOUT TIME ZONE NOT NULL, 
    activation_count INTEGER DEFAULT 0 NOT NULL, 
    error_count INTEGER DEFAULT 0 NOT NULL, 
    last_error JSONB, 
    performance_metrics JSONB, 
    health_check JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_extension_lifecycles PRIMARY KEY (id), 
    CONSTRAINT "FK_lifecycles_extension" FOREIGN KEY(extension_id) REFERENCES mplp_extensions (extension_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_lifecycles_install_date" ON mplp_extension_lifecycles (install_date);

CREATE INDEX "IDX_lifecycles_error_count" ON mplp_extension_lifecycles (error_count);

CREATE UNIQUE INDEX "IDX_lifecycles_extension_id" ON mplp_extension_lifecycles (extension_id);

CREATE TABLE mplp_extension_dependencies (
    id SERIAL NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    dependency_extension_id VARCHAR(100) NOT NULL, 
    name VARCHAR(255) NOT NULL, 
    version_range VARCHAR(100) NOT NULL, 
    optional BOOLEAN DEFAULT false NOT NULL, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_extension_dependencies PRIMARY KEY (id), 
    CONSTRAINT "FK_dependencies_extension" FOREIGN KEY(extension_id) REFERENCES mplp_extensions (extension_id) ON DELETE CASCADE
);

CREATE INDEX "IDX_dependencies_extension_id" ON mplp_extension_dependencies (extension_id);

CREATE INDEX "IDX_dependencies_dependency_id" ON mplp_extension_dependencies (dependency_extension_id);

CREATE INDEX "IDX_dependencies_optional" ON mplp_extension_dependencies (optional);

CREATE TABLE mplp_extension_executions (
    id SERIAL NOT NULL, 
    execution_id VARCHAR(100) NOT NULL, 
    extension_id VARCHAR(100) NOT NULL, 
    point_id VARCHAR(100), 
    context_id VARCHAR(100) NOT NULL, 
    user_id VARCHAR(100), 
    session_id VARCHAR(100), 
    trace_id VARCHAR(100), 
    start_time TIMESTAMP WITHOUT TIME ZONE NOT NULL, 
    end_time TIMESTAMP WITHOUT TIME ZONE, 
    execution_time_ms INTEGER, 
    memory_usage_mb DOUBLE PRECISION, 
    success BOOLEAN NOT NULL, 
    parameters JSONB, 
    result JSONB, 
    error JSONB, 
    created_at TIMESTAMP WITHOUT TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_mplp_extension_executions PRIMARY KEY (id), 
    CONSTRAINT uq_mplp_extension_executions_execution_id UNIQUE (execution_id), 
    CONSTRAINT "FK_executions_extension" FOREIGN KEY(extension_id) REFERENCES mplp_extensions (extension_id) ON DELETE CASCADE, 
    CONSTRAINT "FK_executions_point" FOREIGN KEY(point_id) REFERENCES mplp_extension_points (point_id) ON DELETE SET NULL
);

CREATE INDEX "IDX_executions_extension_id" ON mplp_extension_executions (extension_id);

CREATE INDEX "IDX_executions_point_id" ON mplp_extension_executions (point_id);

CREATE INDEX "IDX_executions_context_id" ON mplp_extension_executions (context_id);

CREATE INDEX "IDX_executions_start_time" ON mplp_extension_executions (start_time);

CREATE INDEX "IDX_executions_success" ON mplp_extension_executions (success);

CREATE INDEX "IDX_executions_execution_time" ON mplp_extension_executions (execution_time_ms);

UPDATE public.alembic_version SET version_num='mplp_0006_extension' WHERE public.alembic_version.version_num = 'mplp_0005_trace';

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
        VALUES ('public', 'alembic_version', 'mplp', ARRAY['mplp_0001_context', 'mplp_0002_plan', 'mplp_0003_role', 'mplp_0004_confirm', 'mplp_0005_trace', 'mplp_0006_extension'])
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
                coalesce(digests, '{}') || '{"mplp_0006_extension": "31fa389aa038ddf6dc0099402fd7d817d65fb6f8032e451e0b9072ff67cbeccb"}')
            WHERE key = ANY(revisions))
        WHERE (schema_name, table_name) = ('public', 'alembic_version');
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            NULL;
        END;
    END IF;
    IF kept ~ '^is-db-bootstrap: blueprint ' OR (kept = '' AND NOT has_row) THEN
        wanted := 'is-db-bootstrap: blueprint mplp; revisions mplp_0001_context mplp_0002_plan mplp_0003_role mplp_0004_confirm mplp_0005_trace mplp_0006_extension';
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

