-- Players at their own pace may go through a quiz more than once; the best attempt counts. Each attempt after the first
-- has a number of its own among the players of the session, under which its answers and changes are stored. So the keys
-- of answers hold for each attempt, and no row of before is another one.

ALTER TABLE session_changes DROP CONSTRAINT session_changes_kind_check;
ALTER TABLE session_changes ADD CONSTRAINT session_changes_kind_check CHECK (kind IN
    ('opened', 'closed', 'skipped', 'shown', 'attempt', 'done', 'deadline', 'paused', 'resumed', 'extended', 'lock',
     'kicked', 'readmitted', 'extra_time', 'host_replaced', 'finished'));
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('session_changes') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.question IS %L', part,
            'opened, closed, skipped, shown: number of the question. attempt: which attempt of the player, from 2.');
        EXECUTE format('COMMENT ON COLUMN %s.player IS %L', part,
            'kicked, readmitted: who was removed, or let in again. extra_time: who has it. attempt: who begins it. '
            'shown, done: who was shown a question, or is through, or the number of the attempt.');
        EXECUTE format('COMMENT ON COLUMN %s.by_ms IS %L', part,
            'extended: by how much the running countdown starts later. opened: how long it waits. extra_time: the '
            'time limit of this player in percent of that of a question, 0 for none. attempt: its number among the '
            'players. deadline: until when the session is open, in milliseconds since the epoch.');
    END LOOP;
    FOR part IN SELECT relid FROM pg_partition_tree('answers') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.player IS %L', part,
            'Who answered; the number of the attempt if it is not the first of a player.');
    END LOOP;
END
$$;

-- Both hold rows of attempts alone: other sessions cost nothing in them.
CREATE INDEX session_changes_attempts ON session_changes (session_id, player) WHERE kind = 'attempt';
CREATE INDEX session_changes_attempt_numbers ON session_changes (session_id, by_ms) WHERE kind = 'attempt';

CREATE VIEW attempts AS
SELECT session_id, player, player AS number, name, user_id
FROM players
UNION ALL
SELECT p.session_id, p.player, c.by_ms::integer, p.name, p.user_id
FROM session_changes c
JOIN players p ON p.session_id = c.session_id AND p.player = c.player
WHERE c.kind = 'attempt';
COMMENT ON VIEW attempts IS
    'Every attempt of every player: the first has the number of the player. Ask by session_id.';
COMMENT ON COLUMN attempts.session_id IS 'The session.';
COMMENT ON COLUMN attempts.player IS 'Number of the player within the session.';
COMMENT ON COLUMN attempts.number IS 'The number that answers of this attempt have as their player.';
COMMENT ON COLUMN attempts.name IS 'Of the player.';
COMMENT ON COLUMN attempts.user_id IS 'Of the player.';

CREATE VIEW attempt_scores AS
SELECT n.session_id, n.player, n.number, n.name,
       coalesce(sum(coalesce(c.points, a.points)), 0) AS score,
       count(*) FILTER (WHERE coalesce(c.correct, a.correct)) AS correct,
       count(a.player) AS answered,
       coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
FROM attempts n
LEFT JOIN standing_answers a ON a.session_id = n.session_id AND a.player = n.number
LEFT JOIN corrected_answers c
    ON c.session_id = n.session_id AND c.player = a.player AND c.question = a.question
WHERE NOT EXISTS (
    SELECT FROM removed_players k WHERE k.session_id = n.session_id AND k.player = n.player)
GROUP BY n.session_id, n.player, n.number, n.name;
COMMENT ON VIEW attempt_scores IS
    'What every attempt of every player has brought, without players who were removed. Ask by session_id.';
COMMENT ON COLUMN attempt_scores.session_id IS 'The session.';
COMMENT ON COLUMN attempt_scores.player IS 'As in attempts.';
COMMENT ON COLUMN attempt_scores.number IS 'As in attempts.';
COMMENT ON COLUMN attempt_scores.name IS 'Of the player.';
COMMENT ON COLUMN attempt_scores.score IS 'Sum of the points of all answers.';
COMMENT ON COLUMN attempt_scores.correct IS 'Number of right answers.';
COMMENT ON COLUMN attempt_scores.answered IS 'Number of answers.';
COMMENT ON COLUMN attempt_scores.elapsed_ms IS 'Total answering time.';

CREATE OR REPLACE VIEW standings AS
SELECT session_id,
       rank() OVER (PARTITION BY session_id ORDER BY score DESC) AS rank,
       player, name, score, correct, answered, elapsed_ms, number
FROM (
    SELECT DISTINCT ON (session_id, player) *
    FROM attempt_scores
    ORDER BY session_id, player, score DESC, elapsed_ms, number
) AS best;
COMMENT ON VIEW standings IS
    'Ranks of the players of a session as far as it is stored, without those who were removed, by their best attempts. '
    'Ask by session_id; show by rank, elapsed_ms, player.';
COMMENT ON COLUMN standings.number IS 'Of the attempt that counts, as in attempts.';

CREATE OR REPLACE VIEW finished_plays AS
SELECT n.session_id, n.player, n.user_id, s.quiz_id, coalesce(d.at, s.finished_at) AS finished_at,
       s.finished_at IS NOT NULL AS over, n.number
FROM attempts n
JOIN sessions s ON s.id = n.session_id
LEFT JOIN session_changes d ON d.session_id = n.session_id AND d.kind = 'done' AND d.player = n.number
WHERE s.finished_at IS NOT NULL OR d.at IS NOT NULL AND scores_before_end(s.settings);
COMMENT ON VIEW finished_plays IS 'Attempts of players who have finished. Ask by session_id.';
COMMENT ON COLUMN finished_plays.number IS 'Of the attempt, as in attempts.';
