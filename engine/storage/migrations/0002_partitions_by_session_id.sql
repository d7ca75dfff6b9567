-- Partitions of sessions and their facts, by ranges of session ids.
--
-- No old row is rewritten: the old tables become the partitions `past`, which hold the ids that only UUID version 4
-- gives out, from 04000000-... on (TIME_MAX_MS in engine/storage/session_ids.py). These are 63 of 64. The other
-- sessions, one in 64, move to the partitions `default`, because their ids lie in the range of UUID version 7.
--
-- The tables are locked while these rows move and while PostgreSQL reads each table once to check the bounds.

LOCK TABLE sessions, players, answers, session_changes IN ACCESS EXCLUSIVE MODE;
DROP VIEW standings;
DROP INDEX sessions_unfinished_code;
ALTER INDEX sessions_code RENAME TO sessions_past_code;
ALTER INDEX sessions_created_at RENAME TO sessions_past_created_at;
ALTER INDEX sessions_quiz RENAME TO sessions_past_quiz;

ALTER TABLE sessions RENAME TO sessions_past;
ALTER INDEX sessions_pkey RENAME TO sessions_past_pkey;
CREATE TABLE sessions_default (
    LIKE sessions_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (id)
);
WITH moved AS (
    DELETE FROM sessions_past
    WHERE id < '04000000-0000-0000-0000-000000000000'
    RETURNING *
)
INSERT INTO sessions_default SELECT * FROM moved;
CREATE TABLE sessions (
    LIKE sessions_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
ALTER TABLE sessions ATTACH PARTITION sessions_past
    FOR VALUES FROM ('04000000-0000-0000-0000-000000000000') TO (MAXVALUE);
ALTER TABLE sessions ATTACH PARTITION sessions_default DEFAULT;
COMMENT ON TABLE sessions IS
    'Live runs of a quiz. What happened in them is in players, answers and session_changes.';
COMMENT ON TABLE sessions_past IS
    'Sessions of earlier releases, whose ids tell no time: see sessions.';
COMMENT ON TABLE sessions_default IS
    'Sessions whose ids tell no time, or one for which no other partition was there: see sessions.';

ALTER TABLE players RENAME TO players_past;
ALTER INDEX players_pkey RENAME TO players_past_pkey;
CREATE TABLE players_default (
    LIKE players_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (session_id, player)
);
WITH moved AS (
    DELETE FROM players_past
    WHERE session_id < '04000000-0000-0000-0000-000000000000'
    RETURNING *
)
INSERT INTO players_default SELECT * FROM moved;
CREATE TABLE players (
    LIKE players_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (session_id, player)
) PARTITION BY RANGE (session_id);
ALTER TABLE players ATTACH PARTITION players_past
    FOR VALUES FROM ('04000000-0000-0000-0000-000000000000') TO (MAXVALUE);
ALTER TABLE players ATTACH PARTITION players_default DEFAULT;
COMMENT ON TABLE players IS
    'Who joined a session. Who was removed again is a change of kind kicked.';
COMMENT ON TABLE players_past IS
    'Sessions of earlier releases, whose ids tell no time: see players.';
COMMENT ON TABLE players_default IS
    'Sessions whose ids tell no time, or one for which no other partition was there: see players.';

ALTER TABLE answers RENAME TO answers_past;
ALTER INDEX answers_pkey RENAME TO answers_past_pkey;
CREATE TABLE answers_default (
    LIKE answers_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (session_id, question, player)
);
WITH moved AS (
    DELETE FROM answers_past
    WHERE session_id < '04000000-0000-0000-0000-000000000000'
    RETURNING *
)
INSERT INTO answers_default SELECT * FROM moved;
CREATE TABLE answers (
    LIKE answers_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (session_id, question, player)
) PARTITION BY RANGE (session_id);
ALTER TABLE answers ATTACH PARTITION answers_past
    FOR VALUES FROM ('04000000-0000-0000-0000-000000000000') TO (MAXVALUE);
ALTER TABLE answers ATTACH PARTITION answers_default DEFAULT;
COMMENT ON TABLE answers IS 'Accepted answers: at most one a player and question.';
COMMENT ON TABLE answers_past IS
    'Sessions of earlier releases, whose ids tell no time: see answers.';
COMMENT ON TABLE answers_default IS
    'Sessions whose ids tell no time, or one for which no other partition was there: see answers.';

ALTER TABLE session_changes RENAME TO session_changes_past;
ALTER INDEX session_changes_pkey RENAME TO session_changes_past_pkey;
CREATE TABLE session_changes_default (
    LIKE session_changes_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (session_id, seq)
);
WITH moved AS (
    DELETE FROM session_changes_past
    WHERE session_id < '04000000-0000-0000-0000-000000000000'
    RETURNING *
)
INSERT INTO session_changes_default SELECT * FROM moved;
CREATE TABLE session_changes (
    LIKE session_changes_past INCLUDING ALL EXCLUDING INDEXES,
    PRIMARY KEY (session_id, seq)
) PARTITION BY RANGE (session_id);
ALTER TABLE session_changes ATTACH PARTITION session_changes_past
    FOR VALUES FROM ('04000000-0000-0000-0000-000000000000') TO (MAXVALUE);
ALTER TABLE session_changes ATTACH PARTITION session_changes_default DEFAULT;
COMMENT ON TABLE session_changes IS 'All that happened in a session besides joins and answers.';
COMMENT ON TABLE session_changes_past IS
    'Sessions of earlier releases, whose ids tell no time: see session_changes.';
COMMENT ON TABLE session_changes_default IS
    'Sessions whose ids tell no time, or one for which no other partition was there: see session_changes.';

CREATE INDEX sessions_code ON sessions (code);
CREATE INDEX sessions_created_at ON sessions (created_at);
CREATE INDEX sessions_quiz ON sessions (quiz_id, quiz_version);
ALTER TABLE sessions ADD FOREIGN KEY (quiz_id, quiz_version) REFERENCES quizzes (id, version);

CREATE TABLE live_codes (
    code text PRIMARY KEY,
    session_id uuid NOT NULL
);
INSERT INTO live_codes SELECT code, id FROM sessions WHERE finished_at IS NULL;
COMMENT ON TABLE live_codes IS
    'The codes of unfinished sessions, each of them once: kept by triggers on sessions.';
COMMENT ON COLUMN live_codes.code IS 'As in sessions.';
COMMENT ON COLUMN live_codes.session_id IS 'The unfinished session that has it.';

CREATE FUNCTION keep_live_codes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO live_codes VALUES (NEW.code, NEW.id);
    ELSE
        DELETE FROM live_codes WHERE code = OLD.code AND session_id = OLD.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER live_code_taken AFTER INSERT ON sessions
    FOR EACH ROW WHEN (NEW.finished_at IS NULL) EXECUTE FUNCTION keep_live_codes();
CREATE TRIGGER live_code_freed AFTER UPDATE OF finished_at ON sessions
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION keep_live_codes();
CREATE TRIGGER live_code_deleted AFTER DELETE ON sessions
    FOR EACH ROW WHEN (OLD.finished_at IS NULL) EXECUTE FUNCTION keep_live_codes();

CREATE VIEW standings AS
SELECT session_id,
       rank() OVER (PARTITION BY session_id ORDER BY score DESC) AS rank,
       player, name, score, correct, answered, elapsed_ms
FROM (
    SELECT p.session_id, p.player, p.name,
           coalesce(sum(a.points), 0) AS score,
           count(*) FILTER (WHERE a.correct) AS correct,
           count(a.player) AS answered,
           coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
    FROM players p
    LEFT JOIN answers a ON a.session_id = p.session_id AND a.player = p.player
    WHERE NOT EXISTS (
        SELECT FROM session_changes c
        WHERE c.session_id = p.session_id AND c.kind = 'kicked' AND c.player = p.player)
    GROUP BY p.session_id, p.player, p.name
) AS totals;
COMMENT ON VIEW standings IS
    'Ranks of the players of a session as far as it is stored, without those who were removed. '
    'Ask by session_id; show by rank, elapsed_ms, player.';
COMMENT ON COLUMN standings.session_id IS 'The session.';
COMMENT ON COLUMN standings.rank IS 'Equal scores share a rank, and the next one is skipped accordingly.';
COMMENT ON COLUMN standings.player IS 'Number of the player within the session.';
COMMENT ON COLUMN standings.name IS 'As shown to everyone.';
COMMENT ON COLUMN standings.score IS 'Sum of the points of all answers.';
COMMENT ON COLUMN standings.correct IS 'Number of right answers.';
COMMENT ON COLUMN standings.answered IS 'Number of answers.';
COMMENT ON COLUMN standings.elapsed_ms IS 'Total answering time; the smaller is shown first within a rank.';
