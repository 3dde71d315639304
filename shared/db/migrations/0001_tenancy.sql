-- Tenants, their agents, keys and the outbox.
--
-- Every table with a microdao_id gets row-level security through protect_tenant_table(): the tenant role sees the
-- rows of the transaction's microDAO, the system role sees all, nobody else sees any. No role of the runtime owns a table.

CREATE EXTENSION IF NOT EXISTS vector;

GRANT USAGE ON SCHEMA public TO daarion_tenant, daarion_system;

CREATE FUNCTION current_microdao() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('daarion.microdao_id', true), '');

CREATE PROCEDURE protect_tenant_table(target regclass) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY own_rows ON %s TO daarion_tenant'
        ' USING (microdao_id = current_microdao()) WITH CHECK (microdao_id = current_microdao())', target);
    EXECUTE format('CREATE POLICY all_rows ON %s TO daarion_system USING (true) WITH CHECK (true)', target);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO daarion_tenant, daarion_system', target);
END $$;

CREATE TABLE microdao (
    microdao_id text PRIMARY KEY,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CALL protect_tenant_table('microdao');

CREATE TABLE agent (
    microdao_id text NOT NULL REFERENCES microdao,
    agent_id text NOT NULL,
    name text NOT NULL,
    blueprint_code text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, agent_id)
);
CALL protect_tenant_table('agent');

-- A key is kept as a keyed hash only; `hint` (its last characters) lets a person tell keys apart.
CREATE TABLE api_key (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    name text NOT NULL,
    key_hash bytea NOT NULL UNIQUE,
    hint text NOT NULL,
    roles text[] NOT NULL CHECK (cardinality(roles) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX ON api_key (microdao_id, id);
CALL protect_tenant_table('api_key');

-- Every queue message is a row first. The consumer deletes the row in the transaction of its effect, so a lost message
-- is sent again by the sweeper and a doubled one finds nothing to do.
CREATE TABLE outbox (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    queue text NOT NULL,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    sends integer NOT NULL DEFAULT 0
);
CREATE INDEX outbox_unsent ON outbox (id) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent ON outbox (queue, sent_at) WHERE sent_at IS NOT NULL;
CALL protect_tenant_table('outbox');
