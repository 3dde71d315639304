-- Memory items with what finds them: postings for words, embeddings for meaning. `number` is an item's short key.

-- Forced row-level security would hide the rows from an owner who is no superuser.
ALTER TABLE memory_item NO FORCE ROW LEVEL SECURITY;
ALTER TABLE memory_scope NO FORCE ROW LEVEL SECURITY;
DROP POLICY own_rows ON memory_item;
DROP POLICY all_rows ON memory_item;
DROP TABLE memory_embedding_minilm_l6_v2;

-- A text that was cut into chunks; each chunk is an item.
CREATE TABLE memory_document (
    id text PRIMARY KEY,
    microdao_id text NOT NULL,
    scope_id integer NOT NULL,
    agent_id text NOT NULL,
    title text NOT NULL,
    source text,
    media_type text NOT NULL,
    content_hash bytea NOT NULL,
    characters integer NOT NULL,
    chunks integer NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (scope_id, id),
    FOREIGN KEY (microdao_id, scope_id) REFERENCES memory_scope (microdao_id, scope_id) ON DELETE CASCADE
);
CALL protect_scope_table('memory_document');

ALTER TABLE memory_item
    ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN scope_id integer,
    ADD FOREIGN KEY (microdao_id, scope_id) REFERENCES memory_scope (microdao_id, scope_id) ON DELETE CASCADE,
    ADD COLUMN document_id text,
    -- Of the same scope: a reference is checked, and a cascade goes, past row-level security.
    ADD FOREIGN KEY (scope_id, document_id) REFERENCES memory_document (scope_id, id) ON DELETE CASCADE,
    ADD COLUMN position integer,
    ADD COLUMN author text,
    ADD COLUMN asks boolean NOT NULL GENERATED ALWAYS AS (right(text, 1) = '?') STORED,
    -- Items of one thread are neighbours in the order of (occurred_at, number).
    ADD COLUMN thread text GENERATED ALWAYS AS (coalesce(document_id, session_id, channel_id)) STORED,
    -- How many words its postings count, and which version of the lexicon made them; NULL until there are any.
    ADD COLUMN words integer,
    ADD COLUMN lexicon smallint,
    ADD COLUMN queued_at timestamptz DEFAULT now(),
    -- The summary that stands for this item; such an item is no longer found itself.
    ADD COLUMN summary_id text REFERENCES memory_item ON DELETE SET NULL,
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    DROP COLUMN hits;
UPDATE memory_item i SET scope_id = s.scope_id, state = 'pending', queued_at = NULL FROM memory_scope s
WHERE s.microdao_id = i.microdao_id AND s.kind = 'agent' AND s.name = i.agent_id;
ALTER TABLE memory_item ALTER COLUMN scope_id SET NOT NULL;
ALTER TABLE memory_scope FORCE ROW LEVEL SECURITY;
CREATE INDEX memory_item_recent ON memory_item (scope_id, tier, occurred_at DESC, number DESC);
CREATE INDEX memory_item_thread ON memory_item (scope_id, thread, tier, occurred_at, number)
    INCLUDE (expires_at, asks) WHERE thread IS NOT NULL;
CREATE INDEX memory_item_words ON memory_item (scope_id) INCLUDE (words);
CREATE INDEX memory_item_expired ON memory_item (scope_id, expires_at) INCLUDE (number) WHERE expires_at IS NOT NULL;
CREATE INDEX ON memory_item (document_id, position) WHERE document_id IS NOT NULL;
CREATE INDEX ON memory_item (summary_id) WHERE summary_id IS NOT NULL;
DROP INDEX memory_item_unindexed;
CREATE INDEX memory_item_unindexed ON memory_item (queued_at) WHERE state = 'pending';
CALL protect_scope_table('memory_item');

-- A summary lies in the scope of what it stands for, for the same reason.
CREATE FUNCTION check_memory_summary() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM memory_item WHERE id = NEW.summary_id AND scope_id = NEW.scope_id) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a summary must lie in the scope of what it stands for';
    END IF;
    RETURN NULL;
END $$;
-- Fires before the foreign key's own trigger (by name), so that it answers alike for what is not there.
CREATE TRIGGER "0_same_scope" AFTER INSERT OR UPDATE OF summary_id ON memory_item
FOR EACH ROW WHEN (NEW.summary_id IS NOT NULL) EXECUTE FUNCTION check_memory_summary();

-- BM25's inverted index. Narrow, for it has some twenty rows an item; a trigger deletes them with their item.
CREATE TABLE memory_posting (
    scope_id integer NOT NULL,
    term text NOT NULL,
    item bigint NOT NULL,
    frequency smallint NOT NULL,
    words integer NOT NULL,
    PRIMARY KEY (scope_id, term, item) INCLUDE (frequency, words)
);
CREATE INDEX ON memory_posting (item);
CALL protect_scope_table('memory_posting');

-- The embedding models in use: one is active (searched), at most one is filling (being made beside it).
CREATE TABLE memory_space (
    space_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 4000),
    state text NOT NULL CHECK (state IN ('filling', 'active', 'retired')),
    created_at timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    retired_at timestamptz
);
CREATE UNIQUE INDEX ON memory_space (state) WHERE state <> 'retired';
GRANT SELECT ON memory_space TO daarion_tenant, daarion_agent;
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_space TO daarion_system;

-- One partition a model; in it one for each large scope, with an approximate index of its own, and one for all others,
-- which are searched exactly: a filter over an index that tenants share would silently lose rows. A long item has
-- several parts. Out-of-line vectors would make an exact scan five times slower.
CREATE TABLE memory_embedding (
    space_id smallint NOT NULL,
    scope_id integer NOT NULL,
    item bigint NOT NULL,
    part smallint NOT NULL,
    embedding halfvec NOT NULL,
    PRIMARY KEY (space_id, scope_id, item, part)
) PARTITION BY LIST (space_id);
ALTER TABLE memory_embedding ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX ON memory_embedding (item);
CALL protect_scope_table('memory_embedding');

-- The large scopes: their vectors have a partition and an approximate index of their own.
CREATE TABLE memory_large_scope (
    space_id smallint NOT NULL REFERENCES memory_space ON DELETE CASCADE,
    scope_id integer NOT NULL REFERENCES memory_scope ON DELETE CASCADE,
    PRIMARY KEY (space_id, scope_id)
);
CALL protect_scope_table('memory_large_scope');
REVOKE INSERT, UPDATE, DELETE ON memory_large_scope FROM daarion_agent;

-- Runtime roles own nothing, so the changes of the schema that running needs are functions of the owner's.
CREATE FUNCTION add_memory_space(new_model text, new_dimensions integer, new_state text) RETURNS smallint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    id smallint;
BEGIN
    INSERT INTO memory_space (model, dimensions, state, activated_at)
    VALUES (new_model, new_dimensions, new_state, CASE new_state WHEN 'active' THEN now() END) RETURNING space_id INTO id;
    EXECUTE format('CREATE TABLE memory_embedding_%s PARTITION OF memory_embedding FOR VALUES IN (%s)'
        ' PARTITION BY LIST (scope_id)', id, id);
    EXECUTE format('CREATE TABLE memory_embedding_%s_small PARTITION OF memory_embedding_%s DEFAULT', id, id);
    EXECUTE format('ALTER TABLE memory_embedding_%s_small ALTER COLUMN embedding SET STORAGE PLAIN', id);
    -- A scope's vectors side by side: in the table they lie between those of all others, each in another page. An
    -- entry may have 2,704 bytes at most. Fresh pages are seen in the table until a vacuum has marked them.
    IF new_dimensions <= 1300 THEN
        EXECUTE format('CREATE INDEX ON memory_embedding_%s_small (space_id, scope_id, item, part)'
            ' INCLUDE (embedding)', id);
    END IF;
    EXECUTE format('ALTER TABLE memory_embedding_%s_small SET (autovacuum_vacuum_insert_scale_factor = 0.02)', id);
    RETURN id;
END $$;

CREATE FUNCTION drop_memory_space(old_space smallint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM memory_space WHERE space_id = old_space AND state <> 'active') THEN
        RAISE EXCEPTION 'space % is active or unknown', old_space;
    END IF;
    EXECUTE format('DROP TABLE memory_embedding_%s', old_space);
    DELETE FROM memory_space WHERE space_id = old_space;
END $$;

-- Gives a scope's vectors a partition of their own. The index is built before anything is locked; then the shared
-- partition is locked for the moment in which the rows move. The caller writes the scope into memory_large_scope.
CREATE FUNCTION enlarge_memory_scope(in_space smallint, large_scope integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    small text := format('memory_embedding_%s_small', in_space);
    own text := format('memory_embedding_%s_%s', in_space, large_scope);
    size integer := (SELECT dimensions FROM memory_space WHERE space_id = in_space);
    copy text := format('INSERT INTO %I SELECT * FROM %I s WHERE scope_id = %s AND NOT EXISTS'
        ' (SELECT 1 FROM %I o WHERE o.item = s.item AND o.part = s.part)', own, small, large_scope, own);
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING STORAGE)', own, small);
    EXECUTE format('CREATE INDEX ON %I (item, part)', own);
    EXECUTE copy;
    EXECUTE format('CREATE INDEX ON %I USING hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops)', own, size);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', small);
    EXECUTE copy;
    EXECUTE format('DELETE FROM %I o WHERE NOT EXISTS (SELECT 1 FROM %I s WHERE s.scope_id = %s AND s.item = o.item'
        ' AND s.part = o.part)', own, small, large_scope);
    EXECUTE format('DELETE FROM %I WHERE scope_id = %s', small, large_scope);
    EXECUTE format('ALTER TABLE memory_embedding_%s ATTACH PARTITION %I FOR VALUES IN (%s)', in_space, own, large_scope);
END $$;

REVOKE ALL ON FUNCTION add_memory_space, drop_memory_space, enlarge_memory_scope FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add_memory_space, drop_memory_space, enlarge_memory_scope TO daarion_system;

-- What belongs to an item goes with it, whoever deletes it and why.
CREATE FUNCTION forget_memory_items() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory_posting p USING gone g WHERE p.item = g.number AND p.scope_id = g.scope_id;
    DELETE FROM memory_embedding e USING gone g WHERE e.item = g.number AND e.scope_id = g.scope_id;
    DELETE FROM memory_use u USING gone g WHERE u.item = g.number AND u.scope_id = g.scope_id;
    RETURN NULL;
END $$;
CREATE TRIGGER forget AFTER DELETE ON memory_item REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION forget_memory_items();

-- A scope's items go before it does: once it is gone, row-level security hides their postings from who deletes them.
CREATE FUNCTION empty_memory_scope() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory_item WHERE scope_id = OLD.scope_id;
    RETURN OLD;
END $$;
CREATE TRIGGER items_go BEFORE DELETE ON memory_scope FOR EACH ROW EXECUTE FUNCTION empty_memory_scope();

-- How often an item answered. Apart from the item, because readers who may not write count here, too. The key names the
-- scope, or a row that somebody made in another one would stand in the way of counting.
CREATE TABLE memory_use (
    scope_id integer NOT NULL,
    item bigint NOT NULL,
    hits integer NOT NULL DEFAULT 0,
    last_hit_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (item, scope_id)
) WITH (fillfactor = 70);
CREATE INDEX ON memory_use (scope_id, hits DESC);
CALL protect_scope_table('memory_use');
DROP POLICY writable ON memory_use;
DROP POLICY changeable ON memory_use;
CREATE POLICY countable ON memory_use FOR INSERT TO daarion_agent
    WITH CHECK (scope_id = ANY ((SELECT agent_scopes('read'))::integer[]));
CREATE POLICY recountable ON memory_use FOR UPDATE TO daarion_agent
    USING (scope_id = ANY ((SELECT agent_scopes('read'))::integer[]));

-- How far each channel's history has been queued for the indexer: numbers up to `queued_to` have been.
CREATE TABLE memory_channel (
    scope_id integer NOT NULL REFERENCES memory_scope ON DELETE CASCADE,
    channel_id text NOT NULL,
    queued_to bigint NOT NULL DEFAULT 0,
    last_message_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope_id, channel_id)
);
CALL protect_scope_table('memory_channel');

-- What was asked of an agent's memory, by day. A miss is a query that found nothing worth telling.
DROP TABLE memory_activity;
CREATE TABLE memory_activity (
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    day date NOT NULL DEFAULT CURRENT_DATE,
    queries bigint NOT NULL DEFAULT 0,
    misses bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (microdao_id, agent_id, day),
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
) WITH (fillfactor = 70);
CALL protect_tenant_table('memory_activity');
CALL share_with_agents('memory_activity', 'SELECT, INSERT, UPDATE', 'agent_id = current_agent()');
