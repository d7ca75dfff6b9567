-- Users of the app that embeds this: a player that the app has signed in carries the app's own name for the user.
--
-- The index holds rows of users only: guests cost nothing in it. Within a partition it finds the seats of a user in
-- the order of session ids, which is the order of time, so a query with a bound on session_id reads the partitions of
-- that time alone. Each partition of players is read once to build it.

ALTER TABLE players ADD COLUMN user_id text;
CREATE INDEX players_user ON players (user_id, session_id) WHERE user_id IS NOT NULL;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('players') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.user_id IS %L', part,
            'The user of the app that this player is, as the app names its users; null for a guest, and once the '
            'player was erased.');
    END LOOP;
END
$$;
