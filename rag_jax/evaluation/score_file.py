"""The scores of evaluations question by question, read from `scores.jsonl`, and whether they can be compared.

    {"id": "nq-1", "question": "who wrote emma", "answer": "Jane Austen", "answers": ["Jane Austen", "Austen"],
     "scores": {"exact_match": 1.0, "f1": 1.0, "recall@1": null}}

One line per question: the model's answer, the gold answers, the gold passages (`positive_ids`) if there are any, and
the same metrics on every line. `null` says that a metric does not apply to the question; it becomes NaN.
"""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rag_jax.data import strict_json
from rag_jax.data.jsonl import UniqueIds, read_jsonl, validate_characters, validate_id, validate_text
from rag_jax.data.question_formats.format import read_ids
from rag_jax.errors import InputError

SCORES, METRICS = "scores.jsonl", "metrics.json"
OPTIONS = {
    **dict.fromkeys(("citation_recall", "citation_precision"), "cite_at_least"),
    **dict.fromkeys(("mrr", "map"), "asked_depth"),
}
"""The option of `rag-jax evaluate` that a metric depends on."""
NOTHING: Mapping[str, Any] = MappingProxyType({})


class AnsweredQuestion(NamedTuple):
    """A question with its gold answers, and a model's answer."""

    id: str
    question: str
    answer: str
    answers: tuple[str, ...]  # gold
    line: int  # in the file, from 1
    positive_ids: tuple[str, ...] = ()  # gold passages; (): none, or not said


class Evaluation(NamedTuple):
    """The scores of one model on B questions, which are sorted by id."""

    path: Path
    questions: tuple[AnsweredQuestion, ...]
    scores: Mapping[str, Float[np.ndarray, " B"]]  # by metric, in float64; NaN: does not apply
    options: Mapping[str, Any] = NOTHING  # of the evaluation, as its metrics.json says beside the file


def read_evaluation(path: Path) -> Evaluation:
    """Read `scores.jsonl`, or the one in a folder that `rag-jax evaluate` wrote.

    Raises `InputError` (`FILE:LINE: what; remedy`) for a folder without the file, a file that is unreadable or empty,
    a malformed line, a duplicate id, a score that is not a finite number, and a line with other metrics than the first.
    """
    path = _score_path(path)
    ids = UniqueIds()
    rows: list[tuple[AnsweredQuestion, dict[str, float]]] = []
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        question, scores = _question(row, number, location), _scores(row, location)
        ids.add(question.id, location)
        if rows and scores.keys() != rows[0][1].keys():
            odd = min(scores.keys() ^ rows[0][1].keys())
            what = f'"{odd}" is on one of lines {rows[0][0].line} and {number} only'
            raise InputError(f"{location}: {what}; give every line the same metrics, null where one does not apply")
        rows.append((question, scores))
    if not rows:
        raise InputError(f"{path}: holds no scores; evaluate at least one question")
    rows.sort(key=lambda row: row[0].id)
    metrics = {name: np.array([scores[name] for _, scores in rows], np.float64) for name in rows[0][1]}
    return Evaluation(path, tuple(question for question, _ in rows), metrics, _options(path))


def read_evaluations(paths: Sequence[Path], names: Sequence[str] = ()) -> dict[str, Evaluation]:
    """Read evaluations of the same questions, by name.

    Args:
        paths: folders or files, as for `read_evaluation`.
        names: what to call them; none: as their folders, with as many parent folders as make them distinct.

    Raises `InputError` for fewer than two, one that is given twice, names that do not fit, and evaluations of other
    questions or with other gold answers than the first.
    """
    if len(paths) < 2:
        raise InputError(f"a comparison takes two evaluations or more, not {len(paths)}; name their folders")
    named = _named([_score_path(path) for path in paths], names)
    evaluations = {name: read_evaluation(path) for name, path in named.items()}
    first, *others = evaluations.values()
    for other in others:
        _check_same_questions(first, other)
    return evaluations


def _named(paths: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    resolved = [Path(os.path.realpath(path)) for path in paths]  # of a loop of links too
    twice = next((path for place, path in enumerate(resolved) if path in resolved[:place]), None)
    if twice is not None:
        raise InputError(f"{twice}: is given twice; compare different evaluations")
    if names:
        if len(names) != len(paths) or len(set(names)) != len(names) or not all(name.strip() for name in names):
            given = ", ".join(map(repr, names))
            raise InputError(f"--names {given}: do not fit {len(paths)} evaluations; give each a name of its own")
        return dict(zip(names, paths, strict=True))
    parts = [(path.parent if path.name == SCORES else path).parts for path in resolved]
    depth = next(depth for depth in count(1) if len({each[-depth:] for each in parts}) == len(parts))
    return {"/".join(each[-depth:]): path for each, path in zip(parts, paths, strict=True)}


def _check_same_questions(first: Evaluation, other: Evaluation) -> None:
    """Raise `InputError` unless both have the same ids, questions and gold answers."""
    remedy = "evaluate both on the same questions"
    expected = {question.id: question for question in first.questions}
    found = {question.id: question for question in other.questions}
    lacks, adds = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if lacks or adds:
        sides = ((lacks, "lacks {:,} of its questions"), (adds, "has {:,} that it lacks"))
        what = " and ".join(f'{side.format(len(ids))} (first "{ids[0]}")' for ids, side in sides if ids)
        raise InputError(f"{other.path}: compared with {first.path}, {what}; {remedy}")
    for id, question in found.items():
        same = expected[id]
        where, there = f"{other.path}:{question.line}", f"{first.path}:{same.line}; {remedy}"
        if question.question != same.question:
            raise InputError(f'{where}: the text of "{id}" differs from {there}')
        if set(question.answers) != set(same.answers):
            raise InputError(f'{where}: the gold answers of "{id}" differ from {there}')


def _score_path(path: Path) -> Path:
    """The file of scores that a folder, or a path to the file itself, names."""
    if not path.is_dir():
        return path
    if not (path / SCORES).exists():
        raise InputError(f"{path}: holds no {SCORES}; name a folder written by rag-jax evaluate, or the file itself")
    return path / SCORES


def _options(path: Path) -> Mapping[str, Any]:
    """The options that some metrics depend on, as far as a metrics.json beside the scores says."""
    facts = path.with_name(METRICS)
    if not facts.is_file():
        return NOTHING
    try:
        found = strict_json.decode(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return NOTHING
    return {name: found[name] for name in {*OPTIONS.values()} if name in found} if isinstance(found, dict) else NOTHING


def _question(row: Mapping[str, Any], number: int, location: str) -> AnsweredQuestion:
    answers = row.get("answers")
    if not isinstance(answers, list):
        raise InputError(f'{location}: "answers" is not a list; write the gold answers as a list of strings')
    return AnsweredQuestion(
        id=validate_id(row.get("id"), "id", location),
        question=validate_text(row.get("question"), "question", location),
        answer=_text(row.get("answer"), "answer", location),
        answers=tuple(_text(answer, "answers", location) for answer in answers),
        positive_ids=read_ids(row.get("positive_ids"), "positive_ids", location),
        line=number,
    )


def _text(value: object, name: str, location: str) -> str:
    """A string that may be blank: a model may answer nothing, and nothing may be the gold answer."""
    if isinstance(value, str):
        return validate_characters(value, name, location)
    return validate_text(value, name, location)


def _scores(row: Mapping[str, Any], location: str) -> dict[str, float]:
    scores = row.get("scores")
    if not isinstance(scores, dict) or not scores:
        raise InputError(f'{location}: "scores" holds no scores; write them as {{"exact_match": 1.0, …}}')
    return {name: _score(value, name, location) for name, value in scores.items()}


def _score(value: object, name: str, location: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except OverflowError:
            score = math.inf
        if math.isfinite(score):
            return score
    raise InputError(f'{location}: "{name}" is no finite number; write a number, or null where it does not apply')
