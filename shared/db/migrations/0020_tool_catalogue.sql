-- Tools that administrators make: labels, versions that wait for approval, and where imported tools come from.

ALTER TABLE tool
    -- What a model calls it by; two tools that a model could not tell apart cannot be.
    ADD COLUMN function_name text NOT NULL
        GENERATED ALWAYS AS (left(regexp_replace(name, '[^a-zA-Z0-9_-]', '_', 'g'), 64)) STORED,
    ADD COLUMN tags text[] NOT NULL DEFAULT '{}',
    -- A version that must be looked at before it may run, and why the tool is not active.
    ADD COLUMN pending_version integer,
    ADD COLUMN disabled_reason text,
    -- A deleted tool stays for the audit log; its name is free again.
    ADD COLUMN archived_at timestamptz,
    DROP CONSTRAINT tool_microdao_id_name_key;
CREATE UNIQUE INDEX tool_name ON tool (microdao_id, name) WHERE archived_at IS NULL;
CREATE UNIQUE INDEX tool_function_name ON tool (microdao_id, lower(function_name)) WHERE archived_at IS NULL;

ALTER TABLE tool_version ADD COLUMN created_by text NOT NULL DEFAULT '';

CREATE FUNCTION refuse_change_of_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a tool version never changes: add another';
END $$;
CREATE TRIGGER tool_version_is_immutable BEFORE UPDATE ON tool_version
    FOR EACH ROW WHEN (current_user = 'daarion_tenant') EXECUTE FUNCTION refuse_change_of_version();

-- Other names under which a tool may be called.
CREATE TABLE tool_alias (
    microdao_id text NOT NULL REFERENCES microdao,
    alias text NOT NULL,
    tool_id text NOT NULL REFERENCES tool ON DELETE CASCADE,
    PRIMARY KEY (microdao_id, alias)
);
CREATE INDEX ON tool_alias (tool_id);
CALL protect_tenant_table('tool_alias');

-- The aliases that were known before there was a table of them.
INSERT INTO tool_alias (microdao_id, alias, tool_id)
SELECT tool.microdao_id, old.alias, tool.id
FROM tool JOIN (VALUES ('list_projects', 'projects.list'), ('create_project', 'project.create'),
    ('list_tasks', 'tasks.list'), ('create_task', 'task.create'), ('docs.search', 'search_docs')) AS old (alias, name) USING (name);

-- Where imported tools come from. `key` is the identity of the source: importing it again is the same import.
CREATE TABLE tool_import (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    kind text NOT NULL CHECK (kind IN ('openapi', 'mcp')),
    key text NOT NULL,
    title text NOT NULL,
    -- What it takes to look at the source again: url, base_url, secret_ref, prefix.
    source jsonb NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    checked_at timestamptz NOT NULL DEFAULT now(),
    check_error text,
    -- Null for a source that cannot be looked at again (a document that was sent).
    next_check_at timestamptz,
    UNIQUE (microdao_id, key)
);
CREATE INDEX tool_import_due ON tool_import (next_check_at) WHERE next_check_at IS NOT NULL;
CALL protect_tenant_table('tool_import');

-- One tool of an import: what it is called there, and the hash of what was said of it when last looked at.
CREATE TABLE tool_import_item (
    microdao_id text NOT NULL REFERENCES microdao,
    tool_id text NOT NULL REFERENCES tool ON DELETE CASCADE,
    import_id text NOT NULL REFERENCES tool_import ON DELETE CASCADE,
    source_name text NOT NULL,
    source_hash text NOT NULL,
    vanished_at timestamptz,
    PRIMARY KEY (tool_id),
    UNIQUE (import_id, source_name)
);
CALL protect_tenant_table('tool_import_item');

-- Analytics reads the runs of a period.
CREATE INDEX tool_execution_period ON tool_execution (microdao_id, created_at);
