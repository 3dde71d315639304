-- A search asks which scopes its agent may read once, not once per table of each statement: its first statement keeps
-- the answer in `daarion.read_scopes`, which ends with the transaction. Every transaction begins by emptying it in the
-- statement that says who its agent is.

CREATE FUNCTION find_agent_scopes(for_access text) RETURNS integer[] LANGUAGE sql STABLE PARALLEL SAFE
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

-- A single expression, so that the planner puts it in place of each call.
CREATE OR REPLACE FUNCTION agent_scopes(for_access text) RETURNS integer[] LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN for_access = 'read' AND current_setting('daarion.read_scopes', true) <> ''
    THEN current_setting('daarion.read_scopes', true)::integer[] ELSE find_agent_scopes(for_access) END;
