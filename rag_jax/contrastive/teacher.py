"""The scores that a teacher, such as a cross-encoder, gives to each question's passages, in the file of negatives.

    {"id": "nq-1", "negative_ids": ["17", "18"], "scores": [9.1, 8.7], "positive_score": 11.2}

`scores` are those of the negatives, in their order; `positive_score` is taken for each gold passage of the question.
Any units: what is learnt is their differences (Margin-MSE; Hofstaetter et al. 2020).
"""

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rag_jax.data.jsonl import read_jsonl, validate_id
from rag_jax.data.question import Question
from rag_jax.errors import InputError, warn

LARGEST = float(np.finfo(np.float32).max)


class Scores(NamedTuple):
    """A teacher's scores of the passages of a question."""

    positive: float  # of its gold passages; NaN: unknown
    negatives: dict[str, float]  # by passage id


def read_teacher(path: str | Path) -> dict[str, Scores]:
    """The scores in a file that `rag_jax.contrastive.negatives.read_negatives` has read, by question id.

    Warns of questions without a `positive_score`, with counts: nothing is learnt from their scores. Raises `InputError`
    (`FILE:LINE: what; remedy`) for scores that are missing, too few or too many, no finite float32 numbers, and two
    different ones of a passage.
    """
    found: dict[str, Scores] = {}
    for number, row in read_jsonl(path):
        location = f'{path}:{number}: "{row["id"]}"'
        ids = [validate_id(id, "negative_ids", location) for id in row["negative_ids"]]
        scores = row.get("scores")
        if not isinstance(scores, list) or len(scores) != len(ids):
            given = f"{len(scores)} scores" if isinstance(scores, list) else 'no list of "scores"'
            raise InputError(f"{location} has {given} for {len(ids)} negative_ids; write one for each, in their order")
        values = [_number(score, "scores", location) for score in scores]
        if len(set(zip(ids, values, strict=True))) > len(set(ids)):
            raise InputError(f"{location} names a passage twice, with two scores; leave one out")
        positive = row.get("positive_score")
        positive = nan if positive is None else _number(positive, "positive_score", location)
        found[str(row["id"])] = Scores(positive, dict(zip(ids, values, strict=True)))
    without = sum(not isfinite(each.positive) for each in found.values())
    if without == len(found):
        raise InputError(f'{path}: no question has a "positive_score", and Margin-MSE learns differences; write them')
    if without:
        warn(f"{path}: {without:,} of {len(found):,} questions have no positive_score, and no Margin-MSE")
    return found


def by_row(
    questions: Sequence[Question],
    gold: Sequence[Sequence[int]],
    scores: Mapping[str, Scores],
    ids: Mapping[str, Sequence[str]],
    rows: Mapping[str, Sequence[int]],
) -> list[dict[int, float]]:
    """The scores of each question's passages by their rows; nothing for a question without scores.

    Args:
        gold: the rows of the gold passages of each question.
        scores: by question id.
        ids: of the hard negatives, by question id.
        rows: of the same.
    """
    found: list[dict[int, float]] = []
    for question, own in zip(questions, gold, strict=True):
        known = scores.get(question.id)
        if known is None:
            found.append({})
            continue
        pairs = zip(ids[question.id], rows[question.id], strict=True)
        found.append({row: known.negatives[id] for id, row in pairs} | dict.fromkeys(own, known.positive))
    return found


def _number(value: Any, name: str, location: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise InputError(f'{location} has {value!r:.40} in "{name}"; write finite numbers')
    return float(value)
