-- Admission of model calls: rate limits, budgets, and the holds of calls in flight.
--
-- A limit or a budget belongs to a scope: the platform, a microDAO, an agent, a key or a flow. The platform's rows have
-- '*' as microdao_id, which is no tenant's, so these tables do not refer to microdao.
--
-- Whoever locks several rows takes windows before budget periods, each in the order of its key: no deadlocks.

CREATE TABLE llm_limit (
    microdao_id text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('platform', 'microdao', 'agent', 'key', 'flow')),
    id text NOT NULL,
    requests_per_minute integer CHECK (requests_per_minute >= 0),
    tokens_per_minute bigint CHECK (tokens_per_minute >= 0),
    PRIMARY KEY (microdao_id, scope, id)
);
CALL protect_tenant_table('llm_limit');

-- What was admitted under a limit in the minute that began with the first call after the last one. Its row comes and
-- goes with the limit's.
CREATE TABLE llm_window (
    microdao_id text NOT NULL,
    scope text NOT NULL,
    id text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT '-infinity',
    requests integer NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (microdao_id, scope, id),
    FOREIGN KEY (microdao_id, scope, id) REFERENCES llm_limit ON DELETE CASCADE
) WITH (fillfactor = 50);
CALL protect_tenant_table('llm_window');

CREATE TABLE llm_budget (
    microdao_id text NOT NULL,
    scope text NOT NULL CHECK (scope IN ('platform', 'microdao', 'agent', 'key', 'flow')),
    id text NOT NULL,
    period text NOT NULL CHECK (period IN ('day', 'month', 'total')),
    limit_microusd bigint NOT NULL CHECK (limit_microusd >= 0),
    PRIMARY KEY (microdao_id, scope, id, period)
);
CALL protect_tenant_table('llm_budget');

-- spent_microusd is the sum of the scope's ledger rows admitted in the period, reserved_microusd that of its open holds.
CREATE TABLE llm_budget_period (
    microdao_id text NOT NULL,
    scope text NOT NULL,
    id text NOT NULL,
    period text NOT NULL,
    starts_at timestamptz NOT NULL,
    spent_microusd bigint NOT NULL DEFAULT 0,
    reserved_microusd bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (microdao_id, scope, id, period, starts_at),
    FOREIGN KEY (microdao_id, scope, id, period) REFERENCES llm_budget ON DELETE CASCADE
) WITH (fillfactor = 50);
CALL protect_tenant_table('llm_budget_period');

-- What is held for a call in flight: the most that it can use. Settling deletes the row; one that expired belongs to a
-- process that died, and is settled by the usage meter.
CREATE TABLE llm_reservation (
    id text PRIMARY KEY,
    microdao_id text NOT NULL,
    agent_id text,
    key_id text,
    flow_id text,
    session_id text,
    model text NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost_microusd bigint NOT NULL CHECK (cost_microusd >= 0),
    admitted_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX ON llm_reservation (expires_at);
CALL protect_tenant_table('llm_reservation');

-- The scopes of a call. Inlined by the planner, so that each look-up is by key.
CREATE FUNCTION llm_scopes(hold llm_reservation) RETURNS TABLE (microdao_id text, scope text, id text)
LANGUAGE sql IMMUTABLE AS $$
    SELECT * FROM (VALUES ('*', 'platform', '*'),
        (hold.microdao_id, 'microdao', hold.microdao_id),
        (hold.microdao_id, 'agent', hold.agent_id),
        (hold.microdao_id, 'key', hold.key_id),
        (hold.microdao_id, 'flow', hold.flow_id)) AS scopes (microdao_id, scope, id)
$$;

-- When the period that a moment lies in began; days and months are UTC's.
CREATE FUNCTION llm_period_start(period text, moment timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN CASE period WHEN 'total' THEN to_timestamp(0) ELSE date_trunc(period, moment, 'UTC') END;

CREATE FUNCTION llm_period_end(period text, moment timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN CASE period WHEN 'day' THEN llm_period_start('day', moment) + interval '24 hours'
    WHEN 'month' THEN date_trunc('month', llm_period_start('month', moment) + interval '32 days', 'UTC') END;

-- What a caller is told of a window.
CREATE FUNCTION llm_window_view(w llm_window, l llm_limit, moment timestamptz) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object('scope', w.scope, 'id', w.id, 'requests', w.requests, 'tokens', w.tokens,
    'requests_per_minute', l.requests_per_minute, 'tokens_per_minute', l.tokens_per_minute,
    'remaining_ms', ceil(extract(epoch FROM w.started_at + interval '1 minute' - moment) * 1000));

-- Lock the windows of a call's limits, and begin a minute that is over anew; whether there are any.
CREATE FUNCTION lock_llm_windows(hold llm_reservation) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz;
BEGIN
    PERFORM FROM llm_scopes(hold) JOIN llm_window w USING (microdao_id, scope, id)
        ORDER BY w.microdao_id, w.scope, w.id FOR UPDATE OF w;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    moment := clock_timestamp();
    UPDATE llm_window w SET started_at = moment, requests = 0, tokens = 0 FROM llm_scopes(hold) s
        WHERE (w.microdao_id, w.scope, w.id) = (s.microdao_id, s.scope, s.id)
        AND w.started_at <= moment - interval '1 minute';
    RETURN true;
END $$;

-- Lock the periods of a call's budgets, which begin with the first call in them; whether there are any. A period that is
-- missing is added before any is locked, by everyone in the same order.
CREATE FUNCTION lock_llm_budgets(hold llm_reservation) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    budgets integer;
    periods integer;
BEGIN
    SELECT count(*), count(p.starts_at) INTO budgets, periods
        FROM llm_scopes(hold) JOIN llm_budget b USING (microdao_id, scope, id)
            LEFT JOIN llm_budget_period p ON (p.microdao_id, p.scope, p.id, p.period, p.starts_at)
                = (b.microdao_id, b.scope, b.id, b.period, llm_period_start(b.period, hold.admitted_at));
    IF budgets = 0 THEN
        RETURN false;
    END IF;
    IF periods < budgets THEN
        INSERT INTO llm_budget_period (microdao_id, scope, id, period, starts_at)
            SELECT b.microdao_id, b.scope, b.id, b.period, llm_period_start(b.period, hold.admitted_at)
            FROM llm_scopes(hold) JOIN llm_budget b USING (microdao_id, scope, id)
            ORDER BY b.microdao_id, b.scope, b.id, b.period
            ON CONFLICT DO NOTHING;
    END IF;
    PERFORM FROM llm_scopes(hold) JOIN llm_budget_period p USING (microdao_id, scope, id)
        WHERE p.starts_at = llm_period_start(p.period, hold.admitted_at)
        ORDER BY p.microdao_id, p.scope, p.id, p.period FOR UPDATE OF p;
    RETURN true;
END $$;

-- Add to what the periods of a call's budgets have spent and reserved.
CREATE FUNCTION move_llm_budgets(hold llm_reservation, spent bigint, reserved bigint) RETURNS void
LANGUAGE sql AS $$
    UPDATE llm_budget_period p SET spent_microusd = p.spent_microusd + spent,
        reserved_microusd = p.reserved_microusd + reserved
    FROM llm_scopes(hold) s WHERE (p.microdao_id, p.scope, p.id) = (s.microdao_id, s.scope, s.id)
        AND p.starts_at = llm_period_start(p.period, hold.admitted_at)
$$;

-- Replace what a call held in its budgets by what it spent.
CREATE FUNCTION charge_llm_budgets(hold llm_reservation, spent bigint, held bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF (spent <> 0 OR held <> 0) AND lock_llm_budgets(hold) THEN
        PERFORM move_llm_budgets(hold, spent, -held);
    END IF;
END $$;

-- Give tokens that a call held and did not use back to the minute it was admitted in, unless that is over.
CREATE FUNCTION free_llm_tokens(hold llm_reservation, freed bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF freed <> 0 THEN
        PERFORM FROM llm_scopes(hold) JOIN llm_window w USING (microdao_id, scope, id)
            ORDER BY w.microdao_id, w.scope, w.id FOR UPDATE OF w;
        IF FOUND THEN
            UPDATE llm_window w SET tokens = greatest(w.tokens - freed, 0) FROM llm_scopes(hold) s
                WHERE (w.microdao_id, w.scope, w.id) = (s.microdao_id, s.scope, s.id)
                AND w.started_at <= hold.admitted_at;
        END IF;
    END IF;
END $$;

-- Check every limit and budget of a call and, if all have room, hold the most it can use: all or nothing.
--
-- Takes the fields of llm_reservation without the two times, and ttl_s. Answers {"refused": null | "key" | "rate" |
-- "budget", "admitted_at", "windows": [as counted after the call, or as they refused it], "budget": the one that refused}.
CREATE FUNCTION admit_llm_call(call jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    hold llm_reservation := jsonb_populate_record(NULL::llm_reservation, call);
    is_limited boolean;
    is_full boolean;
    windows jsonb;
    empty_budget jsonb;
BEGIN
    -- A hold lost in a crash of the server loses nothing: the call is settled from what its process knows. So no call
    -- waits for the disk here, least of all while it has a limit's row locked.
    PERFORM set_config('synchronous_commit', 'off', true);
    -- Waits for a budget that is being made; it counts the holds that are there.
    LOCK TABLE llm_reservation IN ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM api_key k WHERE k.id = hold.key_id AND k.revoked_at IS NOT NULL) THEN
        RETURN '{"refused": "key"}';
    END IF;
    is_limited := lock_llm_windows(hold);
    hold.admitted_at := clock_timestamp();
    hold.expires_at := hold.admitted_at + make_interval(secs => (call->>'ttl_s')::double precision);
    IF is_limited THEN
        SELECT jsonb_agg(llm_window_view(w, l, hold.admitted_at)), bool_or(w.requests + 1 > l.requests_per_minute
                OR w.tokens + hold.prompt_tokens + hold.completion_tokens > l.tokens_per_minute)
            INTO windows, is_full
            FROM llm_scopes(hold) JOIN llm_limit l USING (microdao_id, scope, id)
                JOIN llm_window w USING (microdao_id, scope, id);
        IF is_full THEN
            RETURN jsonb_build_object('refused', 'rate', 'windows', windows);
        END IF;
    END IF;
    IF hold.cost_microusd > 0 AND lock_llm_budgets(hold) THEN
        SELECT to_jsonb(p) || jsonb_build_object('limit_microusd', b.limit_microusd,
                'ends_at', llm_period_end(b.period, hold.admitted_at))
            INTO empty_budget
            FROM llm_scopes(hold) JOIN llm_budget b USING (microdao_id, scope, id)
                JOIN llm_budget_period p USING (microdao_id, scope, id, period)
            WHERE p.starts_at = llm_period_start(p.period, hold.admitted_at)
                AND p.spent_microusd + p.reserved_microusd + hold.cost_microusd > b.limit_microusd
            ORDER BY b.limit_microusd - p.spent_microusd LIMIT 1;
        IF FOUND THEN
            RETURN jsonb_build_object('refused', 'budget', 'budget', empty_budget);
        END IF;
        PERFORM move_llm_budgets(hold, 0, hold.cost_microusd);
    END IF;
    IF is_limited THEN
        WITH counted AS (
            UPDATE llm_window w SET requests = w.requests + 1,
                tokens = w.tokens + hold.prompt_tokens + hold.completion_tokens
            FROM llm_scopes(hold) JOIN llm_limit l USING (microdao_id, scope, id)
            WHERE (w.microdao_id, w.scope, w.id) = (l.microdao_id, l.scope, l.id)
            RETURNING llm_window_view(w, l, hold.admitted_at) AS seen)
        SELECT jsonb_agg(seen) INTO windows FROM counted;
    END IF;
    INSERT INTO llm_reservation SELECT hold.*;
    RETURN jsonb_build_object('admitted_at', hold.admitted_at, 'windows', windows);
END $$;

-- The ledger keeps the moment of admission, which decides the budget period. An orphaned row is the estimate of a call
-- whose process died; a corrected one takes such an estimate back, because the call was settled after all.
ALTER TABLE llm_ledger RENAME COLUMN created_at TO admitted_at;
ALTER TABLE llm_ledger
    ADD COLUMN variant text, -- `experiment/variant` of a call that an experiment changed
    ADD COLUMN cache_creation_tokens integer NOT NULL DEFAULT 0,
    ADD COLUMN cache_creation_1h_tokens integer NOT NULL DEFAULT 0,
    ADD COLUMN cache_creation_usd_per_mtok numeric(12, 6) NOT NULL DEFAULT 0,
    ADD COLUMN cache_creation_1h_usd_per_mtok numeric(12, 6) NOT NULL DEFAULT 0,
    DROP CONSTRAINT llm_ledger_outcome_check,
    ADD CONSTRAINT llm_ledger_outcome_check
        CHECK (outcome IN ('succeeded', 'failed', 'cancelled', 'orphaned', 'corrected'));

-- `calls` is -1 on an event that takes an earlier one back.
ALTER TABLE usage_event
    ADD COLUMN variant text,
    ADD COLUMN provider text,
    ADD COLUMN calls smallint NOT NULL DEFAULT 1;

-- Write an event and, if it is new, the meter's job (an outbox row; without one the meter's sweep makes it).
CREATE FUNCTION record_usage_event(event jsonb, job jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_event (id, microdao_id, kind, subject, variant, provider, agent_id, flow_id, session_id, failed, calls,
            prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_microusd, latency_ms)
        SELECT id, microdao_id, kind, subject, variant, provider, agent_id, flow_id, session_id, failed, calls,
            prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_microusd, latency_ms
        FROM jsonb_populate_record(NULL::usage_event, event)
        ON CONFLICT DO NOTHING;
    IF FOUND AND job IS NOT NULL THEN
        INSERT INTO outbox (id, microdao_id, queue, body)
            SELECT id, microdao_id, queue, body FROM jsonb_populate_record(NULL::outbox, job);
    END IF;
END $$;

-- Take back the estimate of a call that was settled as an orphan; what that moves the budgets by.
CREATE FUNCTION correct_llm_orphan(hold_id text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    estimate llm_ledger;
BEGIN
    SELECT * INTO estimate FROM llm_ledger WHERE id = hold_id || '_orphan';
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    estimate.id := hold_id || '_corrected';
    estimate.outcome := 'corrected';
    estimate.prompt_tokens := -estimate.prompt_tokens;
    estimate.completion_tokens := -estimate.completion_tokens;
    estimate.cost_microusd := -estimate.cost_microusd;
    INSERT INTO llm_ledger SELECT estimate.* ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    PERFORM record_usage_event(to_jsonb(estimate) || jsonb_build_object('id', 'use_' || estimate.id, 'kind', 'llm',
        'subject', estimate.model, 'failed', true, 'calls', -1), NULL);
    RETURN estimate.cost_microusd;
END $$;

-- Settle a call: append its ledger rows, free its hold, charge its budgets what it cost, give unused tokens back to its
-- windows, write its usage event. The hold's id names the call: what was settled before changes nothing again.
--
-- Takes {"hold": fields of llm_reservation, "entries": [rows of llm_ledger], "event", "job": see record_usage_event}.
CREATE FUNCTION settle_llm_call(call jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    hold llm_reservation := jsonb_populate_record(NULL::llm_reservation, call->'hold');
    held llm_reservation;
    spent bigint;
    used bigint;
BEGIN
    DELETE FROM llm_reservation WHERE id = hold.id RETURNING * INTO held;
    WITH appended AS (
        INSERT INTO llm_ledger (id, microdao_id, agent_id, key_id, session_id, flow_id, variant, model, provider,
                provider_model, attempt, outcome, error_code, usage_source, prompt_tokens, completion_tokens,
                cached_tokens, cache_creation_tokens, cache_creation_1h_tokens, reasoning_tokens, input_usd_per_mtok,
                cached_input_usd_per_mtok, cache_creation_usd_per_mtok, cache_creation_1h_usd_per_mtok,
                output_usd_per_mtok, cost_microusd, latency_ms, admitted_at)
            SELECT id, microdao_id, agent_id, key_id, session_id, flow_id, variant, model, provider,
                provider_model, attempt, outcome, error_code, usage_source, prompt_tokens, completion_tokens,
                cached_tokens, cache_creation_tokens, cache_creation_1h_tokens, reasoning_tokens, input_usd_per_mtok,
                cached_input_usd_per_mtok, cache_creation_usd_per_mtok, cache_creation_1h_usd_per_mtok,
                output_usd_per_mtok, cost_microusd, latency_ms, hold.admitted_at
            FROM jsonb_populate_recordset(NULL::llm_ledger, call->'entries')
            ON CONFLICT DO NOTHING RETURNING cost_microusd, prompt_tokens, completion_tokens)
    SELECT coalesce(sum(cost_microusd), 0), coalesce(sum(prompt_tokens + completion_tokens), 0)
        INTO spent, used FROM appended;
    IF held.id IS NULL THEN
        spent := spent + correct_llm_orphan(hold.id);
    ELSE
        PERFORM free_llm_tokens(hold, held.prompt_tokens + held.completion_tokens - used);
    END IF;
    PERFORM charge_llm_budgets(hold, spent, coalesce(held.cost_microusd, 0));
    IF jsonb_typeof(call->'event') = 'object' THEN
        PERFORM record_usage_event(call->'event', call->'job');
    END IF;
END $$;

-- Settle one expired hold at its estimate; false when there is none.
CREATE FUNCTION settle_llm_orphan() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    held llm_reservation;
    estimate llm_ledger;
BEGIN
    DELETE FROM llm_reservation WHERE id = (SELECT id FROM llm_reservation WHERE expires_at <= clock_timestamp()
        ORDER BY expires_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING * INTO held;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO llm_ledger (id, microdao_id, agent_id, key_id, session_id, flow_id, model, provider, provider_model,
            attempt, outcome, usage_source, prompt_tokens, completion_tokens, cost_microusd, latency_ms, admitted_at)
        VALUES (held.id || '_orphan', held.microdao_id, held.agent_id, held.key_id, held.session_id, held.flow_id,
            held.model, 'unknown', 'unknown', 0, 'orphaned', 'estimated', held.prompt_tokens, held.completion_tokens,
            held.cost_microusd, 0, held.admitted_at)
        RETURNING * INTO estimate;
    PERFORM charge_llm_budgets(held, held.cost_microusd, held.cost_microusd);
    PERFORM record_usage_event(to_jsonb(estimate) || jsonb_build_object('id', 'use_' || estimate.id, 'kind', 'llm',
        'subject', estimate.model, 'failed', true, 'calls', 1), NULL);
    RETURN true;
END $$;
