-- The tool catalogue, grants, executions, and the rows that the built-in tools work on.

CREATE TABLE tool (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    name text NOT NULL,
    active_version integer NOT NULL,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (microdao_id, name)
);
CALL protect_tenant_table('tool');

-- A version never changes; its hash is the identity of name, description and schema.
CREATE TABLE tool_version (
    microdao_id text NOT NULL REFERENCES microdao,
    tool_id text NOT NULL REFERENCES tool ON DELETE CASCADE,
    version integer NOT NULL,
    definition_hash text NOT NULL,
    description text NOT NULL,
    parameters jsonb NOT NULL,
    risk text NOT NULL CHECK (risk IN ('A', 'B', 'C', 'D')),
    executor text NOT NULL CHECK (executor IN ('builtin')),
    config jsonb NOT NULL,
    timeout_ms integer NOT NULL CHECK (timeout_ms BETWEEN 1 AND 900000),
    idempotent boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tool_id, version)
);
CALL protect_tenant_table('tool_version');

CREATE TABLE tool_grant (
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    tool_id text NOT NULL REFERENCES tool ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, agent_id, tool_id),
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
);
CALL protect_tenant_table('tool_grant');

CREATE TABLE tool_execution (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    agent_id text NOT NULL,
    tool_id text NOT NULL REFERENCES tool,
    tool_version integer NOT NULL,
    idempotency_key text,
    args jsonb NOT NULL,
    args_hash text NOT NULL,
    session_id text,
    flow_id text,
    step_id text,
    requested_by text NOT NULL,
    task_token text,
    status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'unknown')),
    attempts integer NOT NULL DEFAULT 0,
    result jsonb,
    error_code text,
    error_message text,
    ms integer,
    cost_microusd bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    UNIQUE (microdao_id, idempotency_key)
);
CREATE INDEX ON tool_execution (microdao_id, id DESC);
CALL protect_tenant_table('tool_execution');

CREATE TABLE project (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (microdao_id, name)
);
CREATE INDEX ON project (microdao_id, id);
CALL protect_tenant_table('project');

CREATE TABLE task (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    project_id text REFERENCES project,
    title text NOT NULL,
    description text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON task (microdao_id, project_id, id);
CALL protect_tenant_table('task');

CREATE TABLE document (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    title text NOT NULL,
    body text NOT NULL,
    source text NOT NULL DEFAULT '',
    lexemes tsvector GENERATED ALWAYS AS
        (setweight(to_tsvector('simple', title), 'A') || setweight(to_tsvector('simple', body), 'B')) STORED,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON document (microdao_id, id);
CREATE INDEX ON document USING gin (lexemes);
CALL protect_tenant_table('document');
