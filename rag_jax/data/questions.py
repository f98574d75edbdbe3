"""Questions with their answers, read from JSON Lines, and the pairs a model is trained on.

    {"id": "nq-1", "question": "who wrote emma", "answers": ["Jane Austen", "Austen"], "positive_ids": [17, "18"]}

`id` may be called `_id` (as in BEIR) or `query_id` (as in Tevatron); it defaults to the line number, counted from 1.
`answers` may be a single string, and may be called `answer` (as in NQ-open). `positive_ids` lists the passages that
contain the answer, if known; `passage_ids` lists passages retrieved beforehand, best first, for training to read. Other
fields are ignored.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.jsonl import UniqueIds, read_jsonl, validate_id, validate_text
from rag_jax.errors import InputError


class Question(NamedTuple):
    """A question, all its correct answers, ids of passages with an answer, and ids of those retrieved beforehand."""

    id: str
    question: str
    answers: tuple[str, ...]
    positive_ids: tuple[str, ...] = ()
    passage_ids: tuple[str, ...] = ()


def read_questions(path: str | Path) -> list[Question]:
    """Read a question file (`.jsonl` or `.jsonl.gz`); duplicate answers and duplicate ids in a line are dropped.

    Raises `InputError` (`FILE:LINE: what; remedy`) for a file that is unreadable or has no questions, a malformed line,
    a blank question, missing or blank answers, a duplicate id, and answers that are regular expressions.
    """
    ids = UniqueIds()
    questions = []
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        question = _question(row, number, location)
        ids.add(question.id, location)
        questions.append(question)
    if not questions:
        raise InputError(f'{path}: holds no questions; write one {{"question": …, "answers": […]}} on each line')
    return questions


def read_question_texts(path: str | Path) -> list[tuple[str, str]]:
    """Read the (id, question) pairs of a question file; as `read_questions`, but answers are not required."""
    ids = UniqueIds()
    questions = []
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        questions.append(
            (
                validate_id(_row_id(row, number), "id", location),
                validate_text(row.get("question"), "question", location),
            )
        )
        ids.add(questions[-1][0], location)
    if not questions:
        raise InputError(f'{path}: holds no questions; write one {{"question": …}} on each line')
    return questions


def training_pairs(questions: Iterable[Question], answers: str) -> list[tuple[Question, str]]:
    """The (question, target) pairs of a training set.

    `answers` is "all": one pair per question and answer, as the RAG paper trains on Natural Questions and WebQuestions
    (Lewis et al. 2020); "sampled": the same pairs, of which each epoch samples one per question; or "first": one pair
    per question, with its first answer.
    """
    count = 1 if answers == "first" else None
    return [(question, answer) for question in questions for answer in question.answers[:count]]


def fingerprint(questions: Iterable[Question]) -> str:
    """A short digest of what a score depends on: the questions and their answers, regardless of ids and order."""
    rows = sorted(json.dumps([question.question, sorted(question.answers)]) for question in questions)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]


def _row_id(row: dict[str, Any], default: int) -> object:
    return next((row[name] for name in ("id", "_id", "query_id") if name in row), default)


def _question(row: dict[str, Any], number: int, location: str) -> Question:
    if row.get("regex"):
        raise InputError(f"{location}: the answers are regular expressions; write them out as plain strings")
    return Question(
        id=validate_id(_row_id(row, number), "id", location),
        question=validate_text(row.get("question"), "question", location),
        answers=_answers(row, location),
        positive_ids=_ids(row, "positive_ids", location),
        passage_ids=_ids(row, "passage_ids", location),
    )


def _answers(row: dict[str, Any], location: str) -> tuple[str, ...]:
    name = "answers" if "answers" in row else "answer"
    answers = row.get(name)
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not answers:
        raise InputError(f'{location}: no answers; write "answers" as a list of strings, with one at least')
    return tuple(dict.fromkeys(validate_text(answer, name, location) for answer in answers))


def _ids(row: dict[str, Any], name: str, location: str) -> tuple[str, ...]:
    ids = row.get(name, [])
    if not isinstance(ids, list):
        raise InputError(f'{location}: "{name}" is not a list; write it as a list of passage ids')
    return tuple(dict.fromkeys(validate_id(item, name, location) for item in ids))
