-- Whose memory is whose: every memory lies in a scope (a microDAO's, a team's or an agent's), and a transaction in the
-- agent role sees only the scopes that its agent may read. The tenant role administers all scopes of its microDAO.

CREATE TABLE team (
    microdao_id text NOT NULL REFERENCES microdao,
    team_id text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, team_id)
);
CALL protect_tenant_table('team');

CREATE TABLE team_member (
    microdao_id text NOT NULL,
    team_id text NOT NULL,
    agent_id text NOT NULL,
    PRIMARY KEY (microdao_id, team_id, agent_id),
    FOREIGN KEY (microdao_id, team_id) REFERENCES team ON DELETE CASCADE,
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
);
CREATE INDEX ON team_member (microdao_id, agent_id);
CALL protect_tenant_table('team_member');

CREATE TABLE memory_scope (
    scope_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    kind text NOT NULL CHECK (kind IN ('microdao', 'team', 'agent')),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (microdao_id, kind, name),
    UNIQUE (microdao_id, scope_id)
);
CALL protect_tenant_table('memory_scope');

-- An agent's (or team's) memory shared with another agent or with a team.
CREATE TABLE memory_grant (
    id text NOT NULL UNIQUE,
    microdao_id text NOT NULL REFERENCES microdao,
    scope_id integer NOT NULL,
    grantee_kind text NOT NULL CHECK (grantee_kind IN ('agent', 'team')),
    grantee text NOT NULL,
    access text NOT NULL CHECK (access IN ('read', 'write')),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The grantee again, for the references: who comes later under the id of one that is gone inherits nothing.
    agent_id text GENERATED ALWAYS AS (CASE grantee_kind WHEN 'agent' THEN grantee END) STORED,
    team_id text GENERATED ALWAYS AS (CASE grantee_kind WHEN 'team' THEN grantee END) STORED,
    PRIMARY KEY (microdao_id, scope_id, grantee_kind, grantee),
    FOREIGN KEY (microdao_id, scope_id) REFERENCES memory_scope (microdao_id, scope_id) ON DELETE CASCADE,
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent ON DELETE CASCADE,
    FOREIGN KEY (microdao_id, team_id) REFERENCES team ON DELETE CASCADE
);
CREATE INDEX ON memory_grant (microdao_id, grantee_kind, grantee);
CALL protect_tenant_table('memory_grant');

-- Scopes come and go with what they belong to, so no caller can forget them.
CREATE FUNCTION make_memory_scope() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO memory_scope (microdao_id, kind, name)
    VALUES (NEW.microdao_id, TG_ARGV[0], to_jsonb(NEW) ->> TG_ARGV[1]) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE FUNCTION drop_memory_scope() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory_scope
    WHERE microdao_id = OLD.microdao_id AND kind = TG_ARGV[0] AND name = to_jsonb(OLD) ->> TG_ARGV[1];
    RETURN OLD;
END $$;
CREATE TRIGGER own_scope AFTER INSERT ON microdao FOR EACH ROW EXECUTE FUNCTION make_memory_scope('microdao', 'microdao_id');
CREATE TRIGGER own_scope AFTER INSERT ON team FOR EACH ROW EXECUTE FUNCTION make_memory_scope('team', 'team_id');
CREATE TRIGGER own_scope AFTER INSERT ON agent FOR EACH ROW EXECUTE FUNCTION make_memory_scope('agent', 'agent_id');
CREATE TRIGGER scope_goes BEFORE DELETE ON microdao FOR EACH ROW EXECUTE FUNCTION drop_memory_scope('microdao', 'microdao_id');
CREATE TRIGGER scope_goes BEFORE DELETE ON team FOR EACH ROW EXECUTE FUNCTION drop_memory_scope('team', 'team_id');
CREATE TRIGGER scope_goes BEFORE DELETE ON agent FOR EACH ROW EXECUTE FUNCTION drop_memory_scope('agent', 'agent_id');

-- Forced row-level security would hide the rows from an owner who is no superuser.
ALTER TABLE microdao NO FORCE ROW LEVEL SECURITY;
ALTER TABLE agent NO FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_scope NO FORCE ROW LEVEL SECURITY;
INSERT INTO memory_scope (microdao_id, kind, name)
SELECT microdao_id, 'microdao', microdao_id FROM microdao UNION ALL SELECT microdao_id, 'agent', agent_id FROM agent;
ALTER TABLE microdao FORCE ROW LEVEL SECURITY;
ALTER TABLE agent FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_scope FORCE ROW LEVEL SECURITY;

CREATE FUNCTION current_agent() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('daarion.agent_id', true), '');

-- Every scope of the transaction's microDAO.
CREATE FUNCTION tenant_scopes() RETURNS integer[] LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT coalesce(array_agg(scope_id), '{}') FROM memory_scope WHERE microdao_id = current_microdao());

-- The scopes that the transaction's agent may read, or write. It reads its own, its teams', its microDAO's and what is
-- shared with it; it writes its own, its teams' and what is shared with it for writing. No agent, no scopes.
CREATE FUNCTION agent_scopes(for_access text) RETURNS integer[] LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH teams AS (
        SELECT team_id FROM team_member WHERE microdao_id = current_microdao() AND agent_id = current_agent())
    SELECT coalesce(array_agg(s.scope_id), '{}') FROM memory_scope s
    WHERE s.microdao_id = current_microdao() AND current_agent() IS NOT NULL
      AND EXISTS (SELECT 1 FROM agent a WHERE a.microdao_id = current_microdao() AND a.agent_id = current_agent())
      AND (s.kind = 'agent' AND s.name = current_agent()
        OR s.kind = 'team' AND s.name IN (SELECT team_id FROM teams)
        OR s.kind = 'microdao' AND for_access = 'read'
        OR EXISTS (
            SELECT 1 FROM memory_grant g WHERE g.microdao_id = current_microdao() AND g.scope_id = s.scope_id
              AND (g.access = 'write' OR for_access = 'read')
              AND (g.grantee_kind = 'agent' AND g.grantee = current_agent()
                OR g.grantee_kind = 'team' AND g.grantee IN (SELECT team_id FROM teams))));
END;

-- What an agent's transaction may know of its microDAO: who and which scopes there are, its own teams, what is shared
-- with it; and the jobs of the indexer that it leaves behind.
CREATE PROCEDURE share_with_agents(target regclass, privileges text, condition text DEFAULT 'true') LANGUAGE plpgsql AS $$
DECLARE
    own text := format('microdao_id = current_microdao() AND (%s)', condition);
BEGIN
    EXECUTE format('CREATE POLICY own_rows_of_agents ON %s TO daarion_agent USING (%s) WITH CHECK (%s)', target, own, own);
    EXECUTE format('GRANT %s ON %s TO daarion_agent', privileges, target);
END $$;
GRANT USAGE ON SCHEMA public TO daarion_agent;
CALL share_with_agents('agent', 'SELECT');
CALL share_with_agents('memory_scope', 'SELECT');
CALL share_with_agents('team_member', 'SELECT', 'agent_id = current_agent()');
CALL share_with_agents('memory_grant', 'SELECT', $$grantee_kind = 'agent' AND grantee = current_agent()
    OR grantee_kind = 'team' AND grantee IN (SELECT m.team_id FROM team_member m)$$);
CALL share_with_agents('outbox', 'INSERT', $$queue = 'memory' AND body ->> 'microdao_id' = microdao_id$$);

-- For every table whose rows lie in a scope: forced row-level security by scope.
CREATE PROCEDURE protect_scope_table(target regclass) LANGUAGE plpgsql AS $$
DECLARE
    tenants text := 'scope_id = ANY ((SELECT tenant_scopes())::integer[])';
    readable text := 'scope_id = ANY ((SELECT agent_scopes(''read''))::integer[])';
    writable text := 'scope_id = ANY ((SELECT agent_scopes(''write''))::integer[])';
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY own_rows ON %s TO daarion_tenant USING (%s) WITH CHECK (%s)', target, tenants, tenants);
    EXECUTE format('CREATE POLICY readable ON %s FOR SELECT TO daarion_agent USING (%s)', target, readable);
    EXECUTE format('CREATE POLICY writable ON %s FOR INSERT TO daarion_agent WITH CHECK (%s)', target, writable);
    EXECUTE format('CREATE POLICY changeable ON %s FOR UPDATE TO daarion_agent USING (%s) WITH CHECK (%s)', target, writable, writable);
    EXECUTE format('CREATE POLICY deletable ON %s FOR DELETE TO daarion_agent USING (%s)', target, writable);
    EXECUTE format('CREATE POLICY all_rows ON %s TO daarion_system USING (true) WITH CHECK (true)', target);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO daarion_tenant, daarion_agent, daarion_system', target);
END $$;

-- Only the owner protects tables.
REVOKE ALL ON PROCEDURE protect_tenant_table, share_with_agents, protect_scope_table FROM PUBLIC;
