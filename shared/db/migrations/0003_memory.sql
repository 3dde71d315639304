-- Memory items, and their embeddings in a narrow table of their own so that exact scans read little.

CREATE TABLE memory_item (
    id text PRIMARY KEY,
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    tier text NOT NULL CHECK (tier IN ('short_term', 'mid_term', 'long_term')),
    content jsonb NOT NULL,
    text text NOT NULL,
    content_hash bytea NOT NULL,
    source text,
    channel_id text,
    session_id text,
    importance real NOT NULL DEFAULT 0.5 CHECK (importance BETWEEN 0 AND 1),
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'ready', 'failed')),
    failure text,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    indexed_at timestamptz,
    hits integer NOT NULL DEFAULT 0,
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
);
CREATE INDEX ON memory_item (microdao_id, agent_id, tier, occurred_at DESC);
CREATE INDEX ON memory_item (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memory_item_unindexed ON memory_item (created_at) WHERE state = 'pending';
CALL protect_tenant_table('memory_item');

CREATE TABLE memory_embedding_minilm_l6_v2 (
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    item_id text NOT NULL REFERENCES memory_item ON DELETE CASCADE,
    embedding halfvec(384) NOT NULL,
    PRIMARY KEY (microdao_id, agent_id, item_id)
);
-- Out-of-line vectors make an exact scan five times slower.
ALTER TABLE memory_embedding_minilm_l6_v2 ALTER COLUMN embedding SET STORAGE PLAIN;
CREATE INDEX ON memory_embedding_minilm_l6_v2 (item_id);
CALL protect_tenant_table('memory_embedding_minilm_l6_v2');

-- How often an agent's memory was asked.
CREATE TABLE memory_activity (
    microdao_id text NOT NULL,
    agent_id text NOT NULL,
    queries bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (microdao_id, agent_id),
    FOREIGN KEY (microdao_id, agent_id) REFERENCES agent
);
CALL protect_tenant_table('memory_activity');
