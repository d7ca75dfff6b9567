-- Corrections of wrong answer keys. Facts stay as they are; results are corrected beside them.

CREATE TABLE corrections (
    session_id uuid NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    question smallint NOT NULL,
    old_key jsonb NOT NULL,
    new_key jsonb NOT NULL,
    by text NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (session_id, number)
);
COMMENT ON TABLE corrections IS 'Keys that were found wrong after a session. Only ever added to.';
COMMENT ON COLUMN corrections.session_id IS 'The session, which is over.';
COMMENT ON COLUMN corrections.number IS 'Counts from 1 within a session; each builds on those before it.';
COMMENT ON COLUMN corrections.question IS 'Number of the question within the quiz, from 1.';
COMMENT ON COLUMN corrections.old_key IS 'What had been right until then: fields of a quiz file.';
COMMENT ON COLUMN corrections.new_key IS 'What is right from then on.';
COMMENT ON COLUMN corrections.by IS 'Who corrected it.';
COMMENT ON COLUMN corrections.reason IS 'Why; may be empty.';
COMMENT ON COLUMN corrections.at IS 'When, to the millisecond.';

CREATE TABLE corrected_answers (
    session_id uuid NOT NULL,
    question smallint NOT NULL,
    player integer NOT NULL,
    correct boolean NOT NULL,
    points integer NOT NULL,
    PRIMARY KEY (session_id, question, player)
);
COMMENT ON TABLE corrected_answers IS
    'Answers that are worth something else after the corrections of their session; each makes them anew.';
COMMENT ON COLUMN corrected_answers.session_id IS 'The session.';
COMMENT ON COLUMN corrected_answers.question IS 'As in answers.';
COMMENT ON COLUMN corrected_answers.player IS 'As in answers.';
COMMENT ON COLUMN corrected_answers.correct IS 'Instead of the one in answers.';
COMMENT ON COLUMN corrected_answers.points IS 'Instead of those in answers.';

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
    LEFT JOIN answers a ON a.session_id = p.session_id AND a.player = p.player
    LEFT JOIN corrected_answers c
        ON c.session_id = p.session_id AND c.player = a.player AND c.question = a.question
    WHERE NOT EXISTS (
        SELECT FROM session_changes c
        WHERE c.session_id = p.session_id AND c.kind = 'kicked' AND c.player = p.player)
    GROUP BY p.session_id, p.player, p.name
) AS totals;
COMMENT ON COLUMN standings.score IS 'Sum of the points of all answers, corrected ones as corrected.';
COMMENT ON COLUMN standings.correct IS 'Number of right answers, corrected ones as corrected.';
