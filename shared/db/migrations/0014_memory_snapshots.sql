-- Snapshots of agents' memory as sealed files, and what analytics read instead of every item.

CREATE TABLE memory_snapshot (
    id text PRIMARY KEY,
    microdao_id text NOT NULL,
    scope_id integer NOT NULL,
    name text NOT NULL,
    items integer NOT NULL,
    documents integer NOT NULL,
    bytes integer NOT NULL, -- of the file before it was compressed
    file bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (microdao_id, scope_id) REFERENCES memory_scope (microdao_id, scope_id) ON DELETE CASCADE
);
-- It is compressed already.
ALTER TABLE memory_snapshot ALTER COLUMN file SET STORAGE EXTERNAL;
CREATE INDEX ON memory_snapshot (scope_id, id);
CALL protect_scope_table('memory_snapshot');

CREATE INDEX memory_item_growth ON memory_item (scope_id, created_at, number);
CREATE INDEX memory_item_unready ON memory_item (scope_id, state, created_at) WHERE state <> 'ready';
