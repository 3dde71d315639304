-- Every model call is admitted and settled. These two functions take their role themselves, so that the statement that
-- calls one has nothing else to send: the login may take that role anyway, and loses it when the function returns.

ALTER FUNCTION admit_llm_call(jsonb) SET role TO daarion_system;
ALTER FUNCTION settle_llm_call(jsonb) SET role TO daarion_system;
