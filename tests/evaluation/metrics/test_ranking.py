"""Scores of rankings, against plain loops."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.metrics.answers import has_answer, recall_at_k
from rag_jax.evaluation.metrics.ranking import answer_recall_scores, document_recall_scores, ranking_scores

DEPTHS = (1, 2, 3, 10)
ids = st.lists(st.sampled_from(["10", "9", "a", "b", "c", "ü"]), unique=True)
grades = st.dictionaries(st.sampled_from(["10", "9", "a", "b", "elsewhere"]), st.integers(-1, 3), max_size=4)
cases = st.lists(st.tuples(ids, grades), min_size=1, max_size=4)


def question(answers=("x",), **fields) -> Question:
    return Question("q", "?", tuple(answers), **fields)


def graded(gold: dict[str, int]) -> Question:
    return question(positive_ids=tuple(gold), relevance=tuple(gold.values()))


def naive_ndcg(ranked: list[str], gold: dict[str, int], k: int) -> float:
    gain = sum(gold.get(id, 0) / math.log2(rank + 1) for rank, id in enumerate(ranked[:k], 1))
    best = sorted(gold.values(), reverse=True)[:k]
    return gain / sum(grade / math.log2(rank + 1) for rank, grade in enumerate(best, 1))


def naive_reciprocal_rank(ranked: list[str], gold: dict[str, int]) -> float:
    for rank, id in enumerate(ranked, 1):
        if id in gold:
            return 1 / rank
    return 0.0


def naive_average_precision(ranked: list[str], gold: dict[str, int]) -> float:
    precisions = [sum(id in gold for id in ranked[:r]) / r for r in range(1, len(ranked) + 1) if ranked[r - 1] in gold]
    return sum(precisions) / len(gold)


def naive_scores(ranked: list[str], gold: dict[str, int]) -> dict[str, float]:
    gold = {id: grade for id, grade in gold.items() if grade > 0}
    if not gold:
        return dict.fromkeys([*(f"{name}@{k}" for name in ("recall", "ndcg") for k in DEPTHS), "mrr", "map"], math.nan)
    recalls = {f"recall@{k}": float(any(id in gold for id in ranked[:k])) for k in DEPTHS}
    ndcgs = {f"ndcg@{k}": naive_ndcg(ranked, gold, k) for k in DEPTHS}
    return recalls | ndcgs | {"mrr": naive_reciprocal_rank(ranked, gold), "map": naive_average_precision(ranked, gold)}


@given(cases)
def test_scores_are_those_of_plain_loops(cases):
    scores = ranking_scores([ranked for ranked, _ in cases], [graded(gold) for _, gold in cases], DEPTHS)
    expected = [naive_scores(ranked, gold) for ranked, gold in cases]
    assert list(scores) == list(expected[0])
    for name, values in scores.items():
        np.testing.assert_allclose(values, [one[name] for one in expected], rtol=1e-12, err_msg=name)


@given(cases)
def test_recall_is_the_share_of_questions_with_a_gold_passage(cases):
    found = [(ranked, [id for id in gold if gold[id] > 0]) for ranked, gold in cases]
    found = [(ranked, gold) for ranked, gold in found if gold] or [(["a"], ["a"])]
    questions = [question(positive_ids=tuple(gold)) for _, gold in found]
    rankings = [ranked for ranked, _ in found]
    for k in DEPTHS:
        recall = ranking_scores(rankings, questions, (k,))[f"recall@{k}"].mean()
        assert recall == pytest.approx(recall_at_k(rankings, [gold for _, gold in found], k))


def test_gold_passages_without_grades_have_grade_1():
    ranked = [["c", "a", "b"]]
    plain = ranking_scores(ranked, [question(positive_ids=("a", "b"))], DEPTHS)
    assert plain == ranking_scores(ranked, [graded({"a": 1, "b": 1})], DEPTHS)
    assert plain["ndcg@10"] != ranking_scores(ranked, [graded({"a": 2, "b": 1})], DEPTHS)["ndcg@10"]


def test_an_empty_ranking_scores_0_and_a_question_without_gold_passages_does_not_count():
    scores = ranking_scores([[], ["a"], []], [graded({"a": 1}), question(), question()], (5,))
    assert list(scores) == ["recall@5", "ndcg@5", "mrr", "map"]
    for values in scores.values():
        np.testing.assert_array_equal(values, [0, math.nan, math.nan])
    without_gold = ranking_scores([["a"]], [question()], (5,))
    assert all(np.isnan(values).all() for values in without_gold.values())


def test_the_order_of_the_ranking_is_kept_over_a_hundred_thousand_passages():
    ranked = [str(number) for number in range(100_000)]
    scores = ranking_scores([ranked], [graded({"99998": 1})], (99_998, 99_999))
    assert scores["mrr"] == pytest.approx(1 / 99_999, rel=1e-12)
    assert (scores["recall@99998"], scores["recall@99999"]) == (0, 1)


def test_questions_of_the_same_id_are_scored_separately():
    scores = ranking_scores([["a"], ["b"]], [graded({"a": 1}), graded({"a": 1})], (1,))
    np.testing.assert_array_equal(scores["recall@1"], [1, 0])


def test_rankings_and_grades_that_cannot_be_scored_are_input_errors():
    with pytest.raises(InputError, match=r"^question 'q': passage 'b' is ranked twice; rank each passage once$"):
        ranking_scores([["a", "b", "c", "b"]], [question()], (1,))
    line = "question 'q': 1 grades for 2 gold passages; give one grade per passage, or none"
    with pytest.raises(InputError, match=f"^{line}$"):
        ranking_scores([["a"]], [question(positive_ids=("a", "b"), relevance=(1,))], (1,))


@pytest.mark.parametrize("scores", [ranking_scores, answer_recall_scores, document_recall_scores])
def test_depths_and_counts_are_checked(scores):
    with pytest.raises(InputError, match="recall at 0 is not defined; ask for k = 1 or more"):
        scores([[]], [question()], (5, 0))
    with pytest.raises(InputError, match="2 rankings for 1 questions; give one ranking per question"):
        scores([[], []], [question()], ())
    with pytest.raises(InputError, match="no questions to score; give one at least"):
        scores([], [], (1,))


pieces = st.sampled_from(["Austen", "austen", "Jane ", " ", "'s", ".", "é", "e\u0301", "Austenites"])
passages = st.lists(st.lists(pieces, max_size=5).map("".join), max_size=4)


gold_answers = st.lists(pieces.filter(str.strip), min_size=1, max_size=2)


@given(st.lists(st.tuples(passages, gold_answers), min_size=1, max_size=3))
def test_answer_recall_is_dprs_top_k_accuracy(cases):
    texts, answers = zip(*cases, strict=True)
    scores = answer_recall_scores(texts, [question(gold) for gold in answers], DEPTHS)
    assert list(scores) == [f"answer_recall@{k}" for k in DEPTHS]
    for k in DEPTHS:
        hits = [any(has_answer(text, gold) for text in own[:k]) for own, gold in cases]
        assert scores[f"answer_recall@{k}"].mean() == pytest.approx(np.mean(hits))


def test_answers_that_are_regular_expressions_are_searched_in_the_texts():
    texts, answers = [["in 1968", "in 1969.", "in 1967"]], (r"19(69|70)\b",)
    assert answer_recall_scores(texts, [question(answers, regex=True)], (1, 2)) == {
        f"answer_recall@{k}": re.search(answers[0], " ".join(texts[0][:k])) is not None for k in (1, 2)
    }
    assert answer_recall_scores(texts, [question(answers)], (2,)) == {"answer_recall@2": 0}


def test_a_question_without_an_answer_has_no_answer_recall():
    values = answer_recall_scores([["any text"], []], [question([""]), question(["x"])], (1,))["answer_recall@1"]
    np.testing.assert_array_equal(values, [math.nan, 0])


CHUNKS = [
    Passage("1", "Emma", "by Jane Austen", "d1"),
    Passage("2", "Emma", "a novel", "d1"),
    Passage("3", "Beyonce\u0301", "a singer", "d2"),
    Passage("4", "Origin", "a passage that is its own document"),
]


@pytest.mark.parametrize(
    ("gold", "recalls"),
    [
        ({"evidence": (("d1",),)}, [1, 1, 1]),
        ({"evidence": (("d1", "d2"),)}, [1 / 2, 1 / 2, 1]),
        ({"evidence": (("d2", "d1", "d2"),)}, [1 / 2, 1 / 2, 1]),  # documents count once
        ({"evidence": (("d2", "4", "d3"),)}, [0, 0, 1 / 3]),
        ({"evidence": (("d3", "d1"), ("4",), ("d2",))}, [1 / 2, 1 / 2, 1]),  # the best set
        ({"evidence": (("4",),)}, [0, 0, 0]),
        ({"evidence_titles": (("Emma", "Beyoncé"),)}, [1 / 2, 1 / 2, 1]),
        ({"evidence_titles": (("d1",),)}, [0, 0, 0]),  # titles are not ids
        ({"evidence": (("Emma",),)}, [0, 0, 0]),
        ({"evidence": (("d2",),), "evidence_titles": (("Emma",),)}, [1, 1, 1]),
        ({"evidence": ((),)}, [math.nan] * 3),
        ({}, [math.nan] * 3),
    ],
)
def test_document_recall_is_the_best_evidence_sets(gold, recalls):
    scores = document_recall_scores([CHUNKS], [question(**gold)], (1, 2, 3))
    np.testing.assert_array_equal([scores[f"document_recall@{k}"][0] for k in (1, 2, 3)], recalls)
    complete = [recall if math.isnan(recall) else recall == 1 for recall in recalls]
    np.testing.assert_array_equal([scores[f"all_documents@{k}"][0] for k in (1, 2, 3)], complete)


def test_a_passage_without_a_document_is_one():
    questions = [question(evidence=(("4", "d1"),)), question(evidence=(("4",),))]
    scores = document_recall_scores([CHUNKS, []], questions, (4,))
    np.testing.assert_array_equal(scores["all_documents@4"], [1, 0])
