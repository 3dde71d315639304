-- Blueprints (versioned behaviour of an agent), sessions and their messages in OpenAI's form.

CREATE TABLE blueprint (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    code text NOT NULL,
    active_version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (microdao_id, code)
);
CALL protect_tenant_table('blueprint');

-- A version never changes; an update adds one.
CREATE TABLE blueprint_version (
    microdao_id text NOT NULL REFERENCES microdao,
    blueprint_id text NOT NULL REFERENCES blueprint ON DELETE CASCADE,
    version integer NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (blueprint_id, version)
);
CALL protect_tenant_table('blueprint_version');

CREATE TABLE session (
    id text PRIMARY KEY,
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    blueprint_id text NOT NULL REFERENCES blueprint,
    blueprint_version integer NOT NULL,
    channel_id text,
    state text NOT NULL CHECK (state IN
        ('INITED', 'RUNNING', 'WAITING_FOR_CLARIFICATION', 'COMPLETED', 'FAILED', 'CANCELLED')),
    iteration integer NOT NULL DEFAULT 0,
    searches_used integer NOT NULL DEFAULT 0,
    clarifications_used integer NOT NULL DEFAULT 0,
    questions jsonb NOT NULL DEFAULT '[]',
    cost_microusd bigint NOT NULL DEFAULT 0,
    result text,
    turn_id text, -- who answers now; a turn writes only while this is its own
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
);
CREATE INDEX ON session (microdao_id, id DESC);
CREATE INDEX session_running ON session (updated_at) WHERE state = 'RUNNING';
CALL protect_tenant_table('session');

-- json, not jsonb: a message must come back as it was sent, and jsonb turns 1e30 into a number of 31 digits.
CREATE TABLE session_message (
    microdao_id text NOT NULL REFERENCES microdao,
    session_id text NOT NULL REFERENCES session ON DELETE CASCADE,
    position integer NOT NULL,
    message json NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, position)
);
CALL protect_tenant_table('session_message');
