-- Tools whose work is done outside the database: what a version may cost and where it may run, and the lease of a run.

ALTER TABLE tool_version
    DROP CONSTRAINT tool_version_executor_check,
    ADD CONSTRAINT tool_version_executor_check
        CHECK (executor IN ('builtin', 'http', 'python', 'mcp', 'agent', 'chain')),
    ADD COLUMN result_schema jsonb,
    ADD COLUMN cost_microusd bigint NOT NULL DEFAULT 0 CHECK (cost_microusd >= 0),
    ADD COLUMN rate_limit_per_minute integer CHECK (rate_limit_per_minute > 0),
    -- The profiles (dev, staging, prod) in which it may run; empty for all.
    ADD COLUMN environments text[] NOT NULL DEFAULT '{}';

-- Whoever runs an execution outside a transaction holds it until then. Past it the run is given up: an idempotent tool
-- runs again, any other is unknown.
ALTER TABLE tool_execution
    ADD COLUMN lease_until timestamptz,
    ADD COLUMN confidential boolean NOT NULL DEFAULT false,
    -- How many tools (chains, agents) stand above this run.
    ADD COLUMN depth smallint NOT NULL DEFAULT 0;
CREATE INDEX tool_execution_leased ON tool_execution (lease_until) WHERE status = 'running';
