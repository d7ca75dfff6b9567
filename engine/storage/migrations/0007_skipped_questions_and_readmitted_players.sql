-- Hosts who correct themselves: a question that counts for nobody, a player who is let in again, another host who
-- has taken over the session.

ALTER TABLE session_changes DROP CONSTRAINT session_changes_kind_check;
ALTER TABLE session_changes ADD CONSTRAINT session_changes_kind_check CHECK (kind IN
    ('opened', 'closed', 'skipped', 'paused', 'resumed', 'extended', 'lock', 'kicked', 'readmitted',
     'host_replaced', 'finished'));
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('session_changes') LOOP
        EXECUTE format('COMMENT ON COLUMN %s.question IS %L', part,
            'opened, closed, skipped: number of the question.');
        EXECUTE format('COMMENT ON COLUMN %s.player IS %L', part,
            'kicked, readmitted: who was removed, or let in again.');
        EXECUTE format('COMMENT ON COLUMN %s.by_ms IS %L', part,
            'extended: by how much the running countdown starts later. opened: how long it waits.');
    END LOOP;
END
$$;

CREATE VIEW removed_players AS
SELECT session_id, player
FROM session_changes k
WHERE kind = 'kicked' AND NOT EXISTS (
    SELECT FROM session_changes r
    WHERE r.session_id = k.session_id AND r.kind = 'readmitted' AND r.player = k.player AND r.seq > k.seq);
COMMENT ON VIEW removed_players IS 'Players whom the host removed and has not let in again.';
COMMENT ON COLUMN removed_players.session_id IS 'The session.';
COMMENT ON COLUMN removed_players.player IS 'Number of the player within the session.';

CREATE OR REPLACE VIEW standing_answers AS
SELECT session_id, question, player, elapsed_ms, correct, points, false AS merged
FROM answers a
WHERE NOT EXISTS (
    SELECT FROM merged_answers m
    WHERE m.session_id = a.session_id AND m.question = a.question AND m.player = a.player AND m.at < a.at)
  AND NOT EXISTS (
    SELECT FROM session_changes s
    WHERE s.session_id = a.session_id AND s.kind = 'skipped' AND s.question = a.question)
UNION ALL
SELECT session_id, question, player, elapsed_ms, correct, points, true
FROM merged_answers m
WHERE NOT EXISTS (
    SELECT FROM answers a
    WHERE a.session_id = m.session_id AND a.question = m.question AND a.player = m.player AND a.at <= m.at)
  AND NOT EXISTS (
    SELECT FROM merged_answers e
    WHERE e.session_id = m.session_id AND e.question = m.question AND e.player = m.player
      AND (e.at, e.seq) < (m.at, m.seq))
  AND NOT EXISTS (
    SELECT FROM session_changes s
    WHERE s.session_id = m.session_id AND s.kind = 'skipped' AND s.question = m.question);
COMMENT ON VIEW standing_answers IS
    'The answers that count: at most one a player and question, the one that was received first; none to a '
    'question that was skipped.';

CREATE OR REPLACE VIEW standings AS
SELECT session_id,
       rank() OVER (PARTITION BY session_id ORDER BY score DESC) AS rank,
       player, name, score, correct, answered, elapsed_ms
FROM (
    SELECT p.session_id, p.player, p.name,
           coalesce(sum(coalesce(c.points, a.points)), 0) AS score,
           count(*) FILTER (WHERE coalesce(c.correct, a.correct)) AS correct,
           count(a.player) AS answered,
           coalesce(sum(a.elapsed_ms), 0) AS elapsed_ms
    FROM players p
    LEFT JOIN standing_answers a ON a.session_id = p.session_id AND a.player = p.player
    LEFT JOIN corrected_answers c
        ON c.session_id = p.session_id AND c.player = a.player AND c.question = a.question
    WHERE NOT EXISTS (
        SELECT FROM removed_players k WHERE k.session_id = p.session_id AND k.player = p.player)
    GROUP BY p.session_id, p.player, p.name
) AS totals;
