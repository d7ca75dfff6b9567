-- Players with extra time: by how much longer a player's time limit is, as the host or the app has it.

ALTER TABLE session_changes DROP CONSTRAINT session_changes_kind_check;
ALTER TABLE session_changes ADD CONSTRAINT session_changes_kind_check CHECK (kind IN
    ('opened', 'closed', 'skipped', 'shown', 'done', 'deadline', 'paused', 'resumed', 'extended', 'lock', 'kicked',
     'readmitted', 'extra_time', 'host_replaced', 'finished'));
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('session_changes') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.player IS %L', part,
            'kicked, readmitted: who was removed, or let in again. extra_time: who has it.');
        EXECUTE format('COMMENT ON COLUMN %s.by_ms IS %L', part,
            'extended: by how much the running countdown starts later. opened: how long it waits. extra_time: the '
            'time limit of this player in percent of that of a question, 0 for none.');
    END LOOP;
END
$$;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('answers') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.elapsed_ms IS %L', part,
            'Play time since the question opened, without pauses and outages; the part that counts of it for a player '
            'with extra time.');
    END LOOP;
END
$$;
