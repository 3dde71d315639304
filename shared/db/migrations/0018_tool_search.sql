-- What tools are found by (words and vectors of each version), what has changed about it, and how many tools agents'
-- prompts held.

-- One row a version, made with it. It has words when it has a `lexicon`, and vectors in every living space when
-- `embedded_in` is the newest of them.
CREATE TABLE tool_entry (
    entry bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    tool_id text NOT NULL,
    version integer NOT NULL,
    lexicon smallint,
    terms text[] NOT NULL DEFAULT '{}',
    frequencies smallint[] NOT NULL DEFAULT '{}',
    text_hash bytea,
    embedded_in smallint NOT NULL DEFAULT 0,
    queued_at timestamptz NOT NULL DEFAULT now(),
    attempts smallint NOT NULL DEFAULT 0,
    failure text,
    UNIQUE (tool_id, version),
    FOREIGN KEY (tool_id, version) REFERENCES tool_version (tool_id, version) ON DELETE CASCADE
);
CREATE INDEX tool_entry_waiting ON tool_entry (embedded_in, queued_at);
CREATE INDEX tool_entry_text ON tool_entry (text_hash) WHERE text_hash IS NOT NULL;
CREATE INDEX ON tool_entry (microdao_id);
CALL protect_tenant_table('tool_entry');

CREATE TABLE tool_embedding (
    space_id smallint NOT NULL REFERENCES memory_space ON DELETE CASCADE,
    microdao_id text NOT NULL,
    entry bigint NOT NULL REFERENCES tool_entry ON DELETE CASCADE,
    embedding halfvec NOT NULL,
    PRIMARY KEY (space_id, entry)
);
ALTER TABLE tool_embedding ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX ON tool_embedding (entry);
CALL protect_tenant_table('tool_embedding');

-- What a space's vectors are measured against, fitted to a fixed bank of requests and tools (shared/tools/search/frame.py).
CREATE TABLE tool_frame (
    space_id smallint NOT NULL REFERENCES memory_space ON DELETE CASCADE,
    bank_hash bytea NOT NULL,
    request_mean halfvec NOT NULL,
    tool_mean halfvec NOT NULL,
    direction halfvec NOT NULL,
    PRIMARY KEY (space_id, bank_hash)
);
GRANT SELECT ON tool_frame TO daarion_tenant;
GRANT SELECT, INSERT, DELETE ON tool_frame TO daarion_system;

-- One row for each statement that changed what may be found by whom: who read the same rows knows the same catalogue.
-- Rows, not a counter: writers never wait for each other. The sweep removes old ones.
CREATE TABLE tool_change (
    microdao_id text NOT NULL,
    change bigint GENERATED ALWAYS AS IDENTITY,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, change)
);
CREATE INDEX ON tool_change (changed_at);
CALL protect_tenant_table('tool_change');

CREATE FUNCTION note_tool_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tool_change (microdao_id) SELECT DISTINCT microdao_id FROM changed;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_i AFTER INSERT ON tool REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tool_change();
CREATE TRIGGER changes_u AFTER UPDATE ON tool REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tool_change();
CREATE TRIGGER changes_d AFTER DELETE ON tool REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tool_change();
CREATE TRIGGER changes_i AFTER INSERT ON tool_grant REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tool_change();
CREATE TRIGGER changes_d AFTER DELETE ON tool_grant REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tool_change();

-- As shared/ids.py makes them: the time in milliseconds first, so that the oldest goes first.
CREATE FUNCTION new_job_id() RETURNS text LANGUAGE sql VOLATILE
RETURN 'job_' || lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0')
    || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14);

-- Whoever makes versions, they are found: each gets its row here, and the indexer a job for every 64 of them.
CREATE FUNCTION note_tool_versions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO tool_entry (microdao_id, tool_id, version)
    SELECT microdao_id, tool_id, version FROM made ORDER BY tool_id, version;
    INSERT INTO outbox (id, microdao_id, queue, body)
    SELECT job, microdao_id, 'memory', jsonb_build_object('job_id', job, 'microdao_id', microdao_id, 'tool_ids', ids)
    FROM (
        SELECT new_job_id() AS job, microdao_id, jsonb_agg(DISTINCT tool_id) AS ids
        FROM (
            SELECT microdao_id, tool_id, row_number() OVER (PARTITION BY microdao_id ORDER BY tool_id) AS place
            FROM made) m
        GROUP BY microdao_id, (place - 1) / 64) j;
    RETURN NULL;
END $$;
CREATE TRIGGER found_by AFTER INSERT ON tool_version REFERENCING NEW TABLE AS made
FOR EACH STATEMENT EXECUTE FUNCTION note_tool_versions();

-- What is there already is queued by the sweep. Forced row-level security would hide it from an owner who is no superuser.
ALTER TABLE tool_version NO FORCE ROW LEVEL SECURITY;
ALTER TABLE tool_entry NO FORCE ROW LEVEL SECURITY;
INSERT INTO tool_entry (microdao_id, tool_id, version, queued_at)
SELECT microdao_id, tool_id, version, '-infinity' FROM tool_version;
ALTER TABLE tool_version FORCE ROW LEVEL SECURITY;
ALTER TABLE tool_entry FORCE ROW LEVEL SECURITY;

-- How many tools went into an agent's prompts, by day: `tools` of the `granted` ones, both summed over `prompts`.
CREATE TABLE tool_prompt (
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    day date NOT NULL DEFAULT CURRENT_DATE,
    prompts bigint NOT NULL DEFAULT 0,
    searched bigint NOT NULL DEFAULT 0,
    tools bigint NOT NULL DEFAULT 0,
    granted bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (microdao_id, agent_id, day),
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
) WITH (fillfactor = 70);
CALL protect_tenant_table('tool_prompt');
