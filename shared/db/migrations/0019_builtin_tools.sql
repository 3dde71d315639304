-- What built-in tools work on beside projects, tasks and help pages: follow-ups, notifications and the webhook that
-- carries them out.

ALTER TABLE project ADD COLUMN archived_at timestamptz;

ALTER TABLE task
    -- An agent's id, or a person as `user:…`.
    ADD COLUMN assignee text,
    ADD COLUMN due_at timestamptz,
    ADD COLUMN done_at timestamptz;

-- A reminder that becomes a notification when it is due.
CREATE TABLE followup (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    text text NOT NULL,
    due_at timestamptz NOT NULL,
    recipient_kind text NOT NULL CHECK (recipient_kind IN ('agent', 'user', 'channel')),
    recipient text NOT NULL,
    project_id text REFERENCES project ON DELETE SET NULL,
    task_id text REFERENCES task ON DELETE SET NULL,
    -- Where it is also said when it is due.
    channel_id text,
    confidential boolean NOT NULL DEFAULT false,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'fired', 'cancelled')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX followup_due ON followup (due_at) WHERE state = 'waiting';
CREATE INDEX ON followup (microdao_id, state, due_at);
CALL protect_tenant_table('followup');

-- The inbox of an agent, a person or a channel.
CREATE TABLE notification (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    kind text NOT NULL CHECK (kind IN ('message', 'followup')),
    recipient_kind text NOT NULL CHECK (recipient_kind IN ('agent', 'user', 'channel')),
    recipient text NOT NULL,
    title text NOT NULL DEFAULT '',
    text text NOT NULL,
    sent_by text NOT NULL,
    -- A follow-up fires once.
    followup_id text UNIQUE REFERENCES followup ON DELETE SET NULL,
    channel_id text,
    -- Its words do not leave the platform.
    confidential boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at timestamptz
);
CREATE INDEX ON notification (microdao_id, id DESC);
CREATE INDEX ON notification (microdao_id, recipient, id DESC);
CREATE INDEX notification_unread ON notification (microdao_id, recipient, id DESC) WHERE read_at IS NULL;
CALL protect_tenant_table('notification');

CREATE TABLE webhook (
    microdao_id text PRIMARY KEY REFERENCES microdao,
    url text NOT NULL,
    events text[] NOT NULL CHECK (cardinality(events) > 0),
    -- Sealed; whoever reads the table cannot sign.
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CALL protect_tenant_table('webhook');

-- One notification on its way to the webhook. Whoever sends it holds it until `lease_until`.
CREATE TABLE webhook_delivery (
    id text PRIMARY KEY,
    microdao_id text NOT NULL REFERENCES microdao,
    notification_id text NOT NULL UNIQUE REFERENCES notification ON DELETE CASCADE,
    event text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    lease_until timestamptz,
    -- How the latest attempt ended: the HTTP status if there was an answer, and the reason if it failed.
    status integer,
    failure text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX ON webhook_delivery (microdao_id, id DESC);
CALL protect_tenant_table('webhook_delivery');
