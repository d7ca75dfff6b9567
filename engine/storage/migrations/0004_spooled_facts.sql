-- Facts that a node acknowledged from its spool and that reach PostgreSQL after another node has taken the
-- session. The owner merges their answers; the view standing_answers says which answer counts.

CREATE TABLE spooled_facts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id uuid NOT NULL,
    epoch bigint NOT NULL,
    seq integer NOT NULL,
    count integer NOT NULL,
    node text NOT NULL,
    facts jsonb NOT NULL,
    put_at timestamptz NOT NULL,
    merged_at timestamptz,
    UNIQUE (session_id, epoch, seq, count)
);
CREATE INDEX spooled_facts_unmerged ON spooled_facts (session_id) WHERE merged_at IS NULL;
COMMENT ON TABLE spooled_facts IS
    'Facts that a node acknowledged from its spool, and that came here when another had taken the session.';
COMMENT ON COLUMN spooled_facts.id IS 'In the order in which they came here.';
COMMENT ON COLUMN spooled_facts.session_id IS 'The session.';
COMMENT ON COLUMN spooled_facts.epoch IS 'The epoch under which the facts were made.';
COMMENT ON COLUMN spooled_facts.seq IS 'Of the first of them, among the facts of that epoch.';
COMMENT ON COLUMN spooled_facts.count IS 'How many there are.';
COMMENT ON COLUMN spooled_facts.node IS 'The node whose spool they were in.';
COMMENT ON COLUMN spooled_facts.facts IS 'A list for each fact: its kind, and its fields.';
COMMENT ON COLUMN spooled_facts.put_at IS 'When they came here.';
COMMENT ON COLUMN spooled_facts.merged_at IS 'When the owner of the session had merged them; null before.';

CREATE TABLE merged_answers (
    session_id uuid NOT NULL,
    seq integer NOT NULL,
    question smallint NOT NULL,
    player integer NOT NULL,
    choice jsonb NOT NULL,
    elapsed_ms integer NOT NULL,
    correct boolean NOT NULL,
    points integer NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (session_id, seq)
);
CREATE INDEX merged_answers_player ON merged_answers (session_id, question, player);
COMMENT ON TABLE merged_answers IS
    'Answers that were acknowledged from a spool and merged later. Of all answers of a player to a question '
    'the one that was received first counts.';
COMMENT ON COLUMN merged_answers.session_id IS 'The session.';
COMMENT ON COLUMN merged_answers.seq IS 'Place of this fact among all facts of the session.';
COMMENT ON COLUMN merged_answers.question IS 'As in answers.';
COMMENT ON COLUMN merged_answers.player IS 'As in answers.';
COMMENT ON COLUMN merged_answers.choice IS 'As in answers.';
COMMENT ON COLUMN merged_answers.elapsed_ms IS 'As in answers, by the clock of the node that took it.';
COMMENT ON COLUMN merged_answers.correct IS 'As in answers.';
COMMENT ON COLUMN merged_answers.points IS 'What it earned when it was taken.';
COMMENT ON COLUMN merged_answers.at IS 'As in answers.';

CREATE VIEW standing_answers AS
SELECT session_id, question, player, elapsed_ms, correct, points, false AS merged
FROM answers a
WHERE NOT EXISTS (
    SELECT FROM merged_answers m
    WHERE m.session_id = a.session_id AND m.question = a.question AND m.player = a.player AND m.at < a.at)
UNION ALL
SELECT session_id, question, player, elapsed_ms, correct, points, true
FROM merged_answers m
WHERE NOT EXISTS (
    SELECT FROM answers a
    WHERE a.session_id = m.session_id AND a.question = m.question AND a.player = m.player AND a.at <= m.at)
  AND NOT EXISTS (
    SELECT FROM merged_answers e
    WHERE e.session_id = m.session_id AND e.question = m.question AND e.player = m.player
      AND (e.at, e.seq) < (m.at, m.seq));
COMMENT ON VIEW standing_answers IS
    'The answers that count: at most one a player and question, the one that was received first.';
COMMENT ON COLUMN standing_answers.session_id IS 'The session.';
COMMENT ON COLUMN standing_answers.question IS 'As in answers.';
COMMENT ON COLUMN standing_answers.player IS 'As in answers.';
COMMENT ON COLUMN standing_answers.elapsed_ms IS 'As in answers.';
COMMENT ON COLUMN standing_answers.correct IS 'As in answers.';
COMMENT ON COLUMN standing_answers.points IS 'As in answers.';
COMMENT ON COLUMN standing_answers.merged IS 'Whether it was merged from a spool.';

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
        SELECT FROM session_changes c
        WHERE c.session_id = p.session_id AND c.kind = 'kicked' AND c.player = p.player)
    GROUP BY p.session_id, p.player, p.name
) AS totals;
