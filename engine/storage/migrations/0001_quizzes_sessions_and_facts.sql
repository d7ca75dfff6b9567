-- The first schema: quizzes, the sessions that play them, and what happened in these sessions as facts.

CREATE TABLE quizzes (
    id text NOT NULL,
    version integer NOT NULL CHECK (version >= 1),
    title text NOT NULL,
    language text NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (id, version)
);
COMMENT ON TABLE quizzes IS 'Authored quizzes. A stored version never changes; an edit adds the next one.';
COMMENT ON COLUMN quizzes.id IS 'Short readable name, made from the title of the first version.';
COMMENT ON COLUMN quizzes.version IS 'Counts from 1 within a quiz.';
COMMENT ON COLUMN quizzes.title IS 'As in the definition.';
COMMENT ON COLUMN quizzes.language IS 'As in the definition, a BCP 47 tag.';
COMMENT ON COLUMN quizzes.definition IS 'The whole quiz as authored, with questions and right answers.';
COMMENT ON COLUMN quizzes.created_at IS 'When this version was stored.';

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    code text NOT NULL CHECK (code ~ '^[0-9]{6}$'),
    quiz_id text NOT NULL,
    quiz_version integer NOT NULL,
    settings jsonb NOT NULL,
    owner text,
    epoch bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    FOREIGN KEY (quiz_id, quiz_version) REFERENCES quizzes (id, version)
);
CREATE UNIQUE INDEX sessions_unfinished_code ON sessions (code) WHERE finished_at IS NULL;
CREATE INDEX sessions_code ON sessions (code);
CREATE INDEX sessions_created_at ON sessions (created_at);
CREATE INDEX sessions_quiz ON sessions (quiz_id, quiz_version);
COMMENT ON TABLE sessions IS
    'Live runs of a quiz. What happened in them is in players, answers and session_changes.';
COMMENT ON COLUMN sessions.id IS 'Chosen by the node that creates the session.';
COMMENT ON COLUMN sessions.code IS 'What players type to join: six digits, unique among unfinished sessions.';
COMMENT ON COLUMN sessions.quiz_id IS 'The quiz that is played.';
COMMENT ON COLUMN sessions.quiz_version IS 'Its version when the session was created.';
COMMENT ON COLUMN sessions.settings IS 'Pace, limits and the like, fixed at creation.';
COMMENT ON COLUMN sessions.owner IS
    'The run of a node that may write to this session; null before the first claim.';
COMMENT ON COLUMN sessions.epoch IS
    'Rises by one with every claim. A write under a lower epoch changes nothing.';
COMMENT ON COLUMN sessions.created_at IS 'When the session was created.';
COMMENT ON COLUMN sessions.finished_at IS 'When it ended; null while it runs.';

-- The three tables of facts have no foreign key to sessions: rows are only ever inserted by a statement that
-- has locked the session's row, and a check for each of thousands of rows a batch would repeat that lookup.
CREATE TABLE players (
    session_id uuid NOT NULL,
    player integer NOT NULL,
    name text NOT NULL,
    joined_at timestamptz NOT NULL,
    seq integer NOT NULL,
    PRIMARY KEY (session_id, player)
);
COMMENT ON TABLE players IS 'Who joined a session. Who was removed again is a change of kind kicked.';
COMMENT ON COLUMN players.session_id IS 'The session.';
COMMENT ON COLUMN players.player IS 'Number of the player within the session, from 1.';
COMMENT ON COLUMN players.name IS 'As shown to everyone, cleaned.';
COMMENT ON COLUMN players.joined_at IS 'When the player joined, to the millisecond.';
COMMENT ON COLUMN players.seq IS 'Place of this fact among all facts of the session.';

CREATE TABLE answers (
    session_id uuid NOT NULL,
    question smallint NOT NULL,
    player integer NOT NULL,
    seq integer NOT NULL,
    choice jsonb NOT NULL,
    elapsed_ms integer NOT NULL,
    correct boolean NOT NULL,
    points integer NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (session_id, question, player)
);
COMMENT ON TABLE answers IS 'Accepted answers: at most one a player and question.';
COMMENT ON COLUMN answers.session_id IS 'The session.';
COMMENT ON COLUMN answers.question IS 'Number of the question within the quiz, from 1.';
COMMENT ON COLUMN answers.player IS 'Who answered.';
COMMENT ON COLUMN answers.seq IS 'Place of this fact among all facts of the session.';
COMMENT ON COLUMN answers.choice IS
    'Index of a choice from 0, list of indices, boolean, typed text, or number, by the type of the question.';
COMMENT ON COLUMN answers.elapsed_ms IS 'Play time since the question opened, without pauses and outages.';
COMMENT ON COLUMN answers.correct IS 'Whether the answer was right.';
COMMENT ON COLUMN answers.points IS 'What it earned, streak bonus included.';
COMMENT ON COLUMN answers.at IS 'When the server received it, to the millisecond.';

CREATE TABLE session_changes (
    session_id uuid NOT NULL,
    seq integer NOT NULL,
    kind text NOT NULL CHECK (kind IN
        ('opened', 'closed', 'paused', 'resumed', 'extended', 'lock', 'kicked', 'finished')),
    question smallint,
    player integer,
    by_ms bigint,
    locked boolean,
    at timestamptz NOT NULL,
    PRIMARY KEY (session_id, seq)
);
COMMENT ON TABLE session_changes IS 'All that happened in a session besides joins and answers.';
COMMENT ON COLUMN session_changes.session_id IS 'The session.';
COMMENT ON COLUMN session_changes.seq IS 'Place of this fact among all facts of the session.';
COMMENT ON COLUMN session_changes.kind IS 'What happened. Columns after it are null where they do not apply.';
COMMENT ON COLUMN session_changes.question IS 'opened, closed: number of the question.';
COMMENT ON COLUMN session_changes.player IS 'kicked: who was removed.';
COMMENT ON COLUMN session_changes.by_ms IS 'extended: by how much the running countdown starts later.';
COMMENT ON COLUMN session_changes.locked IS 'lock: whether new players are turned away from now on.';
COMMENT ON COLUMN session_changes.at IS 'When it happened, to the millisecond.';

CREATE TABLE nodes (
    node text PRIMARY KEY,
    alive_at timestamptz NOT NULL
);
COMMENT ON TABLE nodes IS 'Signs of life of everyone who owns sessions.';
COMMENT ON COLUMN nodes.node IS 'One run of a node, as in sessions.owner.';
COMMENT ON COLUMN nodes.alive_at IS 'The last moment at which it is known to have run, by its own clock.';

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
