-- A user whom the host removes from a session that goes on, and who was through at the own pace, has no score of it from
-- then on; and has it again when the host lets the user in again.

CREATE FUNCTION mark_removed_unscored() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO unscored_sessions (session_id, player)
    SELECT id, NEW.player FROM sessions
    WHERE id = NEW.session_id AND finished_at IS NULL AND settings ->> 'pace' = 'self' AND scores_before_end(settings);
    RETURN NULL;
END
$$;
CREATE TRIGGER unscored_when_removed AFTER INSERT ON session_changes
    FOR EACH ROW WHEN (NEW.kind IN ('kicked', 'readmitted')) EXECUTE FUNCTION mark_removed_unscored();

COMMENT ON COLUMN unscored_sessions.finished_at IS
    'When that player was through; null: that is still to be found, and whether the player is in.';
