-- What was spent. The ledger has one row per attempt at a model, with the prices of that moment frozen in it;
-- usage_event is the meter's input (model calls and tool runs alike), usage_daily its rollup.

CREATE TABLE llm_ledger (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    agent_id text,
    key_id text,
    session_id text,
    flow_id text,
    model text NOT NULL,
    provider text NOT NULL,
    provider_model text NOT NULL,
    attempt integer NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'cancelled')),
    error_code text,
    usage_source text NOT NULL CHECK (usage_source IN ('measured', 'estimated', 'none')),
    prompt_tokens integer NOT NULL DEFAULT 0,
    completion_tokens integer NOT NULL DEFAULT 0,
    cached_tokens integer NOT NULL DEFAULT 0,
    reasoning_tokens integer NOT NULL DEFAULT 0,
    input_usd_per_mtok numeric(12, 6) NOT NULL DEFAULT 0,
    cached_input_usd_per_mtok numeric(12, 6) NOT NULL DEFAULT 0,
    output_usd_per_mtok numeric(12, 6) NOT NULL DEFAULT 0,
    cost_microusd bigint NOT NULL DEFAULT 0,
    latency_ms integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON llm_ledger (microdao_id, created_at);
CALL protect_tenant_table('llm_ledger');

CREATE TABLE usage_event (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    kind text NOT NULL CHECK (kind IN ('llm', 'tool')),
    agent_id text,
    flow_id text,
    session_id text,
    subject text NOT NULL,
    failed boolean NOT NULL DEFAULT false,
    prompt_tokens integer NOT NULL DEFAULT 0,
    completion_tokens integer NOT NULL DEFAULT 0,
    cached_tokens integer NOT NULL DEFAULT 0,
    reasoning_tokens integer NOT NULL DEFAULT 0,
    cost_microusd bigint NOT NULL DEFAULT 0,
    latency_ms integer NOT NULL DEFAULT 0,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    metered_at timestamptz
);
CREATE INDEX ON usage_event (microdao_id, occurred_at);
CREATE INDEX usage_event_unmetered ON usage_event (occurred_at) WHERE metered_at IS NULL;
CALL protect_tenant_table('usage_event');

CREATE TABLE usage_daily (
    microdao_id text NOT NULL REFERENCES microdao,
    day date NOT NULL,
    kind text NOT NULL,
    agent_id text NOT NULL,
    subject text NOT NULL,
    requests bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    reasoning_tokens bigint NOT NULL DEFAULT 0,
    cost_microusd bigint NOT NULL DEFAULT 0,
    latency_ms bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (microdao_id, day, kind, agent_id, subject)
);
CALL protect_tenant_table('usage_daily');
