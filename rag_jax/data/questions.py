"""Questions with what is known to be right, read from files, and the pairs a model is trained on.

    {"id": "nq-1", "question": "who wrote emma", "answers": ["Jane Austen", "Austen"], "positive_ids": [17, "18"]}

A file may have any of the formats in `rag_jax.data.question_formats`, recognised by its content; the line above is of
the plain one. `id` may be called `_id` (as in BEIR) or `query_id` (as in Tevatron); it defaults to the line number,
counted from 1. `answers` may be a single string, and may be called `answer` (as in NQ-open). `positive_ids` lists the
passages that contain the answer, if known, and `relevance` their grades; `negative_ids` lists hard negatives, and
`passage_ids` passages retrieved beforehand, best first. With `"regex": true` the answers are regular expressions.
Other fields are ignored.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rag_jax.data.jsonl import UniqueIds
from rag_jax.data.question import Question as Question
from rag_jax.data.question_formats.format import read_question, read_text
from rag_jax.data.question_formats.registry import open_rows
from rag_jax.errors import InputError


class QuestionFile(NamedTuple):
    """The questions of a file, and the name of its format."""

    format: str
    questions: list[Question]


def read_question_file(path: str | Path) -> QuestionFile:
    """Read a question file (also `.gz`) of any format; duplicate answers and duplicate ids in a row are dropped.

    Raises `InputError` (`FILE:LINE: what; remedy`, or `FILE: item N: …` in a JSON document) for a file that is
    unreadable, in none of the formats or in several, or has no questions, for a malformed row, a blank question, blank
    answers, a question without both answers and gold passages, a duplicate id, and an answer that is said to be a
    regular expression and is not.
    """
    format, items = open_rows(path)
    ids, questions = UniqueIds(), []
    for item in items:
        questions.append(read_question(format, item))
        ids.add(questions[-1].id, item.location)
    return QuestionFile(format.name, questions)


def read_questions(path: str | Path) -> list[Question]:
    """The questions of a file; see `read_question_file`."""
    return read_question_file(path).questions


def read_question_texts(path: str | Path) -> list[tuple[str, str]]:
    """Read the (id, question) pairs of a question file; as `read_question_file`, but answers are not looked at."""
    format, items = open_rows(path)
    ids, questions = UniqueIds(), []
    for item in items:
        questions.append(read_text(format, item))
        ids.add(questions[-1][0], item.location)
    return questions


def training_pairs(questions: Iterable[Question], answers: str) -> list[tuple[Question, str]]:
    """The (question, target) pairs of a training set.

    Raises `InputError` for a question without answers, and for one whose answers are regular expressions.

    Args:
        answers: "all": one pair per question and answer, as the RAG paper trains on Natural Questions and WebQuestions
            (Lewis et al. 2020); "sampled": the same pairs, of which each epoch samples one per question; "first": one
            pair per question, with its first answer.
    """
    count = 1 if answers == "first" else None
    return [(question, answer) for question in questions for answer in _targets(question)[:count]]


def check_targets(questions: Iterable[Question], path: Path) -> None:
    """Raise `InputError`, which names their file, for questions that `training_pairs` refuses."""
    for question in questions:
        try:
            _targets(question)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def fingerprint(questions: Iterable[Question]) -> str:
    """A short digest of what a score depends on: the questions and their answers, regardless of ids and order."""
    rows = sorted(json.dumps([question.question, sorted(question.answers)]) for question in questions)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _targets(question: Question) -> tuple[str, ...]:
    if question.regex:
        problem = "its answers are regular expressions"
        raise InputError(f"training question {question.id!r}: {problem}; write them out as plain strings")
    if not question.answers:
        raise InputError(f"training question {question.id!r}: no answers; give it one at least, or leave it out")
    return question.answers
