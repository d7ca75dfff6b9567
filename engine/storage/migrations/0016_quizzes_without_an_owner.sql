-- An author's list has the quizzes without an owner among the own ones: both are read in the order of titles.

CREATE INDEX quizzes_without_owner ON quizzes (title COLLATE "C", id COLLATE "C")
    WHERE owner_id IS NULL AND deleted_at IS NULL;
