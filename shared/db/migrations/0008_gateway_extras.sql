-- What the gateway may do besides calling: keep answers, split traffic between prompts, answer a repeated request once.

-- An answer kept because its request asked for that. `digest` is a hash over everything that decides an answer.
CREATE TABLE llm_response_cache (
    microdao_id text NOT NULL REFERENCES microdao,
    digest bytea NOT NULL,
    model text NOT NULL,
    completion jsonb NOT NULL,
    bytes integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (microdao_id, digest)
);
CREATE INDEX llm_response_cache_newest ON llm_response_cache (microdao_id, created_at DESC) INCLUDE (bytes, digest);
CREATE INDEX llm_response_cache_expired ON llm_response_cache (expires_at);
CALL protect_tenant_table('llm_response_cache');

-- A split of the calls of one model or one blueprint between variants. One active split per target.
CREATE TABLE llm_experiment (
    microdao_id text NOT NULL REFERENCES microdao,
    name text NOT NULL,
    model text,
    blueprint text,
    variants jsonb NOT NULL,
    active boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, name),
    CHECK (num_nonnulls(model, blueprint) <= 1)
);
CREATE UNIQUE INDEX llm_experiment_target ON llm_experiment (microdao_id, model, blueprint) NULLS NOT DISTINCT
    WHERE active;
CALL protect_tenant_table('llm_experiment');

CREATE INDEX usage_event_variant ON usage_event (microdao_id, variant) WHERE variant IS NOT NULL;

-- A row marks a request that is being answered (until its lease ends) or holds the answer that a repetition gets.
CREATE TABLE idempotent_request (
    microdao_id text NOT NULL REFERENCES microdao,
    key_id text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint bytea NOT NULL,
    owner text NOT NULL,
    lease_until timestamptz NOT NULL,
    finished boolean NOT NULL DEFAULT false,
    status integer,
    headers jsonb,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (microdao_id, key_id, idempotency_key)
);
CREATE INDEX idempotent_request_expired ON idempotent_request (expires_at);
CALL protect_tenant_table('idempotent_request');

-- A call that was answered from llm_response_cache.
ALTER TABLE llm_ledger
    DROP CONSTRAINT llm_ledger_outcome_check,
    ADD CONSTRAINT llm_ledger_outcome_check
        CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'orphaned', 'corrected', 'cached'));
