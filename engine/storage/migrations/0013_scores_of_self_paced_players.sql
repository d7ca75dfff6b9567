-- Users who go through a quiz at their own pace have a score as soon as they are through, while the session runs on.

ALTER TABLE user_scores ALTER COLUMN rank DROP NOT NULL, ALTER COLUMN players DROP NOT NULL;
COMMENT ON COLUMN user_scores.rank IS 'As in standings; null until the session is over.';
COMMENT ON COLUMN user_scores.players IS
    'How many players are in the standing, guests included; null until the session is over.';

CREATE OR REPLACE VIEW finished_plays AS
SELECT p.session_id, p.player, p.user_id, s.quiz_id, coalesce(d.at, s.finished_at) AS finished_at,
       s.finished_at IS NOT NULL AS over
FROM players p
JOIN sessions s ON s.id = p.session_id
LEFT JOIN session_changes d ON d.session_id = p.session_id AND d.kind = 'done' AND d.player = p.player
WHERE s.finished_at IS NOT NULL OR d.at IS NOT NULL;
COMMENT ON COLUMN finished_plays.finished_at IS
    'When: with the end of the session, or before, when a player at the own pace was through.';
COMMENT ON COLUMN finished_plays.over IS 'Whether the session is over.';

ALTER TABLE unscored_sessions ADD COLUMN player integer, ADD COLUMN finished_at timestamptz;
COMMENT ON COLUMN unscored_sessions.player IS 'The one whose score is to be made; null for all of the session.';
COMMENT ON COLUMN unscored_sessions.finished_at IS 'When that player was through.';

CREATE FUNCTION mark_player_unscored() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO unscored_sessions (session_id, player, finished_at) VALUES (NEW.session_id, NEW.player, NEW.at);
    RETURN NULL;
END
$$;
CREATE TRIGGER unscored_when_done AFTER INSERT ON session_changes
    FOR EACH ROW WHEN (NEW.kind = 'done') EXECUTE FUNCTION mark_player_unscored();

-- Whoever makes scores of the session just now may have seen the user still: this waits for that to end.
CREATE OR REPLACE FUNCTION forget_score() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(OLD.session_id::text, 9));
    DELETE FROM user_scores WHERE session_id = OLD.session_id AND user_id = OLD.user_id;
    INSERT INTO unscored_sessions (session_id)
    SELECT id FROM sessions WHERE id = OLD.session_id AND finished_at IS NOT NULL;
    RETURN NULL;
END
$$;
