-- What users have scored over sessions, and the leaderboards that follow from it.
--
-- All of this follows from the facts. Three small tables are lists of work that is still to be done, written in the
-- transaction that makes the work necessary: so whatever crashes, a later look finds it.

CREATE TABLE user_scores (
    session_id uuid NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    quiz_id text NOT NULL,
    name text NOT NULL,
    score bigint NOT NULL,
    correct integer NOT NULL,
    answered integer NOT NULL,
    elapsed_ms bigint NOT NULL,
    rank integer NOT NULL,
    players integer NOT NULL,
    finished_at timestamptz NOT NULL,
    PRIMARY KEY (session_id, user_id)
);
CREATE INDEX user_scores_user ON user_scores (user_id, finished_at DESC, session_id DESC);
COMMENT ON TABLE user_scores IS
    'How users did in sessions that they have finished. Made from the facts, and made again when these change; kept '
    'when retention drops the facts.';
COMMENT ON COLUMN user_scores.session_id IS 'The session.';
COMMENT ON COLUMN user_scores.user_id IS 'As in players.';
COMMENT ON COLUMN user_scores.quiz_id IS 'The quiz that was played.';
COMMENT ON COLUMN user_scores.name IS 'Of the player.';
COMMENT ON COLUMN user_scores.score IS 'As in standings.';
COMMENT ON COLUMN user_scores.correct IS 'As in standings.';
COMMENT ON COLUMN user_scores.answered IS 'As in standings.';
COMMENT ON COLUMN user_scores.elapsed_ms IS 'As in standings.';
COMMENT ON COLUMN user_scores.rank IS 'As in standings.';
COMMENT ON COLUMN user_scores.players IS 'How many players are in the standing, guests included.';
COMMENT ON COLUMN user_scores.finished_at IS 'When the player had finished.';

CREATE VIEW finished_plays AS
SELECT p.session_id, p.player, p.user_id, s.quiz_id, s.finished_at
FROM players p JOIN sessions s ON s.id = p.session_id
WHERE s.finished_at IS NOT NULL;
COMMENT ON VIEW finished_plays IS 'Players who have finished. Ask by session_id.';
COMMENT ON COLUMN finished_plays.session_id IS 'The session.';
COMMENT ON COLUMN finished_plays.player IS 'Number of the player within the session.';
COMMENT ON COLUMN finished_plays.user_id IS 'As in players.';
COMMENT ON COLUMN finished_plays.quiz_id IS 'The quiz that was played.';
COMMENT ON COLUMN finished_plays.finished_at IS 'When: with the end of the session.';

CREATE TABLE unscored_sessions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id uuid NOT NULL,
    not_before timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX unscored_sessions_session ON unscored_sessions (session_id);
COMMENT ON TABLE unscored_sessions IS
    'Sessions whose user_scores have yet to follow what is stored of them. A session is in here as often as '
    'something has happened: rows are only added and taken out, so that nobody waits for another.';
COMMENT ON COLUMN unscored_sessions.id IS 'In the order of the events, about.';
COMMENT ON COLUMN unscored_sessions.session_id IS 'The session.';
COMMENT ON COLUMN unscored_sessions.not_before IS 'Not before then, after an attempt that failed.';

CREATE FUNCTION mark_unscored() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_TABLE_NAME IN ('corrections', 'spooled_facts') THEN
        INSERT INTO unscored_sessions (session_id) VALUES (NEW.session_id);
    ELSE
        INSERT INTO unscored_sessions (session_id) VALUES (NEW.id);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER unscored_when_finished AFTER UPDATE OF finished_at ON sessions
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION mark_unscored();
CREATE TRIGGER unscored_when_corrected AFTER INSERT ON corrections
    FOR EACH ROW EXECUTE FUNCTION mark_unscored();
CREATE TRIGGER unscored_when_merged AFTER UPDATE OF merged_at ON spooled_facts
    FOR EACH ROW WHEN (NEW.merged_at IS NOT NULL) EXECUTE FUNCTION mark_unscored();

CREATE FUNCTION forget_score() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM user_scores WHERE session_id = OLD.session_id AND user_id = OLD.user_id;
    INSERT INTO unscored_sessions (session_id) VALUES (OLD.session_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER score_forgotten AFTER UPDATE OF user_id ON players
    FOR EACH ROW WHEN (OLD.user_id IS NOT NULL AND NEW.user_id IS NULL) EXECUTE FUNCTION forget_score();

CREATE TABLE score_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text COLLATE "C" NOT NULL,
    quiz_id text NOT NULL,
    finished_at timestamptz NOT NULL
);
COMMENT ON TABLE score_changes IS
    'Rows of user_scores that came, changed or went, until the leaderboards have followed: kept by triggers.';
COMMENT ON COLUMN score_changes.id IS 'In the order of the changes, about.';
COMMENT ON COLUMN score_changes.user_id IS 'As in user_scores.';
COMMENT ON COLUMN score_changes.quiz_id IS 'As in user_scores.';
COMMENT ON COLUMN score_changes.finished_at IS 'As in user_scores, or as it was there.';

CREATE FUNCTION keep_score_changes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO score_changes (user_id, quiz_id, finished_at)
        SELECT user_id, quiz_id, finished_at FROM were ORDER BY user_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO score_changes (user_id, quiz_id, finished_at)
        SELECT user_id, quiz_id, finished_at FROM are ORDER BY user_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER scores_added AFTER INSERT ON user_scores
    REFERENCING NEW TABLE AS are FOR EACH STATEMENT EXECUTE FUNCTION keep_score_changes();
CREATE TRIGGER scores_changed AFTER UPDATE ON user_scores
    REFERENCING OLD TABLE AS were NEW TABLE AS are FOR EACH STATEMENT EXECUTE FUNCTION keep_score_changes();
CREATE TRIGGER scores_gone AFTER DELETE ON user_scores
    REFERENCING OLD TABLE AS were FOR EACH STATEMENT EXECUTE FUNCTION keep_score_changes();

CREATE TABLE leaderboards (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule text NOT NULL CHECK (rule IN ('best', 'sum')),
    quiz_id text NOT NULL,
    period text NOT NULL CHECK (period IN ('day', 'week', 'all')),
    starts_on date NOT NULL,
    UNIQUE (rule, quiz_id, period, starts_on)
);
COMMENT ON TABLE leaderboards IS 'The leaderboards over sessions that have had an entry.';
COMMENT ON COLUMN leaderboards.id IS 'Short, for the entries.';
COMMENT ON COLUMN leaderboards.rule IS 'Whether the best play of a user counts, or the sum of all.';
COMMENT ON COLUMN leaderboards.quiz_id IS 'Of one quiz, or empty: of all.';
COMMENT ON COLUMN leaderboards.period IS 'How long it is; a week is from Monday on.';
COMMENT ON COLUMN leaderboards.starts_on IS
    'The first day, in the time zone of the nodes; 1970-01-01 for the one that is of all time.';

CREATE TABLE leaderboard_entries (
    board integer NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    score bigint NOT NULL CHECK (score BETWEEN 0 AND 9007199254740992),
    elapsed_ms bigint NOT NULL CHECK (elapsed_ms BETWEEN 0 AND 281474976710655),
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (board, user_id)
);
CREATE INDEX leaderboard_entries_order
    ON leaderboard_entries (board, (-score), elapsed_ms, reached_at, user_id);
COMMENT ON TABLE leaderboard_entries IS
    'One line a user of a leaderboard. Made from user_scores. In the order of -score, elapsed_ms, reached_at, user_id.';
COMMENT ON COLUMN leaderboard_entries.board IS 'As in leaderboards.';
COMMENT ON COLUMN leaderboard_entries.user_id IS 'As in user_scores.';
COMMENT ON COLUMN leaderboard_entries.score IS
    'Of the best play, or of all. No larger than what a double holds exactly.';
COMMENT ON COLUMN leaderboard_entries.elapsed_ms IS 'Of the same plays.';
COMMENT ON COLUMN leaderboard_entries.reached_at IS 'When the last of these plays was finished.';

CREATE TABLE leaderboard_progress (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint NOT NULL
);
INSERT INTO leaderboard_progress (revision) VALUES (0);
COMMENT ON TABLE leaderboard_progress IS 'One row.';
COMMENT ON COLUMN leaderboard_progress.one IS 'Keeps it at one row.';
COMMENT ON COLUMN leaderboard_progress.revision IS
    'Counts the changes of leaderboard_entries. Sorted sets in Redis that are of another revision are not right.';
