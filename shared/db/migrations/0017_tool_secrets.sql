-- Secrets that a microDAO's tools send to services: sealed by a key that the database does not have.

CREATE TABLE tool_secret (
    microdao_id text NOT NULL REFERENCES microdao,
    name text NOT NULL,
    sealed bytea NOT NULL,
    -- The places (host:port) that it may be sent to, and no others.
    hosts text[] NOT NULL CHECK (cardinality(hosts) > 0),
    changed_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    PRIMARY KEY (microdao_id, name)
);
CALL protect_tenant_table('tool_secret');
