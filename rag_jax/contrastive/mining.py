"""Mining of hard negatives: passages that an engine ranks high for a question and that do not answer it.

A ranking holds passages that are right without being named gold. What is dropped of it, in this order:

- the gold passages;
- the first `skip` of the others, the most doubtful ones;
- passages that hold an answer of the question, in the text or the title (Karpukhin et al. 2020);
- passages that score too close to the best gold passage: above its score - `margin`, or above `relative_margin` times
  its score (NV-Retriever's TopK-PercPos; Moreira et al. 2024).

A gold passage that the ranking lacks scores at most as much as its last passage: with a margin, all of it is dropped.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rag_jax.contrastive.answer_search import AnswerSearch
from rag_jax.data.question import Question
from rag_jax.errors import InputError
from rag_jax.index.engines.engine import Engine, Queries
from rag_jax.index.store import Store
from rag_jax.pipeline.gold_passages import other_pieces

AT_ONCE = 64  # questions searched at once
GOLD, SKIPPED, ANSWER, MARGIN = "gold", "skipped", "answer", "margin"  # why a passage is no negative

Encode = Callable[[Sequence[str]], Float[np.ndarray, "B D"]]


@dataclass(frozen=True)
class Rules:
    """Which passages of a ranking become hard negatives. Raises `InputError` for numbers that make no sense."""

    depth: int = 100  # passages of the ranking that are looked at
    negatives: int = 10  # passages to keep, at most
    skip: int = 0  # first passages of the ranking to leave out, not counting gold ones
    margin: float | None = None  # least distance to the score of the best gold passage
    relative_margin: float | None = None  # or the most of its score that a negative may have, as 0.95
    keep_answers: bool = False  # keep passages that hold an answer

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise InputError(f"{self.negatives} negatives are none; ask for 1 or more")
        if self.skip < 0:
            raise InputError(f"the first {self.skip} passages cannot be skipped; give 0 or more")
        if self.depth < self.negatives + self.skip:
            asked = f"{self.negatives} negatives" + (f" after {self.skip} that are skipped" if self.skip else "")
            raise InputError(f"a ranking of {self.depth} passages does not hold {asked}; raise the depth")
        if self.margin is not None and self.relative_margin is not None:
            raise InputError("a margin and a relative margin are two rules; give one of them")
        if self.margin is not None and not (self.margin >= 0 and isfinite(self.margin)):
            raise InputError(f"the margin is {self.margin}; give a finite number of at least 0")
        if self.relative_margin is not None and not 0 < self.relative_margin <= 1:
            raise InputError(f"the relative margin is {self.relative_margin}; give more than 0, at most 1, as 0.95")

    def limit(self, gold_score: float | None) -> float:
        """The highest score of a negative. Where the score of the gold passage is negative, `relative_margin` leaves
        the same distance below it as it would below a positive one."""
        if self.margin is None and self.relative_margin is None:
            return inf
        if gold_score is None:
            return -inf
        if self.margin is not None:
            return gold_score - self.margin
        assert self.relative_margin is not None
        return gold_score - (1 - self.relative_margin) * abs(gold_score)


class Mined(NamedTuple):
    """The hard negatives of a question."""

    question: Question
    rows: list[int]  # hardest first
    scores: list[float]  # by the engine
    gold_score: float | None  # of the best gold passage; None: it is not in the ranking
    dropped: Counter[str]  # passages ranked before the last negative that are none, by the reason

    def line(self, store: Store) -> dict[str, Any]:
        """The line of a file of hard negatives."""
        return {
            "id": self.question.id,
            "negative_ids": [store.passages[row].id for row in self.rows],
            "scores": self.scores,
            "positive_score": self.gold_score,
        }


def mine(
    questions: Sequence[Question], store: Store, engine: Engine, encode: Encode | None, rules: Rules
) -> Iterator[Mined]:
    """The hard negatives of each question, in their order; searches for `AT_ONCE` questions at once.

    Raises `InputError` as `check` does, before anything is searched.

    Args:
        encode: makes the vectors of questions; None for an engine that needs none.
    """
    check(questions, store, rules)
    search = AnswerSearch(store.passages)
    named = sorted({id for question in questions for id in question.positive_ids})
    rows_of, others = dict(zip(named, store.find(named).tolist(), strict=True)), other_pieces(store, named)

    def mined(asked: Sequence[Question]) -> Iterator[Mined]:
        texts = [question.question for question in asked]
        found = engine.search(Queries(texts, None if encode is None else encode(texts)), rules.depth)
        for question, rows, scores in zip(asked, found.rows.tolist(), found.scores.tolist(), strict=True):
            ranking = [(row, score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            # a gold id may name a document, of which every passage may be the right one
            gold = {row for id in question.positive_ids for row in (rows_of[id], *others[id])}
            yield select(question, ranking, gold, search, rules)

    starts = range(0, len(questions), AT_ONCE)
    return (each for start in starts for each in mined(questions[start : start + AT_ONCE]))


def check(questions: Sequence[Question], store: Store, rules: Rules, source: str | Path = "questions") -> None:
    """Raise `InputError` for a question without gold passages, and for a ranking longer than the index.

    Args:
        source: the file of the questions, for messages.
    """
    if rules.depth > len(store):
        raise InputError(f"a ranking of {rules.depth:,} passages of {len(store):,} in the index; lower the depth")
    without = next((question.id for question in questions if not question.positive_ids), None)
    if without is not None:
        problem = f'{source}: "{without}" has no positive_ids: a passage that is right would be taken for a negative'
        raise InputError(f"{problem}; name its gold passages, or leave it out")


def select(
    question: Question, ranking: Sequence[tuple[int, float]], gold: set[int], search: AnswerSearch, rules: Rules
) -> Mined:
    """Choose the hard negatives of a question by the rules.

    Args:
        ranking: rows with their scores, best first.
        gold: the rows of its gold passages.
    """
    gold_score = max((score for row, score in ranking if row in gold), default=None)
    limit, to_skip = rules.limit(gold_score), rules.skip
    kept: list[tuple[int, float]] = []
    dropped: Counter[str] = Counter()
    for row, score in ranking:
        if len(kept) == rules.negatives:
            break
        if row in gold:
            dropped[GOLD] += 1
        elif to_skip:
            to_skip -= 1
            dropped[SKIPPED] += 1
        elif not rules.keep_answers and search.holds(question, row):
            dropped[ANSWER] += 1
        elif score > limit:
            dropped[MARGIN] += 1
        else:
            kept.append((row, score))
    return Mined(question, [row for row, _ in kept], [score for _, score in kept], gold_score, dropped)
