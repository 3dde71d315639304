-- A memory may be changed in place. What was made of its former content ends with it, whoever changes it: its vectors in
-- all spaces, what is known of texts that a model does not take, and a summary that quotes it. (What else that summary
-- stood for is found itself again, by the trigger on deletion.) Postings are replaced by who changes the content.

CREATE FUNCTION follow_memory_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory_embedding WHERE item = NEW.number AND scope_id = NEW.scope_id;
    DELETE FROM memory_unembeddable WHERE item = NEW.number AND scope_id = NEW.scope_id;
    DELETE FROM memory_item WHERE id = NEW.summary_id AND scope_id = NEW.scope_id;
    RETURN NULL;
END $$;
CREATE TRIGGER follow_changes AFTER UPDATE OF content_hash ON memory_item
FOR EACH ROW WHEN (OLD.content_hash IS DISTINCT FROM NEW.content_hash) EXECUTE FUNCTION follow_memory_changes();
