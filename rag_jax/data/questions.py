"""Questions with their answers, read from JSON lines, and the pairs a model is trained on.

    {"id": "nq-1", "question": "who wrote emma", "answers": ["Jane Austen", "Austen"], "positive_ids": [17, "18"]}

`id` may be called `_id`, as BEIR does, or `query_id`, as Tevatron; it defaults to the line's number, counted from 1.
`answers` may be one string, and may be called `answer`, as in the files of NQ-open. `positive_ids` names the passages
that hold the answer, where they are known; `passage_ids`, best first, those that a search found beforehand and training
is to read. Other fields are ignored.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rag_jax.data.jsonl import UniqueIds, checked_id, checked_text, read_jsonl
from rag_jax.errors import InputError


class Question(NamedTuple):
    """A question, every answer that counts as right, and ids of passages: known to hold one, found beforehand."""

    id: str
    question: str
    answers: tuple[str, ...]
    positive_ids: tuple[str, ...] = ()
    passage_ids: tuple[str, ...] = ()


def read_questions(path: str | Path) -> list[Question]:
    """Reads a question file (`.jsonl`, or `.jsonl.gz`); equal answers and equal positive ids of a line are kept once.

    Raises `InputError` (`FILE:LINE: what; remedy`) for a file that cannot be read or holds no question, a malformed
    line, a blank question, no answers or a blank one, an id that occurs twice, and answers that are regular
    expressions.
    """
    ids = UniqueIds()
    questions = []
    for number, row in read_jsonl(path):
        place = f"{path}:{number}"
        question = _question(row, number, place)
        ids.add(question.id, place)
        questions.append(question)
    if not questions:
        raise InputError(f'{path}: holds no questions; write one {{"question": …, "answers": […]}} on each line')
    return questions


def read_asked(path: str | Path) -> list[tuple[str, str]]:
    """Reads (id, question) of a file of questions to be answered: like `read_questions`, but for the answers."""
    ids = UniqueIds()
    asked = []
    for number, row in read_jsonl(path):
        place = f"{path}:{number}"
        asked.append(
            (checked_id(_given_id(row, number), "id", place), checked_text(row.get("question"), "question", place))
        )
        ids.add(asked[-1][0], place)
    if not asked:
        raise InputError(f'{path}: holds no questions; write one {{"question": …}} on each line')
    return asked


def training_pairs(questions: Iterable[Question], answers: str) -> list[tuple[Question, str]]:
    """The (question, target) pairs of a training set.

    `answers` "all": one pair per question and answer, as the RAG paper trains on Natural Questions and WebQuestions
    (Lewis et al. 2020); "sampled": the same pairs, of which an epoch draws one per question; "first": one pair per
    question, with its first answer.
    """
    count = 1 if answers == "first" else None
    return [(question, answer) for question in questions for answer in question.answers[:count]]


def fingerprint(questions: Iterable[Question]) -> str:
    """A short digest of what a score depends on: the questions and their answers. Ids and order do not count."""
    told = sorted(json.dumps([question.question, sorted(question.answers)]) for question in questions)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _given_id(row: dict[str, Any], otherwise: int) -> object:
    return next((row[name] for name in ("id", "_id", "query_id") if name in row), otherwise)


def _question(row: dict[str, Any], number: int, place: str) -> Question:
    if row.get("regex"):
        raise InputError(f"{place}: the answers are regular expressions; write them out as plain strings")
    return Question(
        id=checked_id(_given_id(row, number), "id", place),
        question=checked_text(row.get("question"), "question", place),
        answers=_answers(row, place),
        positive_ids=_ids(row, "positive_ids", place),
        passage_ids=_ids(row, "passage_ids", place),
    )


def _answers(row: dict[str, Any], place: str) -> tuple[str, ...]:
    name = "answers" if "answers" in row else "answer"
    answers = row.get(name)
    if isinstance(answers, str):
        answers = [answers]
    if not isinstance(answers, list) or not answers:
        raise InputError(f'{place}: no answers; write "answers" as a list of strings, with one at least')
    return tuple(dict.fromkeys(checked_text(answer, name, place) for answer in answers))


def _ids(row: dict[str, Any], name: str, place: str) -> tuple[str, ...]:
    ids = row.get(name, [])
    if not isinstance(ids, list):
        raise InputError(f'{place}: "{name}" is not a list; write it as a list of passage ids')
    return tuple(dict.fromkeys(checked_id(item, name, place) for item in ids))
