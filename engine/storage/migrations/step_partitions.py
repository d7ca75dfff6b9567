"""The step that partitions sessions and their facts by the id of the session.

No row of the past is rewritten: the old tables become the partitions of the ids that only version 4 has, from
TIME_MAX_MS on. That are 63 of 64. The others, one session in 64, are moved to the default partition, because
they lie where the ids of version 7 go.

Tables are locked while this is done, for as long as it takes to move those rows and to read each table once.
"""

from __future__ import annotations

from engine.storage.session_ids import TIME_MAX_MS, first_id

TABLES = {"sessions": "id", "players": "session_id", "answers": "session_id", "session_changes": "session_id"}
"""What is partitioned, by which column, in the order in which they are locked."""

PARTITIONED_COMMENTS = {
    "sessions": "Live runs of a quiz. What happened in them is in players, answers and session_changes.",
    "players": "Who joined a session. Who was removed again is a change of kind kicked.",
    "answers": "Accepted answers: at most one a player and question.",
    "session_changes": "All that happened in a session besides joins and answers.",
}

_KEYS = {
    "sessions": "id",
    "players": "session_id, player",
    "answers": "session_id, question, player",
    "session_changes": "session_id, seq",
}

_LEFT_TO = {
    "past": "Sessions of earlier releases, whose ids tell no time",
    "default": "Sessions whose ids tell no time, or one for which no other partition was there",
}


def _partitioned(table: str, column: str) -> str:
    past, default = f"{table}_past", f"{table}_default"
    bound = first_id(TIME_MAX_MS)
    comment = PARTITIONED_COMMENTS[table]
    return f"""
ALTER TABLE {table} RENAME TO {past};
ALTER INDEX {table}_pkey RENAME TO {past}_pkey;
CREATE TABLE {default} (LIKE {past} INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY ({_KEYS[table]}));
WITH moved AS (DELETE FROM {past} WHERE {column} < '{bound}' RETURNING *)
INSERT INTO {default} SELECT * FROM moved;
CREATE TABLE {table} (LIKE {past} INCLUDING ALL EXCLUDING INDEXES, PRIMARY KEY ({_KEYS[table]}))
    PARTITION BY RANGE ({column});
ALTER TABLE {table} ATTACH PARTITION {past} FOR VALUES FROM ('{bound}') TO (MAXVALUE);
ALTER TABLE {table} ATTACH PARTITION {default} DEFAULT;
COMMENT ON TABLE {table} IS '{comment}';
COMMENT ON TABLE {past} IS '{_LEFT_TO["past"]}: see {table}.';
COMMENT ON TABLE {default} IS '{_LEFT_TO["default"]}: see {table}.';
"""


_SESSIONS = """
DROP INDEX sessions_unfinished_code;
ALTER INDEX sessions_code RENAME TO sessions_past_code;
ALTER INDEX sessions_created_at RENAME TO sessions_past_created_at;
ALTER INDEX sessions_quiz RENAME TO sessions_past_quiz;
"""

_SESSIONS_AGAIN = """
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
"""

_STANDINGS = """
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
"""

STEP = "".join(
    [
        f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE;",
        "DROP VIEW standings;",
        _SESSIONS,
        *(_partitioned(table, column) for table, column in TABLES.items()),
        _SESSIONS_AGAIN,
        _STANDINGS,
    ]
)
