"""Quizzes as they come in and go out. The domain judges them, since it names and locates every mistake."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from engine.domain import questions, quiz
from engine.domain.spellings import Match
from server.wire.api.common import Body, Milliseconds, NextPage, OwnerId

QuestionText = Annotated[str, Meta(min_length=1, max_length=questions.TEXT_MAX)]
TimeLimit = Annotated[
    float,
    Meta(
        ge=questions.TIME_LIMIT_MIN_S,
        le=questions.TIME_LIMIT_MAX_S,
        description="Seconds to answer, to the millisecond.",
    ),
]
Points = Annotated[int, Meta(ge=0, le=questions.POINTS_MAX, description="For a right answer, at most.")]
ChoiceText = Annotated[str, Meta(min_length=1, max_length=questions.CHOICE_MAX)]
Choices = Annotated[
    list[ChoiceText], Meta(min_length=questions.CHOICES_MIN, max_length=questions.CHOICES_MAX)
]
Spelling = Annotated[str, Meta(min_length=1, max_length=questions.SPELLING_MAX)]
HowToMatch = Annotated[
    Match,
    Meta(
        description="How much of a typed answer has to be right. loose: case, accents, hyphens, "
        "apostrophes, full stops and the like make no difference. spelling: case and a final full stop, "
        "exclamation or question mark make none. exact: everything counts except blanks around the answer "
        "and runs of them."
    ),
]


class SingleChoiceQuestion(Body, tag_field="type", tag="single", kw_only=True):
    """One choice is right."""

    text: QuestionText
    time_limit_s: TimeLimit = questions.TIME_LIMIT_DEFAULT_S
    points: Points = questions.POINTS_DEFAULT
    choices: Choices
    correct: Annotated[str, Meta(description="The text of the right choice.")]


class MultipleChoiceQuestion(Body, tag_field="type", tag="multiple", kw_only=True):
    """Several choices may be right."""

    text: QuestionText
    time_limit_s: TimeLimit = questions.TIME_LIMIT_DEFAULT_S
    points: Points = questions.POINTS_DEFAULT
    choices: Choices
    correct: Annotated[list[str], Meta(min_length=1, description="The texts of all right choices.")]


class TrueFalseQuestion(Body, tag_field="type", tag="true_false", kw_only=True):
    """A statement that is true or false."""

    text: QuestionText
    time_limit_s: TimeLimit = questions.TIME_LIMIT_DEFAULT_S
    points: Points = questions.POINTS_DEFAULT
    correct: bool


class TypedTextQuestion(Body, tag_field="type", tag="text", kw_only=True):
    """Players type the answer."""

    text: QuestionText
    time_limit_s: TimeLimit = questions.TIME_LIMIT_DEFAULT_S
    points: Points = questions.POINTS_DEFAULT
    accept: Annotated[
        list[Spelling],
        Meta(
            min_length=1,
            max_length=questions.SPELLINGS_MAX,
            description="Accepted spellings. `match` says what else counts as the same.",
        ),
    ]
    match: HowToMatch = "loose"


class NumericQuestion(Body, tag_field="type", tag="numeric", kw_only=True):
    """Players type a number."""

    text: QuestionText
    time_limit_s: TimeLimit = questions.TIME_LIMIT_DEFAULT_S
    points: Points = questions.POINTS_DEFAULT
    correct: float
    tolerance: Annotated[float, Meta(ge=0, description="How far off a right answer may be.")] = 0


QuizQuestion = (
    SingleChoiceQuestion | MultipleChoiceQuestion | TrueFalseQuestion | TypedTextQuestion | NumericQuestion
)


class Scoring(Body):
    """What a right answer earns."""

    rule: Annotated[
        Literal["speed", "flat"], Meta(description="speed: more for a quick answer. flat: the same for all.")
    ] = "speed"
    streak: Annotated[bool, Meta(description="Whether right answers in a row earn a bonus.")] = False


class Quiz(Body, kw_only=True):
    """A quiz as its author writes it; docs/quizzes.md explains every field."""

    title: Annotated[str, Meta(min_length=1, max_length=quiz.TITLE_MAX)]
    description: Annotated[str, Meta(max_length=quiz.DESCRIPTION_MAX)] = ""
    language: Annotated[str, Meta(description="A language tag such as en or pt-BR.")] = "en"
    scoring: Scoring = field(default_factory=Scoring)
    questions: Annotated[list[QuizQuestion], Meta(min_length=1, max_length=quiz.QUESTIONS_MAX)]


class QuizIdentity(Body):
    """One version of a quiz, without its questions."""

    id: str
    version: int
    title: str
    questions: Annotated[int, Meta(description="How many questions it has.")]
    created_at: Milliseconds


class QuizWithAnswers(QuizIdentity):
    """One version of a quiz with its questions and right answers."""

    quiz: Quiz


class QuizSummary(Body):
    """One version of a quiz in a listing."""

    id: str
    version: int
    title: str
    language: str
    questions: Annotated[int, Meta(description="How many questions it has.")]
    created_at: Milliseconds
    owner_id: OwnerId


class QuizList(Body):
    """One page of the newest versions of quizzes, by title."""

    quizzes: list[QuizSummary]
    next: NextPage


class QuizVersions(Body):
    """Versions of one quiz, the newest first."""

    versions: list[QuizSummary]


class DeletedQuiz(Body):
    """The quiz that nobody can play any more."""

    id: str


class QuizProblem(Body):
    """One mistake in a quiz file."""

    code: str
    message: Annotated[str, Meta(description="One sentence for a person.")]
    path: Annotated[str | None, Meta(description="The field, such as questions[2].choices.")]
    line: Annotated[int | None, Meta(description="Counted from 1.")]


class CheckedQuiz(Body):
    """Either the quiz, or what is wrong with the file."""

    quiz: Annotated[Quiz | None, Meta(description="With all its defaults; null if there are problems.")]
    draft: Annotated[
        dict[str, Any] | None,
        Meta(
            description="What a file says that is no valid quiz; null if the quiz is valid, or the file "
            "could not be read."
        ),
    ]
    problems: list[QuizProblem]
