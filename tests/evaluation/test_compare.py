"""Paired comparisons: differences, intervals and p-values against their definitions."""

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.evaluation.compare import (
    common_metrics,
    compare_systems,
    most_different,
    permutation_test,
    system_pairs,
)
from rag_jax.evaluation.score_file import AnsweredQuestion, Evaluation

NAN = math.nan
THIRDS = st.sampled_from([n / 3 for n in range(-3, 4)])


def evaluation(name: str, **scores: list[float]) -> Evaluation:
    """An evaluation whose questions are q0, q1, …, in lines 1, 2, …"""
    count = len(next(iter(scores.values())))
    questions = tuple(AnsweredQuestion(f"q{n}", "what", "answer", ("gold",), n + 1) for n in range(count))
    return Evaluation(Path(name), questions, {metric: np.array(values) for metric, values in scores.items()})


def random_scores(seed: int, count: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.choice([0.0, 1 / 3, 0.5, 2 / 3, 1.0]) for _ in range(count)]


def sign_flip_p(differences: list[float]) -> float:
    """The fraction of all 2^n sign flips with a sum at least as far from zero."""
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(each >= abs(sum(differences)) - 1e-9 for each in sums) / len(sums)


@given(st.lists(THIRDS, min_size=1, max_size=8))
def test_p_is_that_of_all_sign_flips_where_few_questions_differ(differences: list[float]) -> None:
    found = permutation_test(np.array(differences))
    assert found.exact
    assert found.value == pytest.approx(sign_flip_p(differences), rel=1e-12)


@given(wins=st.integers(0, 40), losses=st.integers(0, 40), ties=st.integers(0, 3))
def test_p_of_a_binary_metric_is_that_of_mcnemars_exact_test(wins: int, losses: int, ties: int) -> None:
    found = permutation_test(np.array([1.0] * wins + [-1.0] * losses + [0.0] * ties), resamples=100)
    m = wins + losses
    tail = sum(math.comb(m, k) for k in range(min(wins, losses) + 1)) / 2**m
    assert found.exact
    assert found.value == pytest.approx(min(1, 2 * tail), rel=1e-9)


def test_an_estimated_p_is_close_to_the_exact_one() -> None:
    differences = [0.5, 1.0, -1 / 3, 1.0, 0.2, -0.5, 1.0, 0.0, 2 / 3, -0.1, 0.4]
    exact, resamples = sign_flip_p(differences), 1_000
    found = permutation_test(np.array(differences), resamples, seed=1)
    assert not found.exact
    assert abs(found.value - exact) < 5 * math.sqrt(exact / resamples)  # standard deviations
    assert found == permutation_test(np.array(differences), resamples, seed=1)


def test_rounding_errors_do_not_break_ties() -> None:
    differences = [4 / 3, 2 / 3, 11 / 9, 1 / 7, -8 / 3, -12 / 7, 13 / 9, -4 / 9]  # their sum, -1/63, is the least
    assert permutation_test(np.array(differences)).value == sign_flip_p(differences) == 1
    noisy = evaluation("a", f1=[0.1 + 0.2, 0.5]), evaluation("b", f1=[0.3, 0.5])
    (found,) = compare_systems(dict(zip("ab", noisy, strict=True)), ["f1"])
    assert (found.wins, found.ties, found.losses) == (0, 2, 0)


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_differences_that_are_all_equal_have_an_interval_of_one_point(shift: float) -> None:
    scores = random_scores(0, 20)
    pair = {"a": evaluation("a", f1=scores), "b": evaluation("b", f1=[score + shift for score in scores])}
    (found,) = compare_systems(pair, ["f1"])
    assert found.difference == pytest.approx((shift, shift, shift, 20))
    assert found.p.value == (pytest.approx(2 / 2**20) if shift else 1)
    assert most_different(pair, ["f1"], 20) == (list(range(20)) if shift else [])


def test_means_counts_and_difference_are_those_of_the_questions_that_a_metric_applies_to() -> None:
    reference, system = [1.0, 0.0, NAN, 0.5, 0.5], [0.0, 1.0, NAN, 1.0, 0.5]
    pair = {"old": evaluation("old", f1=reference), "new": evaluation("new", f1=system)}
    (found,) = compare_systems(pair, ["f1"])
    assert (found.metric, found.system, found.reference) == ("f1", "new", "old")
    assert found.reference_mean == (1.0 + 0.0 + 0.5 + 0.5) / 4
    assert found.system_mean == (0.0 + 1.0 + 1.0 + 0.5) / 4
    assert found.difference.value == pytest.approx(found.system_mean - found.reference_mean)
    assert found.difference.questions == 4
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)


def test_the_interval_is_that_of_resampled_pairs() -> None:
    a, b = random_scores(1, 60), random_scores(2, 60)
    (found,) = compare_systems({"a": evaluation("a", f1=a), "b": evaluation("b", f1=b)}, ["f1"])
    draw, means = random.Random(0), []
    for _ in range(4_000):
        sample = [draw.randrange(60) for _ in range(60)]
        means.append(sum(b[n] for n in sample) / 60 - sum(a[n] for n in sample) / 60)
    means.sort()
    error = (means[-1] - means[0]) / 20  # of the ends, by resampling
    assert found.difference.low == pytest.approx(means[100], abs=error)
    assert found.difference.high == pytest.approx(means[-100], abs=error)


def test_exchanged_systems_have_the_opposite_difference_and_the_same_p() -> None:
    a, b = evaluation("a", f1=random_scores(1, 40)), evaluation("b", f1=random_scores(2, 40))
    (ahead,) = compare_systems({"a": a, "b": b}, ["f1"], resamples=500)
    (back,) = compare_systems({"b": b, "a": a}, ["f1"], resamples=500)
    assert not ahead.p.exact
    assert back.p == ahead.p
    assert back.difference.value == pytest.approx(-ahead.difference.value)
    assert (back.difference.low, back.difference.high) == pytest.approx((-ahead.difference.high, -ahead.difference.low))
    assert (back.wins, back.ties, back.losses) == (ahead.losses, ahead.ties, ahead.wins)
    assert (back.system_mean, back.reference_mean) == (ahead.reference_mean, ahead.system_mean)


def test_p_values_are_corrected_for_all_comparisons_of_the_call() -> None:
    systems = {
        name: evaluation(name, f1=random_scores(n, 12), em=random_scores(n + 9, 12)) for n, name in enumerate("abc")
    }
    found = compare_systems(systems, ["f1", "em"], all_pairs=True, resamples=500)
    assert [(each.metric, each.reference, each.system) for each in found] == [
        (metric, *pair) for metric in ("f1", "em") for pair in ("ab", "ac", "bc")
    ]
    ordered, smallest, expected = sorted(each.p.value for each in found), 1.0, {}
    for rank in range(len(found), 0, -1):  # Benjamini and Hochberg: p m / rank, never above that of a larger p
        smallest = min(smallest, ordered[rank - 1] * len(found) / rank)
        expected[ordered[rank - 1]] = expected.get(ordered[rank - 1], smallest)
    assert [each.corrected_p for each in found] == pytest.approx([expected[each.p.value] for each in found])
    assert any(each.corrected_p > each.p.value for each in found)


def test_the_first_is_the_reference_unless_all_pairs_are_asked_for() -> None:
    assert system_pairs("abc", all_pairs=False) == [("a", "b"), ("a", "c")]
    assert system_pairs("abc", all_pairs=True) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_questions_that_differ_most_come_first_then_by_id() -> None:
    systems = {
        "a": evaluation("a", em=[0.0, 0.0, 0.0, 1.0, NAN], f1=[0.0, 0.5, 0.0, 1.0, 0.0]),
        "b": evaluation("b", em=[0.0, 1.0, 1.0, 1.0, NAN], f1=[0.5, 1.0, 1.0, 1.0, 0.5]),
        "c": evaluation("c", em=[0.0, 1.0, 0.0, 1.0, NAN], f1=[0.0, 1.0, 0.0, 1.0, 0.0]),
    }
    # Mean of |b - a| and |c - a| over em and f1, times 4: 0.5, 3, 2, 0, 0.5.
    assert most_different(systems, ["em", "f1"], 10) == [1, 2, 0, 4]
    assert most_different(systems, ["em", "f1"], 3) == [1, 2, 0]
    # With |c - b|: 1, 3, 4, 0, 1.
    assert most_different(systems, ["em", "f1"], 3, all_pairs=True) == [2, 1, 0]


def test_questions_that_differ_equally_are_in_the_order_of_ids() -> None:
    scores = random_scores(0, 60)
    systems = {"a": evaluation("a", f1=[0.0] * 60), "b": evaluation("b", f1=scores)}
    expected = sorted((number for number in range(60) if scores[number]), key=lambda number: (-scores[number], number))
    assert most_different(systems, ["f1"], 60) == expected


def test_exact_match_and_f1_are_compared_unless_others_are_named() -> None:
    known = {"recall@1": [0.0], "f1": [1.0], "exact_match": [1.0], "recall@5": [NAN]}
    a, b = evaluation("a", **known), evaluation("b", **known)
    assert common_metrics({"a": a, "b": b}) == ["exact_match", "f1"]
    assert common_metrics({"a": a, "b": b}, ["recall@1", "f1", "recall@1"]) == ["recall@1", "f1"]
    without = evaluation("b", **{name: known[name] for name in ("f1", "recall@1")})
    assert common_metrics({"a": a, "b": without}) == ["f1"]
    retrieval = evaluation("b", **{name: known[name] for name in ("recall@5", "recall@1")})
    assert common_metrics({"a": a, "b": retrieval}) == ["recall@1"]  # recall@5 applies to no question


def test_a_metric_that_is_null_on_one_side_is_left_out_unless_it_is_named() -> None:
    a, b = evaluation("a", mrr=[1.0, 0.5], citation=[1.0, NAN]), evaluation("b", mrr=[1.0, 0.0], citation=[1.0, 0.0])
    assert common_metrics({"a": a, "b": b}) == ["mrr"]
    with pytest.raises(InputError, match=r"'citation' is null for .*; .*, or choose another --metric"):
        common_metrics({"a": a, "b": b}, ["citation"])


def test_metrics_of_other_options_are_not_compared() -> None:
    one, other = (evaluation(name, citation_recall=[1.0], f1=[1.0])._replace(options={"cite_at_least": share})
                  for name, share in (("a", 0.5), ("b", 0.9)))  # fmt: skip
    assert common_metrics({"a": one, "b": other}, ["f1"]) == ["f1"]
    with pytest.raises(InputError, match=r"b: 'citation_recall' with cite_at_least 0\.9, and 0\.5 in a; evaluate"):
        common_metrics({"a": one, "b": other}, ["citation_recall"])
    unknown = other._replace(options={})
    assert common_metrics({"a": one, "b": unknown}, ["citation_recall"]) == ["citation_recall"]


def test_rankings_by_other_gold_passages_are_not_compared() -> None:
    def over(name: str, gold: tuple[str, ...]) -> Evaluation:
        found = evaluation(name, **{"recall@1": [1.0], "contains": [1.0]})
        return found._replace(questions=tuple(each._replace(positive_ids=gold) for each in found.questions))

    one, other = over("a", ("p1",)), over("b", ("p2",))
    assert common_metrics({"a": one, "b": other}) == ["contains"], "answers do not depend on them"
    unsaid = over("u", ())
    with pytest.raises(InputError, match="b: 'recall@1' with other gold passages"):
        common_metrics({"u": unsaid, "a": one, "b": other}, ["recall@1"])
    with pytest.raises(InputError, match="b: 'recall@1' with other gold passages of \"q0\" than in a; evaluate both"):
        common_metrics({"a": one, "b": other}, ["recall@1"])
    assert common_metrics({"a": one, "b": over("b", ())}, ["recall@1"]) == ["recall@1"], "not said"


@pytest.mark.parametrize(
    ("asked", "scores", "message"),
    [
        (["mrr"], {"f1": [1.0, 0.0], "em": [1.0, 0.0]}, "a: has no 'mrr'; metrics in common are f1"),
        (["none"], {"f1": [1.0, 0.0]}, "a: 'none' applies to no question"),
        ([], {"em": [1.0, 0.0]}, "a: has no metric in common with the others"),
        ([], {"f1": [1.0, NAN]}, "b:2: 'f1' is null for \"q1\", but a number in a:2;"),
        ([], {"f1": [NAN, NAN]}, "b:1: 'f1' is null for \"q0\", but a number in a:1 (2 such questions);"),
    ],
)
def test_metrics_that_cannot_be_compared_are_refused(asked: list[str], scores: dict, message: str) -> None:
    a = evaluation("a", f1=[1.0, 0.0], none=[NAN, NAN])
    with pytest.raises(InputError) as error:
        common_metrics({"a": a, "b": evaluation("b", none=[NAN, NAN], **scores)}, asked)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
