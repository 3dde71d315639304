-- An agent's memory parted by end user: one scope for each user that an agent was told something for. A transaction that
-- names no user sees no user's scope, one that names a user sees that one's and no other's, and no grant opens any.

CREATE FUNCTION current_end_user() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('daarion.user_id', true), '');

-- Forced row-level security would hide the rows from an owner who is no superuser.
ALTER TABLE agent NO FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_scope NO FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_scope
    DROP CONSTRAINT memory_scope_kind_check,
    DROP CONSTRAINT memory_scope_microdao_id_kind_name_key,
    ADD COLUMN agent_id text, -- whose user it is; `name` is the user's id then
    ADD CHECK (kind IN ('microdao', 'team', 'agent', 'user')),
    ADD CHECK ((kind = 'user') = (agent_id IS NOT NULL)),
    ADD CHECK (kind <> 'user' OR name <> ''), -- which is nobody
    ADD UNIQUE NULLS NOT DISTINCT (microdao_id, kind, name, agent_id),
    ADD FOREIGN KEY (microdao_id, agent_id) REFERENCES agent ON DELETE CASCADE;
ALTER TABLE agent FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_scope FORCE ROW LEVEL SECURITY;
CREATE INDEX ON memory_scope (microdao_id, agent_id, name) WHERE agent_id IS NOT NULL;
CREATE INDEX ON memory_scope (microdao_id) WHERE kind IN ('microdao', 'team', 'agent'); -- few, however many users

-- Before the agent, whose id the items bear: a cascade would come too late for them.
CREATE FUNCTION drop_user_scopes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory_scope WHERE microdao_id = OLD.microdao_id AND agent_id = OLD.agent_id;
    RETURN OLD;
END $$;
CREATE TRIGGER user_scopes_go BEFORE DELETE ON agent FOR EACH ROW EXECUTE FUNCTION drop_user_scopes();

-- Which users there are is nobody's business; an agent makes the scope of the user that it acts for.
DROP POLICY own_rows_of_agents ON memory_scope;
CREATE POLICY seen_by_agents ON memory_scope FOR SELECT TO daarion_agent USING (microdao_id = current_microdao()
    AND (kind <> 'user' OR agent_id = current_agent() AND name = current_end_user()));
CREATE POLICY made_by_agents ON memory_scope FOR INSERT TO daarion_agent WITH CHECK (microdao_id = current_microdao()
    AND kind = 'user' AND agent_id = current_agent() AND name = current_end_user());
GRANT INSERT (microdao_id, kind, name, agent_id) ON memory_scope TO daarion_agent;

-- The user's scope is looked up apart: the others are found among few, however many users there are.
CREATE OR REPLACE FUNCTION find_agent_scopes(for_access text) RETURNS integer[] LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    WITH teams AS (
        SELECT team_id FROM team_member WHERE microdao_id = current_microdao() AND agent_id = current_agent()),
    found AS (
        SELECT s.scope_id FROM memory_scope s
        WHERE s.microdao_id = current_microdao() AND s.kind IN ('microdao', 'team', 'agent')
          AND (s.kind = 'agent' AND s.name = current_agent()
            OR s.kind = 'team' AND s.name IN (SELECT team_id FROM teams)
            OR s.kind = 'microdao' AND for_access = 'read'
            OR EXISTS (
                SELECT 1 FROM memory_grant g WHERE g.microdao_id = current_microdao() AND g.scope_id = s.scope_id
                  AND (g.access = 'write' OR for_access = 'read')
                  AND (g.grantee_kind = 'agent' AND g.grantee = current_agent()
                    OR g.grantee_kind = 'team' AND g.grantee IN (SELECT team_id FROM teams))))
        UNION ALL
        SELECT s.scope_id FROM memory_scope s
        WHERE s.microdao_id = current_microdao() AND s.kind = 'user' AND s.name = current_end_user()
          AND s.agent_id = current_agent())
    SELECT coalesce(array_agg(f.scope_id), '{}') FROM found f
    WHERE current_agent() IS NOT NULL
      AND EXISTS (SELECT 1 FROM agent a WHERE a.microdao_id = current_microdao() AND a.agent_id = current_agent());
END;

-- The tenant role asks for each row whether its scope is the microDAO's. With a scope for each user, an array of them all
-- would be made for every table of every statement, and searched from its beginning for every row.
CREATE OR REPLACE PROCEDURE protect_scope_table(target regclass) LANGUAGE plpgsql AS $$
DECLARE
    tenants text := format('EXISTS (SELECT 1 FROM memory_scope s WHERE s.scope_id = %s.scope_id'
        ' AND s.microdao_id = current_microdao())', target);
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

DO $$
DECLARE
    protected regclass;
    tenants text;
BEGIN
    FOR protected IN SELECT format('%I.%I', schemaname, tablename)::regclass FROM pg_policies
        WHERE policyname = 'own_rows' AND qual LIKE '%tenant_scopes()%' LOOP
        tenants := format('EXISTS (SELECT 1 FROM memory_scope s WHERE s.scope_id = %s.scope_id'
            ' AND s.microdao_id = current_microdao())', protected);
        EXECUTE format('ALTER POLICY own_rows ON %s USING (%s) WITH CHECK (%s)', protected, tenants, tenants);
    END LOOP;
END $$;
DROP FUNCTION tenant_scopes();

-- For how many users a snapshot holds memories. One that holds any is its agent's alone, whatever is shared.
ALTER TABLE memory_snapshot ADD COLUMN users integer NOT NULL DEFAULT 0;
CREATE POLICY users_are_not_shared ON memory_snapshot AS RESTRICTIVE TO daarion_agent USING (users = 0 OR EXISTS (
    SELECT 1 FROM memory_scope s
    WHERE s.scope_id = memory_snapshot.scope_id AND s.kind = 'agent' AND s.name = current_agent()));

-- For whom a session speaks and a tool runs; NULL is nobody in particular.
ALTER TABLE session ADD COLUMN user_id text;
ALTER TABLE tool_execution ADD COLUMN user_id text;
