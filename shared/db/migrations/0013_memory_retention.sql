-- How long memories are kept, what was removed and why, and summaries that stand for what they were made of.

-- What a microDAO (agent_id NULL) or one of its agents asks for; what `settings` leaves out is inherited.
CREATE TABLE memory_policy (
    microdao_id text NOT NULL REFERENCES microdao,
    agent_id text,
    settings jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- When the schedule last came by: it goes where it has not been for longest.
    visited_at timestamptz,
    UNIQUE NULLS NOT DISTINCT (microdao_id, agent_id),
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
);
CALL protect_tenant_table('memory_policy');

-- What was removed (or summarised), written in the same transaction: ids and numbers, never content.
CREATE TABLE memory_pruning (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    scope_kind text NOT NULL,
    scope_name text NOT NULL,
    reason text NOT NULL,
    items integer NOT NULL,
    bytes bigint NOT NULL,
    ids text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON memory_pruning (microdao_id, id);
CREATE INDEX ON memory_pruning (created_at);
CALL protect_tenant_table('memory_pruning');

ALTER TABLE memory_item
    ADD COLUMN bytes integer GENERATED ALWAYS AS (octet_length(content::text)) STORED,
    -- When its summary was deleted: it is not summarised again soon.
    ADD COLUMN freed_at timestamptz,
    DROP CONSTRAINT memory_item_summary_id_fkey;
-- Checked at the end, because the trigger below frees what a deleted summary stood for.
ALTER TABLE memory_item NO FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_item ADD FOREIGN KEY (summary_id) REFERENCES memory_item DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE memory_item FORCE ROW LEVEL SECURITY;
DROP INDEX memory_item_words;
CREATE INDEX memory_item_words ON memory_item (scope_id) INCLUDE (words, bytes, expires_at);

-- A summary quotes what it was made of: when one of those is forgotten it goes, too. (Retention, which removes sources
-- for the reason that their summary stands for them, says so by a setting.) What a summary stood for is found itself
-- again when the summary is gone.
CREATE FUNCTION follow_memory_summaries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH freed AS (
        UPDATE memory_item SET summary_id = NULL, state = 'pending', queued_at = now(),
            freed_at = CASE WHEN pg_trigger_depth() = 1 THEN now() END
        WHERE summary_id IS NOT NULL AND summary_id IN (SELECT id FROM gone)
        RETURNING id, microdao_id),
    numbered AS (
        SELECT id, microdao_id, (row_number() OVER (PARTITION BY microdao_id ORDER BY id) - 1) / 32 AS part FROM freed),
    job AS (
        SELECT 'job_' || replace(gen_random_uuid()::text, '-', '') AS id, microdao_id, jsonb_agg(n.id) AS item_ids
        FROM numbered n GROUP BY microdao_id, part)
    INSERT INTO outbox (id, microdao_id, queue, body)
    SELECT id, microdao_id, 'memory',
        jsonb_build_object('job_id', id, 'microdao_id', microdao_id, 'item_ids', item_ids) FROM job;
    IF coalesce(current_setting('daarion.keeps_summaries', true), '') <> 'on'
        AND EXISTS (SELECT 1 FROM gone WHERE summary_id IS NOT NULL) THEN
        DELETE FROM memory_item WHERE id IN (SELECT summary_id FROM gone WHERE summary_id IS NOT NULL);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER follow_summaries AFTER DELETE ON memory_item REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION follow_memory_summaries();
