-- Sessions in which every player goes through the quiz at the player's own pace.

DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('session_changes') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.question IS %L', part,
            'opened, closed, skipped, shown: number of the question.');
        EXECUTE format('COMMENT ON COLUMN %s.player IS %L', part,
            'kicked, readmitted: who was removed, or let in again. extra_time: who has it. shown, done: who was shown '
            'a question, or is through.');
        EXECUTE format('COMMENT ON COLUMN %s.by_ms IS %L', part,
            'extended: by how much the running countdown starts later. opened: how long it waits. extra_time: the '
            'time limit of this player in percent of that of a question, 0 for none. deadline: until when the '
            'session is open, in milliseconds since the epoch.');
    END LOOP;
END
$$;

-- A self-paced session has a row for every question that a player was shown. All else is rare, and is found by its
-- kind beside these rows.
CREATE INDEX session_changes_rare ON session_changes (session_id, kind) WHERE kind NOT IN ('shown', 'done');
