"""KILT's scores: its own published examples, and their definitions in small cases."""

import doctest
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.kilt_guesses import Guess
from rag_jax.evaluation.metrics import kilt
from rag_jax.evaluation.metrics.kilt import answer_scores, evidence_recall, kilt_scores, r_precision

# facebookresearch/KILT, tests/test_data: gold1 and guess1_1, gold2 and guess2_1, guess2_2; figures in test_eval_*.py.
QUESTIONS = [
    Question(id, "In one word, how did Chen Yi-hsiung die?", (answer,), evidence=(("10287141",),))
    for id, answer in (("1", "suicide"), ("2", "suicide"), ("3", "it was suicide"))
]
GUESSES = [Guess("1", "suicide", ("10287141",)), Guess("2", "a suicide", ("999",)), Guess("3", "suicide", ("999",))]
SETS = (("1", "2"), ("5",), ("7", "9", "11"))
PAGES = st.lists(st.sampled_from("abcdef"), max_size=8)
EVIDENCE = st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), min_size=1, max_size=3)


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(kilt).failed == 0


def test_kilts_own_example_of_answers():
    scores = kilt_scores(GUESSES, QUESTIONS)
    means = {name: values.mean() for name, values in scores.items()}
    assert means == pytest.approx(
        {
            "r_precision": 1 / 3,
            "evidence_recall@5": 1 / 3,
            "kilt_accuracy": 1 / 3,
            "kilt_exact_match": 1 / 3,
            "kilt_f1": 1 / 3,
            "kilt_rouge_l": 0.3333333316666667,
        }
    )
    pairs = zip(GUESSES, QUESTIONS, strict=True)
    alone = [answer_scores(guess.answer, question.answers) for guess, question in pairs]
    assert np.mean([scores["exact_match"] for scores in alone]) == pytest.approx(2 / 3)
    assert np.mean([scores["f1"] for scores in alone]) == pytest.approx(0.8333333333333334)
    assert np.mean([scores["rouge_l"] for scores in alone]) == pytest.approx(0.7222222178240741)


def test_kilts_own_example_of_evidence():
    pages = ["2", "5", "7", "33", "1", "9", "44", "88"]
    assert (r_precision(pages, SETS), evidence_recall(pages, SETS)) == (1 / 2, 2 / 3)
    assert (r_precision(["5"], SETS), evidence_recall(["5"], SETS)) == (1, 1 / 3)


@given(PAGES, EVIDENCE)
def test_evidence_ranked_first_has_r_precision_one(pages, evidence):
    ranked = [*evidence[-1], *pages]
    assert r_precision(ranked, evidence) == 1
    assert 0 <= r_precision(pages, evidence) <= 1


@given(PAGES, EVIDENCE)
def test_recall_grows_with_depth_to_the_share_of_complete_sets(pages, evidence):
    recalls = [evidence_recall(pages, evidence, k) for k in range(1, 30)]
    assert recalls == sorted(recalls)
    distinct = {frozenset(gold) for gold in evidence}
    assert recalls[-1] == sum(gold <= set(pages) for gold in distinct) / len(distinct)


@given(PAGES, EVIDENCE)
def test_copies_of_documents_and_of_sets_change_nothing(pages, evidence):
    again = [[*gold, gold[0]] for gold in evidence] + evidence + [[]]
    assert r_precision([*pages, *pages], again) == r_precision(pages, evidence)
    assert evidence_recall([*pages, *pages], again, 2) == evidence_recall(pages, evidence, 2)


def test_sets_that_share_a_document_take_one_place_each():
    evidence = [["a"], ["a", "b"]]
    assert [evidence_recall("ab", evidence, k) for k in (1, 2)] == [1 / 2, 1]
    assert [evidence_recall("xab", evidence, k) for k in (1, 2, 3)] == [0, 1 / 2, 1]
    assert [evidence_recall("bxa", evidence, k) for k in (1, 2, 3)] == [0, 1 / 2, 1]


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        (" The cat ", ["The cat "], (1, 1, 1)),
        ("cat!", ["the cat"], (0, 1, 1)),
        ("the", ["a"], (0, 1, 0)),  # F1 as in SQuAD 1.1
        ("", ["cat"], (0, 0, 0)),
        ("", [""], (math.nan, math.nan, math.nan)),
    ],
)
def test_accuracy_is_literal_and_the_others_are_normalised(answer, gold, expected):
    scores = answer_scores(answer, gold)
    assert [scores[name] for name in ("accuracy", "exact_match", "f1")] == pytest.approx(expected, nan_ok=True)


def test_rouge_l_is_f_of_the_longest_common_subsequence():
    precision, recall = 2 / 3, 2 / 4  # of words: "one three"
    scores = answer_scores("one three two", ["one two four three", "nine"])
    found = max(answer_scores("one three two", [gold])["rouge_l"] for gold in ("one two four three", "nine"))
    assert scores["rouge_l"] == found == pytest.approx(2 * precision * recall / (precision + recall))
    assert answer_scores("...", ["one"])["rouge_l"] == 0


def test_long_answers_are_scored_within_the_recursion_limit():
    limit, answer = sys.getrecursionlimit(), " ".join(map(str, range(sys.getrecursionlimit() // 2 + 50)))
    assert answer_scores(answer, [answer])["rouge_l"] == pytest.approx(1)
    assert sys.getrecursionlimit() == limit


def test_what_does_not_apply_is_nan():
    questions = [Question("1", "?", ("cat",)), Question("2", "?", ("",), evidence=(("a",),))]
    scores = kilt_scores([Guess("1", "cat", ("a",)), Guess("2", "cat", ("a",))], questions)
    for name in ("r_precision", "evidence_recall@5"):
        assert scores[name].tolist() == pytest.approx([math.nan, 1], nan_ok=True)
    assert all(np.isnan(scores[name]).all() for name in scores if name.startswith("kilt_"))


@pytest.mark.parametrize(
    ("guesses", "questions", "message"),
    [
        (GUESSES[:2], QUESTIONS, "no guess for question '3'; give one guess for every question"),
        (GUESSES, QUESTIONS[:2], "there is no question '3', but a guess for it; give the questions that were asked"),
        ([*GUESSES, Guess("1", "x")], QUESTIONS, "two guesses for question '1'; give one guess for every question"),
        ([], [], "no questions to score; give one at least"),
    ],
)
def test_guesses_that_do_not_fit_the_questions_are_refused(guesses, questions, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        kilt_scores(guesses, questions)


def test_recall_at_zero_is_refused():
    with pytest.raises(InputError, match=r"^recall at 0 is not defined; ask for k = 1 or more$"):
        evidence_recall("a", ["a"], 0)
