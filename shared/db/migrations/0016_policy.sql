-- Policies of a microDAO's own, what was refused, how often tools were called, and what keys may tell of themselves.

-- One Cedar policy each.
CREATE TABLE access_policy (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    name text NOT NULL,
    description text NOT NULL,
    source text NOT NULL,
    active boolean NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (microdao_id, name)
);
CALL protect_tenant_table('access_policy');

-- Goes up with each change of the microDAO's policies: whoever holds them parsed asks only for this.
CREATE TABLE access_policy_set (
    microdao_id text PRIMARY KEY REFERENCES microdao,
    version bigint NOT NULL
);
CALL protect_tenant_table('access_policy_set');

-- Every state that a policy was ever in; it stays when the policy is deleted.
CREATE TABLE access_policy_version (
    microdao_id text NOT NULL REFERENCES microdao,
    policy_id text NOT NULL,
    version integer NOT NULL,
    change text NOT NULL CHECK (change IN ('created', 'changed', 'deleted')),
    name text NOT NULL,
    description text NOT NULL,
    source text NOT NULL,
    active boolean NOT NULL,
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, policy_id, version)
);
CALL protect_tenant_table('access_policy_version');

-- What was refused, to whom and why. Equal refusals of a minute are one row.
CREATE TABLE policy_denial (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    minute timestamptz NOT NULL,
    fingerprint bytea NOT NULL,
    principal_id text NOT NULL,
    agent_id text,
    action text NOT NULL,
    resource_kind text NOT NULL,
    resource_id text NOT NULL,
    reason text NOT NULL,
    policies text[] NOT NULL,
    request_id text NOT NULL,
    count bigint NOT NULL,
    denied_at timestamptz NOT NULL DEFAULT now(),
    last_denied_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (microdao_id, minute, fingerprint)
);
CREATE INDEX ON policy_denial (microdao_id, id DESC);
CREATE INDEX ON policy_denial (last_denied_at);
CALL protect_tenant_table('policy_denial');

-- Calls of a tool in the minute that began with its first: of the whole microDAO (agent_id '') or of one agent.
CREATE TABLE tool_rate (
    microdao_id text NOT NULL REFERENCES microdao,
    tool text NOT NULL,
    agent_id text NOT NULL DEFAULT '',
    began_at timestamptz NOT NULL DEFAULT now(),
    calls integer NOT NULL DEFAULT 1,
    PRIMARY KEY (microdao_id, tool, agent_id)
);
CALL protect_tenant_table('tool_rate');

ALTER TABLE api_key
    ADD COLUMN expires_at timestamptz,
    -- To the hour.
    ADD COLUMN last_used_at timestamptz;
