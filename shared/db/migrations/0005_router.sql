-- Router runs: a flow is the truth of its state machine, so that a lost execution can be started again from the row.

CREATE TABLE flow (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    agent_id text NOT NULL,
    requested_by text NOT NULL,
    state text NOT NULL CHECK (state IN ('INIT', 'PLAN', 'WAIT_APPROVAL', 'EXECUTE_STEP', 'WAIT_TOOL', 'WAIT_AGENT',
        'ERROR_RECOVERY', 'DONE', 'FAILED', 'ABORTED', 'CANCELLED')),
    mode text NOT NULL CHECK (mode IN ('auto', 'structured', 'hybrid')),
    request jsonb NOT NULL,
    idempotency_key text,
    -- What the key was used for: jsonb gives some numbers back in another form, so the stored request cannot tell.
    request_hash text,
    revision integer NOT NULL DEFAULT 0,
    next jsonb NOT NULL DEFAULT '{"action": "execute"}',
    transitions text[] NOT NULL,
    result jsonb,
    error jsonb,
    estimated_microusd bigint NOT NULL DEFAULT 0,
    cost_microusd bigint NOT NULL DEFAULT 0,
    execution_arn text,
    executions integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (microdao_id, idempotency_key)
);
CREATE INDEX ON flow (microdao_id, id DESC);
CREATE INDEX flow_unfinished ON flow (updated_at) WHERE finished_at IS NULL;
CALL protect_tenant_table('flow');

CREATE TABLE flow_step (
    microdao_id text NOT NULL REFERENCES microdao,
    flow_id text NOT NULL REFERENCES flow ON DELETE CASCADE,
    position integer NOT NULL,
    step_id text NOT NULL,
    path text,
    type text NOT NULL,
    definition jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'succeeded', 'failed', 'skipped')),
    attempts integer NOT NULL DEFAULT 0,
    fell_back boolean NOT NULL DEFAULT false,
    execution_id text,
    output jsonb,
    error jsonb,
    cost_microusd bigint NOT NULL DEFAULT 0,
    started_at timestamptz,
    finished_at timestamptz,
    PRIMARY KEY (flow_id, position),
    UNIQUE (flow_id, step_id)
);
CALL protect_tenant_table('flow_step');
