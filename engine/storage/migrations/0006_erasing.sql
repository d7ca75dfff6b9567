-- Erasing: quizzes that are deleted but still played, sessions that are deleted, names of players that are erased.

ALTER TABLE quizzes ADD COLUMN deleted_at timestamptz;
COMMENT ON TABLE quizzes IS
    'Authored quizzes. A stored version never changes, but for being deleted; an edit adds the next one.';
COMMENT ON COLUMN quizzes.title IS 'As in the definition; empty once that is gone.';
COMMENT ON COLUMN quizzes.definition IS
    'The whole quiz as authored, with questions and right answers. Null in JSON for a deleted version that '
    'no session uses: the row stays, so that its number is not given again.';
COMMENT ON COLUMN quizzes.deleted_at IS
    'When it was deleted: from then on there are no new sessions of it. Null for one that is there.';

CREATE TABLE deleted_sessions (
    session_id uuid PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE deleted_sessions IS
    'Sessions that were deleted in the last days, so that no node takes them for lost and writes them again.';
COMMENT ON COLUMN deleted_sessions.session_id IS 'The session that was.';
COMMENT ON COLUMN deleted_sessions.deleted_at IS 'When it was deleted.';

ALTER TABLE players ADD COLUMN erased_at timestamptz;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('players') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.erased_at IS %L', part,
            'When the name of the player was erased, and a neutral one put in its place; null otherwise.');
    END LOOP;
END
$$;
