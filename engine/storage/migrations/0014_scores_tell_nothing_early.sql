-- A score tells what is right. Where players learn that only after the end (`reveal`: `deadline` or `never`),
-- nobody has a score of the session before.

CREATE FUNCTION scores_before_end(settings jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(settings ->> 'reveal', 'each') IN ('each', 'end')
$$;
COMMENT ON FUNCTION scores_before_end IS 'Whether players who are through may know their scores while the session runs.';

CREATE OR REPLACE VIEW finished_plays AS
SELECT p.session_id, p.player, p.user_id, s.quiz_id, coalesce(d.at, s.finished_at) AS finished_at,
       s.finished_at IS NOT NULL AS over
FROM players p
JOIN sessions s ON s.id = p.session_id
LEFT JOIN session_changes d ON d.session_id = p.session_id AND d.kind = 'done' AND d.player = p.player
WHERE s.finished_at IS NOT NULL OR d.at IS NOT NULL AND scores_before_end(s.settings);

CREATE OR REPLACE FUNCTION mark_player_unscored() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO unscored_sessions (session_id, player, finished_at)
    SELECT id, NEW.player, NEW.at FROM sessions WHERE id = NEW.session_id AND scores_before_end(settings);
    RETURN NULL;
END
$$;
