-- What notifications, their deliveries and follow-ups leave behind is removed by age: the sweep finds what is old enough
-- without reading what is not.

CREATE INDEX notification_created ON notification (created_at);
CREATE INDEX notification_read ON notification (read_at) WHERE read_at IS NOT NULL;
CREATE INDEX webhook_delivery_delivered ON webhook_delivery (ended_at) WHERE state = 'delivered';
CREATE INDEX followup_over ON followup (ended_at) WHERE state <> 'waiting';
