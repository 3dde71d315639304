-- A change of the embedding model (or of the lexicon) while both are in use, and vectors that were paid for.

-- The runs of the background fill, of which one goes on at most. It walks over the items by number; `cursor` is the last
-- one it has seen. Without a space only postings are made anew. `configured` is the model that the configuration named
-- when the run began: a run starts by itself only when that changes.
CREATE TABLE memory_reindex (
    id text PRIMARY KEY,
    model text NOT NULL,
    space_id smallint,
    lexicon smallint NOT NULL,
    configured text NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'done', 'cancelled')),
    cursor bigint NOT NULL DEFAULT 0,
    passes integer NOT NULL DEFAULT 0,
    resume_at timestamptz NOT NULL DEFAULT now(),
    total bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX memory_reindex_running ON memory_reindex (state) WHERE state = 'running';
CREATE INDEX ON memory_reindex (started_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON memory_reindex TO daarion_system;

-- What a filling space lacks because its model does not take the text.
CREATE TABLE memory_unembeddable (
    space_id smallint NOT NULL REFERENCES memory_space ON DELETE CASCADE,
    scope_id integer NOT NULL,
    item bigint NOT NULL REFERENCES memory_item (number) ON DELETE CASCADE,
    failure text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    PRIMARY KEY (space_id, item)
);
CREATE INDEX ON memory_unembeddable (item);
CALL protect_scope_table('memory_unembeddable');

-- Vectors that a provider was paid for, by the hash of their text.
CREATE TABLE memory_embedding_cache (
    microdao_id text NOT NULL REFERENCES microdao,
    model text NOT NULL,
    purpose text NOT NULL CHECK (purpose IN ('passage', 'query')),
    hash bytea NOT NULL,
    embedding halfvec NOT NULL,
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (microdao_id, model, purpose, hash)
);
CREATE INDEX ON memory_embedding_cache (used_at);
CALL protect_tenant_table('memory_embedding_cache');

-- Which scopes hold about so many vectors of a space in the shared partition or more. From the planner's statistics, so
-- that asking costs nothing however many vectors there are; a scope that large is among the most common values.
CREATE FUNCTION crowded_memory_scopes(in_space smallint, least_vectors integer) RETURNS TABLE (scope_id integer, vectors bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
BEGIN ATOMIC
    SELECT m.scope_id, (m.frequency * greatest(c.reltuples, 0))::bigint AS vectors
    FROM pg_class c JOIN pg_stats s ON s.schemaname = 'public' AND s.tablename = c.relname AND s.attname = 'scope_id',
        unnest(s.most_common_vals::text::integer[], s.most_common_freqs) AS m (scope_id, frequency)
    WHERE c.oid = to_regclass(format('public.memory_embedding_%s_small', in_space))
      AND m.frequency * greatest(c.reltuples, 0) >= least_vectors
    ORDER BY 2 DESC;
END;
REVOKE ALL ON FUNCTION crowded_memory_scopes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION crowded_memory_scopes TO daarion_system;
