"""Files of hard negatives, and the passages of a batch that each question is contrasted with.

    {"id": "nq-1", "negative_ids": ["17", 18], "scores": [9.1, 8.7], "positive_score": 11.2}

A line of a file names the hard negatives of a question, hardest first; other fields than the first two are ignored.

A batch holds the gold passage of each question, then their hard negatives, and all are negatives of the other
questions. Those that are right for a question by accident must not be: its other gold passages, and passages that hold
one of its answers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int

from rag_jax.contrastive.answer_search import AnswerSearch
from rag_jax.data.jsonl import read_jsonl, validate_id
from rag_jax.data.question import Question
from rag_jax.data.question_formats.format import read_ids
from rag_jax.data.unique_ids import UniqueIds
from rag_jax.errors import InputError, warn
from rag_jax.index.store import Store

MINE = "mine them with rag-jax mine"


def read_negatives(path: str | Path, questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """Read a file of hard negatives (also `.gz`): the ids of passages by the id of their question.

    Warns of questions without hard negatives, with counts. Raises `InputError` (`FILE:LINE: what; remedy`) for a
    malformed line, an id that is not that of a question or occurs twice, a negative that is a gold passage of its
    question, and an empty file.
    """
    gold = {question.id: question.positive_ids for question in questions}
    ids, negatives = UniqueIds(), {}
    for number, row in read_jsonl(path):
        location = f"{path}:{number}"
        id = validate_id(row.get("id"), "id", location)
        if id not in gold:
            raise InputError(f'{location}: no question has the id "{id}"; {MINE} for these questions, or drop the line')
        ids.add(id, location)
        if row.get("negative_ids") is None:
            raise InputError(f'{location}: "{id}" has no "negative_ids"; write a list of ids, which may be empty')
        negatives[id] = read_ids(row["negative_ids"], "negative_ids", location)
        _check_wrong(gold[id], negatives[id], f'{location}: "{id}"')
    if not negatives:
        raise InputError(f"{path}: holds no hard negatives; {MINE}")
    return negatives


def warn_of_missing(path: Path, questions: Sequence[Question], negatives: Mapping[str, Sequence[str]]) -> None:
    """Warn of questions without hard negatives, where others have some."""
    without = sum(not negatives.get(question.id) for question in questions)
    if negatives and without:
        warn(f"{path}: {without:,} of {len(questions):,} questions have no hard negatives")


def resolve(
    questions: Sequence[Question], negatives: Mapping[str, Sequence[str]], store: Store, source: str | Path
) -> dict[str, list[int]]:
    """The rows of hard negatives in the index, by the id of their question.

    Raises `InputError` for an id that the index does not hold, and for a negative that is a gold passage of its
    question.

    Args:
        questions: all that have negatives, and perhaps others.
        source: the file that names the negatives, for messages.
    """
    for question in questions:
        _check_wrong(question.positive_ids, negatives.get(question.id, ()), f'{source}: "{question.id}"')
    named = sorted({id for own in negatives.values() for id in own})
    rows = dict(zip(named, store.find(named).tolist(), strict=True))
    for question, own in negatives.items():
        unknown = next((id for id in own if rows[id] < 0), None)
        if unknown is not None:
            problem = f'"{question}" has the hard negative "{unknown}", which is no passage of the index'
            total = f"{sum(row < 0 for row in rows.values()):,} of {len(rows):,} ids are not"
            raise InputError(f"{source}: {problem} ({total}); {MINE} with this index")
    return {question: [rows[id] for id in own] for question, own in negatives.items()}


def candidates(
    rows: Int[np.ndarray, " M"], gold: Sequence[Sequence[int]], holding: Bool[np.ndarray, "B M"] | None = None
) -> Bool[np.ndarray, "B M"]:
    """The passages of a batch that each question is contrasted with: its own gold passage i, and those that are wrong.

    Wrong is every other passage, except a copy of passage i, another gold passage of the question, a passage that holds
    one of its answers, and a missing one. Passages are compared by their rows, not by their texts.

    Args:
        rows: the gold passage of each of the B questions, then their hard negatives; -1 for a missing one of these.
        gold: the rows of all gold passages of each question.
        holding: the passages that hold an answer of each question; None: not looked at.
    """
    own = np.arange(len(gold))
    if (rows[: len(gold)] < 0).any():
        raise ValueError("a question without its gold passage; leave it out of the batch")
    unique, inverse = np.unique(rows, return_inverse=True)
    question = np.repeat(own, [1 + len(each) for each in gold])
    right = np.asarray([row for i, each in zip(rows[: len(gold)].tolist(), gold, strict=True) for row in (i, *each)])
    at = np.minimum(np.searchsorted(unique, right), len(unique) - 1)
    found = unique[at] == right
    wrong = np.broadcast_to(unique >= 0, (len(gold), len(unique))).copy()
    wrong[question[found], at[found]] = False
    mask = wrong[:, inverse]
    if holding is not None:
        mask &= ~holding
    mask[own, own] = True
    return mask


@dataclass(frozen=True)
class Candidates:
    """`candidates` of the batches of a run; keeps what it needs of answers and passages between batches."""

    questions: Sequence[Question]
    gold: Sequence[Sequence[int]]  # rows of all gold passages of each question, and of others that are not wrong
    store: Store
    answers: bool  # whether passages that hold an answer are left out too

    def __call__(self, numbers: Int[np.ndarray, " B"], rows: Int[np.ndarray, " M"]) -> Bool[np.ndarray, "B M"]:
        """The mask of a batch of the questions with these indices, over the passages of these rows."""
        chosen = numbers.tolist()
        asked = [self.questions[number] for number in chosen]
        holding = self._search.find(asked, rows) if self.answers else None
        return candidates(rows, [self.gold[number] for number in chosen], holding)

    @cached_property
    def _search(self) -> AnswerSearch:
        return AnswerSearch(self.store.passages)


def log_q(
    gold: Sequence[Sequence[int]],
    batch_size: int,
    negatives: Iterable[Sequence[int]] = (),
    hard_negatives: int = 0,
) -> Callable[[Int[np.ndarray, " M"]], Float32[np.ndarray, " M"]]:
    """A function of rows: log q of each passage, the probability that it is in a batch (Yi et al. 2019).

    A batch holds each of n questions with probability B / n, with one of its G gold passages and H of its hard
    negatives, drawn evenly. By the expected number of times that passage j is in a batch,

        q_j = min(1, B / n (sum of 1 / G over the questions that it is gold for
                            + sum of min(1, H / number of hard negatives) over those that it is a hard negative of))

    The function returns 0 for a missing passage (-1), and raises `ValueError` for one that is never drawn.

    Args:
        gold: rows of the gold passages of each of the n questions.
        batch_size: B.
        negatives: rows of the hard negatives of each question.
        hard_negatives: H.
    """
    draws = [(gold, 1), *([(list(negatives), hard_negatives)] if hard_negatives else [])]
    rows = np.asarray([row for lists, _ in draws for own in lists for row in own], np.int64)
    shares = [min(1, count / len(own)) for lists, count in draws for own in lists for _ in own]
    unique, inverse = np.unique(rows, return_inverse=True)
    times = np.bincount(inverse, shares)
    log_probability = np.log(np.minimum(1, batch_size / len(gold) * times)).astype(np.float32)

    def of_rows(rows: Int[np.ndarray, " M"]) -> Float32[np.ndarray, " M"]:
        at = np.minimum(np.searchsorted(unique, rows), len(unique) - 1)
        missing = rows < 0
        if (~missing & (unique[at] != rows)).any():
            raise ValueError("a passage that is never drawn has no log q; give the gold and negatives of all batches")
        return np.where(missing, np.float32(0), log_probability[at])

    return of_rows


def _check_wrong(gold: Sequence[str], negatives: Iterable[str], where: str) -> None:
    """Raise `InputError` for a negative that is a gold passage."""
    right = next((id for id in negatives if id in gold), None)
    if right is not None:
        raise InputError(f'{where} has the gold passage "{right}" among its negatives; remove it from one of the two')
