"""Hard negatives are the first passages of a ranking that no rule drops."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.contrastive.answer_search import AnswerSearch
from rag_jax.contrastive.mining import ANSWER, AT_ONCE, GOLD, MARGIN, SKIPPED, Rules, mine, select
from rag_jax.corpus.passage import Passage
from rag_jax.data.question import Question
from rag_jax.errors import InputError
from rag_jax.index.engines.bm25 import BM25
from rag_jax.index.engines.engine import EngineResults, Queries
from rag_jax.index.store import without_vectors

PASSAGES = [Passage(f"p{i}", "Austen" if i == 3 else "", "by Jane Austen" if i % 5 == 0 else "text") for i in range(16)]
HOLDING = {0, 3, 5, 10, 15}  # rows of the passages with "Austen"
QUESTION = Question("q", "who?", ("Austen",), ("p1",))
SEARCH = AnswerSearch(PASSAGES)


def naive(ranking, gold, rules: Rules) -> list[tuple[int, float]]:
    """The rules one after the other, each over the whole ranking."""
    best = max((score for row, score in ranking if row in gold), default=-math.inf)
    left = [(row, score) for row, score in ranking if row not in gold][rules.skip :]
    if not rules.keep_answers:
        left = [(row, score) for row, score in left if row not in HOLDING]
    if rules.margin is not None:
        left = [(row, score) for row, score in left if score <= best - rules.margin]
    if rules.relative_margin is not None:
        left = [(row, score) for row, score in left if score <= rules.relative_margin * best]
    return left[: rules.negatives]


rankings = st.lists(
    st.tuples(st.integers(0, 15), st.sampled_from([0.5, 1.0, 2.0, 4.0, 7.5, 8.0])), unique_by=lambda pair: pair[0]
).map(lambda pairs: sorted(pairs, key=lambda pair: -pair[1]))
margins = st.sampled_from([{}, {"margin": 0.0}, {"margin": 3.5}, {"relative_margin": 1.0}, {"relative_margin": 0.5}])
choices = st.fixed_dictionaries(
    {"negatives": st.integers(1, 5), "skip": st.integers(0, 3), "keep_answers": st.booleans()}
)


@settings(max_examples=50, deadline=None)
@given(rankings, st.sets(st.integers(0, 15), max_size=3), choices, margins)
def test_the_negatives_are_what_the_rules_leave(ranking, gold, options, margin) -> None:
    rules = Rules(**options, **margin)
    found = select(QUESTION, ranking, gold, SEARCH, rules)
    kept = naive(ranking, gold, rules)
    assert list(zip(found.rows, found.scores, strict=True)) == kept
    assert found.gold_score == max((score for row, score in ranking if row in gold), default=None)
    looked_at = len(ranking) if len(kept) < rules.negatives else ranking.index(kept[-1]) + 1
    assert found.dropped.total() == looked_at - len(kept)


def test_what_is_dropped_is_counted_by_reason() -> None:
    ranking = [(4, 9.0), (1, 8.0), (3, 7.5), (7, 7.2), (8, 6.0), (0, 5.0), (9, 4.0), (11, 3.0)]
    found = select(QUESTION, ranking, {1}, SEARCH, Rules(negatives=2, skip=1, margin=1))
    assert (found.rows, found.scores, found.gold_score) == ([8, 9], [6.0, 4.0], 8.0)
    assert found.dropped == Counter({GOLD: 1, SKIPPED: 1, ANSWER: 2, MARGIN: 1})
    line = {"id": "q", "negative_ids": ["p8", "p9"], "scores": [6.0, 4.0], "positive_score": 8.0}
    assert found.line(without_vectors(PASSAGES)) == line


def test_a_relative_margin_is_a_distance_below_a_negative_score_too() -> None:
    rules = Rules(relative_margin=0.75)
    assert rules.limit(8.0) == 0.75 * 8.0
    assert rules.limit(-8.0) == -8.0 - 0.25 * 8.0
    assert rules.limit(0.0) == 0.0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"negatives": 0}, "0 negatives are none; ask for 1 or more"),
        ({"skip": -1}, "the first -1 passages cannot be skipped; give 0 or more"),
        ({"depth": 9}, "a ranking of 9 passages does not hold 10 negatives; raise the depth"),
        ({"depth": 12, "skip": 3}, "a ranking of 12 passages does not hold 10 negatives after 3 that are skipped;"),
        ({"margin": 1.0, "relative_margin": 0.9}, "a margin and a relative margin are two rules; give one of them"),
        ({"margin": -0.1}, "the margin is -0.1; give a finite number of at least 0"),
        ({"margin": math.nan}, "the margin is nan; give a finite number"),
        ({"margin": math.inf}, "the margin is inf; give a finite number"),
        ({"relative_margin": 0.0}, "the relative margin is 0.0; give more than 0, at most 1"),
        ({"relative_margin": 1.1}, "the relative margin is 1.1; give more than 0, at most 1"),
        ({"relative_margin": math.nan}, "the relative margin is nan; give more than 0, at most 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError) as caught:
        Rules(**options)
    assert str(caught.value).startswith(what)


class Fixed:
    """An engine that ranks the passages after the row that is the question's text, the nearest first."""

    def __init__(self) -> None:
        self.asked: list[Queries] = []

    def search(self, queries: Queries, k: int, excluded=None) -> EngineResults:
        self.asked.append(queries)
        rows = np.asarray([[(int(text) + i) % 16 if i < 8 else -1 for i in range(k)] for text in queries.texts])
        scores = np.where(rows < 0, -np.inf, -np.arange(k, dtype=np.float32))
        return EngineResults(rows.astype(np.int32), scores.astype(np.float32), None)


def test_questions_are_searched_some_at_once_and_come_out_in_order() -> None:
    questions = [Question(f"q{n}", str(n % 16), (), (f"p{n % 16}",)) for n in range(AT_ONCE + 3)]
    engine, vectors = Fixed(), np.arange(len(questions), dtype=np.float32)[:, None]

    def encode(texts):
        return vectors[: len(texts)]

    mined = list(mine(questions, without_vectors(PASSAGES), engine, encode, Rules(depth=10, negatives=9)))
    assert [len(each.texts) for each in engine.asked] == [AT_ONCE, 3]
    assert [each.vectors.shape for each in engine.asked if each.vectors is not None] == [(AT_ONCE, 1), (3, 1)]
    for n, each in enumerate(mined):
        assert each.question is questions[n]
        assert each.rows == [(n + i) % 16 for i in range(1, 8)]  # the gold passage is first, and 8 are found
        assert each.scores == [-float(i) for i in range(1, 8)]
        assert each.gold_score == 0.0


def test_no_passage_of_a_gold_document_is_a_negative() -> None:
    passages = [each._replace(document="p1") if n in (2, 4) else each for n, each in enumerate(PASSAGES)]
    asked, rules = [Question("q", "0", (), ("p1",))], Rules(depth=8, negatives=8)
    (mined,) = mine(asked, without_vectors(passages), Fixed(), lambda texts: np.zeros((1, 1), np.float32), rules)
    assert mined.rows == [0, 3, 5, 6, 7]
    assert mined.dropped[GOLD] == 3


def test_bm25_s_negatives_share_words_with_the_question() -> None:
    passages = [
        Passage("gold", "Emma", "Emma is a novel by Jane Austen"),
        Passage("near", "Emma", "Emma is a novel, and also a name"),
        Passage("right", "Austen", "Jane Austen wrote the novel Emma"),
        Passage("far", "Ulysses", "Ulysses is a novel"),
        Passage("other", "Paris", "the capital of France"),
    ]
    store, question = without_vectors(passages), Question("q", "who wrote the novel Emma", ("Jane Austen",), ("gold",))
    found = next(mine([question], store, BM25.build(passages), None, Rules(depth=5, negatives=3)))
    assert found.line(store)["negative_ids"] == ["near", "far"]
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.dropped == Counter({GOLD: 1, ANSWER: 1})


@pytest.mark.parametrize(
    ("questions", "rules", "what"),
    [
        ([QUESTION], Rules(depth=17), "a ranking of 17 passages of 16 in the index; lower the depth"),
        ([QUESTION, Question("q2", "?", ("me",))], Rules(depth=16), 'questions: "q2" has no positive_ids'),
    ],
)
def test_what_cannot_be_mined_is_refused_at_once(questions, rules: Rules, what: str) -> None:
    engine = Fixed()
    with pytest.raises(InputError) as caught:
        mine(questions, without_vectors(PASSAGES), engine, None, rules)
    assert str(caught.value).startswith(what)
    assert engine.asked == []
