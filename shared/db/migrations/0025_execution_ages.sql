-- Runs of tools, and the days of tools in prompts, are removed by age: the sweep finds the oldest without reading the others.

CREATE INDEX tool_execution_finished ON tool_execution (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX tool_execution_queued ON tool_execution (created_at) WHERE status = 'queued';
CREATE INDEX tool_prompt_day ON tool_prompt (day);

-- Whether a job stands for an execution.
CREATE INDEX outbox_execution ON outbox ((body->>'execution_id')) WHERE body->>'execution_id' IS NOT NULL;
