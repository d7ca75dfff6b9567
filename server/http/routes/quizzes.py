"""Writing quizzes."""

from __future__ import annotations

from server.http import examples
from server.http.openapi import Gives, Link, Operation, Takes
from server.http.requests import YAML_TYPES
from server.http.routes.route import LOCATION, Route
from server.wire.api import queries, quizzes

QUIZ_CODES = ("invalid_quiz", "no_questions", "too_many_questions", "duplicate_choice", "no_right_answer")
_OF_QUIZ = {"quiz_id": "$response.body#/id"}

QUIZZES = (
    Route(
        "POST",
        "/api/quizzes",
        lambda views: views.quizzes.create,
        Operation(
            "createQuiz",
            "Write a quiz, or a new version of one",
            "quizzes",
            who=("author",),
            query=queries.CreateQuizQuery,
            takes=Takes(quizzes.Quiz, examples.QUIZ, quiz=True),
            gives=(
                Gives(
                    200,
                    "The newest version under this id is equal; nothing has changed.",
                    quizzes.QuizIdentity,
                    examples.QUIZ_IDENTITY,
                    headers=LOCATION,
                ),
                Gives(
                    201,
                    "Written.",
                    quizzes.QuizIdentity,
                    examples.QUIZ_IDENTITY,
                    headers=LOCATION,
                    links=(
                        Link("getQuiz", "Read it with its answers.", _OF_QUIZ),
                        Link("listQuizVersions", "See its versions.", _OF_QUIZ),
                        Link("deleteQuiz", "Delete it.", _OF_QUIZ),
                    ),
                ),
            ),
            codes=QUIZ_CODES,
        ),
    ),
    Route(
        "GET",
        "/api/quizzes",
        lambda views: views.quizzes.list,
        Operation(
            "listQuizzes",
            "The newest versions of quizzes",
            "quizzes",
            who=("author",),
            description="Those that the author may read, page by page.",
            query=queries.QuizListQuery,
            gives=(Gives(200, "By title.", quizzes.QuizList, examples.QUIZ_LIST),),
        ),
    ),
    Route(
        "POST",
        "/api/quizzes/check",
        lambda views: views.quizzes.check,
        Operation(
            "checkQuiz",
            "What is wrong with a quiz file, without storing it",
            "quizzes",
            who=("author",),
            query=queries.NoQuery,
            takes=Takes(
                None,
                examples.QUIZ,
                "A file as `fanfare quiz check` takes it: JSON or YAML, whichever it is declared as.",
                other_types=YAML_TYPES,
                quiz=True,
            ),
            gives=(Gives(200, "Up to 50 problems, or none.", quizzes.CheckedQuiz, examples.CHECKED_QUIZ),),
        ),
    ),
    Route(
        "GET",
        "/api/quizzes/{quiz_id}",
        lambda views: views.quizzes.get,
        Operation(
            "getQuiz",
            "A quiz with its right answers",
            "quizzes",
            who=("author",),
            query=queries.QuizQuery,
            gives=(Gives(200, "The quiz.", quizzes.QuizWithAnswers, examples.QUIZ_WITH_ANSWERS),),
            codes=("quiz_not_found", "session_unavailable"),
        ),
    ),
    Route(
        "DELETE",
        "/api/quizzes/{quiz_id}",
        lambda views: views.quizzes.delete,
        Operation(
            "deleteQuiz",
            "Let nobody play a quiz any more",
            "quizzes",
            who=("author",),
            description="Its versions are listed and found no more. Sessions that use one go on with it; "
            "what is in a version is gone for good when no session uses it.",
            query=queries.NoQuery,
            gives=(Gives(200, "The quiz is deleted.", quizzes.DeletedQuiz, examples.DELETED_QUIZ),),
            codes=("quiz_not_found",),
        ),
    ),
    Route(
        "GET",
        "/api/quizzes/{quiz_id}/versions",
        lambda views: views.quizzes.versions,
        Operation(
            "listQuizVersions",
            "The last versions of a quiz, newest first",
            "quizzes",
            who=("author",),
            query=queries.ListQuery,
            gives=(Gives(200, "Without questions.", quizzes.QuizVersions, examples.QUIZ_VERSIONS),),
            codes=("quiz_not_found",),
        ),
    ),
)
