"""What the experiments conclude from numbers made by hand."""

import numpy as np
import pytest

from rag_jax.experiments import (
    ablation,
    collapse,
    distillation,
    diversity,
    hot_swap,
    k_sweep,
    posterior,
    refresh,
    staleness,
)
from rag_jax.experiments.collapse import Course
from rag_jax.pipeline.answers import Answer, RetrievedPassage


def ablation_means(trained: float, frozen: float, bm25: float) -> dict[tuple[str, str], float]:
    values = {"trained": trained, "frozen": frozen, "BM25": bm25}
    return {(model, name): value for model in ("token", "sequence") for name, value in values.items()}


@pytest.mark.parametrize(
    ("means", "p", "reproduced"),
    [
        (ablation_means(0.9, 0.8, 0.7), 0.001, True),
        (ablation_means(0.9, 0.8, 0.7), 0.2, False),  # the difference may be chance
        (ablation_means(0.9, 0.8, 0.85), 0.001, False),  # BM25 is better than frozen
        (ablation_means(0.7, 0.8, 0.6), 0.001, False),  # training hurt
    ],
)
def test_the_ablation_wants_the_papers_order_and_significance(means: dict, p: float, reproduced: bool) -> None:
    said = ablation.verdict(means, {"token": p, "sequence": p})
    assert ("Reproduced: " in said, "Not reproduced at this scale" in said) == (reproduced, not reproduced)
    difference = means["token", "trained"] - means["token", "frozen"]
    assert f"trained against frozen {difference:+.3f}, p = {p:.4f}" in said


@pytest.mark.parametrize(
    ("sequence", "token", "rises", "peaks"),
    [
        ((0.4, 0.5, 0.6), (0.5, 0.6, 0.55), True, True),
        ((0.4, 0.5, 0.496), (0.4, 0.5, 0.6), True, False),  # a fall within the tolerance; the best is the last
        ((0.4, 0.6, 0.5), (0.6, 0.5, 0.4), False, False),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), False, False),  # flat is no rise
        ((0.890, 0.893, 0.893), (0.888, 0.889, 0.882), False, False),  # nor are differences within the tolerance
    ],
)
def test_the_sweep_wants_a_rise_and_an_inner_peak(sequence: tuple, token: tuple, rises: bool, peaks: bool) -> None:
    ks = (1, 10, 50)
    said = k_sweep.verdict(
        {"sequence": dict(zip(ks, sequence, strict=True)), "token": dict(zip(ks, token, strict=True))}
    )
    assert f"monotone rise: {'' if rises else 'not '}reproduced" in said
    assert f"moderate K: {'' if peaks else 'not '}reproduced" in said


@pytest.mark.parametrize("course", [{5: 0.5}, {1: 0.4, 10: 0.6}])
def test_a_sweep_without_a_middle_concludes_nothing(course: dict) -> None:
    said = k_sweep.verdict({"sequence": course, "token": course})
    assert said.count("not tested, which takes three values of K") == 2


def test_small_falls_in_a_row_are_no_rise() -> None:
    falling = dict(zip((1, 2, 5, 10, 20), (0.900, 0.896, 0.892, 0.888, 0.910), strict=True))
    said = k_sweep.verdict({"sequence": falling, "token": falling})
    assert "with a fall of 0.012 at K = 10" in said
    assert "monotone rise: not reproduced" in said


@pytest.mark.parametrize(
    ("means", "reproduced"),
    [
        ((0.7, 0.1, 0.04, 0.68), True),
        ((0.7, 0.1, 0.04, 0.5), False),
        ((0.7, 0.1, 0.2, 0.68), False),
    ],
)
def test_the_swap_wants_a_strong_diagonal(means: tuple, reproduced: bool) -> None:
    keys = [("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")]
    said = hot_swap.verdict(dict(zip(keys, means, strict=True)))
    assert (" Reproduced: " in said) == reproduced
    assert said.startswith(f"{means[0]:.3f} and {means[3]:.3f} with the matching index, ")


@pytest.mark.parametrize(("closed_book", "reproduced"), [(0.3, True), (0.5, False), (float("nan"), False)])
def test_diversity_wants_the_papers_order(closed_book: float, reproduced: bool) -> None:
    ratios = {"gold": 0.9, "RAG-Sequence": 0.5, "RAG-Token": 0.45, "closed book": closed_book}
    said = diversity.verdict(ratios)
    assert ("Not reproduced at this scale" not in said) == reproduced
    assert said.endswith("gold > RAG-Sequence > RAG-Token > closed book.")


def window(step: int, distinct: float, kl: float) -> dict[str, float]:
    return {"step": step, "loss": 1.0, "distinct": distinct, "most_frequent": 1 - distinct, "kl": kl}


def test_the_course_of_a_run_has_the_warning_that_training_printed() -> None:
    healthy = collapse.course([window(1, 0.9, 0.5), window(2, 0.8, 0.1)])  # one of the two may fall
    collapsed = collapse.course([window(1, 0.9, 0.5), window(2, 0.3, 0.1), window(3, 0.2, 0.05)])
    assert (healthy.warned_at, healthy.warning) == (None, None)
    assert collapsed.warned_at == 2
    assert collapsed.warning is not None
    assert "retrieval may be collapsing" in collapsed.warning
    said = collapse.verdict({collapse.HEALTHY: healthy, collapse.FAST: collapsed})
    assert "Healthy: no warning, distinct passages 0.900 -> 0.800." in said
    assert "Tower rate too high: warning at step 2, distinct passages 0.900 -> 0.200. Reproduced" in said


@pytest.mark.parametrize(("healthy_warns", "other_warns"), [(True, True), (False, False)])
def test_no_collapse_and_a_false_alarm_are_no_reproduction(healthy_warns: bool, other_warns: bool) -> None:
    def course(warns: bool) -> Course:
        return Course([window(1, 0.9, 0.5)], 1 if warns else None, "…" if warns else None)

    said = collapse.verdict({collapse.HEALTHY: course(healthy_warns), collapse.FAST: course(other_warns)})
    assert "Not reproduced at this scale" in said


def test_staleness_names_the_largest_lag_that_costs_nothing() -> None:
    said = staleness.verdict({0: 0.8, 4: 0.795, 16: 0.7, 64: 0.5}, {0: 2.0, 4: 1.0, 16: 1.0, 64: 1.0})
    assert "0.800 at lag 0 and 0.500 at worst (lag 64)" in said
    assert "The largest lag that costs at most 0.01 is 4; its steps take 1.000 s, those at lag 0 2.000 s." in said


def test_distillation_is_set_beside_the_likelihood_and_a_frozen_tower() -> None:
    arm = distillation.Arm
    matches = {arm("frozen"): 0.5, arm("likelihood"): 0.7, arm("pdist"): 0.72, arm("lsr"): 0.4}
    p_values = {
        arm(name): distillation.PValues(0.01, p)
        for name, p in {"frozen": 0.01, "likelihood": None, "pdist": 0.3, "lsr": 0.002}.items()
    }
    said = distillation.verdict(matches, p_values)
    assert "Exact match is 0.500 (RAG-Token) with a frozen tower, 0.700 trained by the likelihood." in said
    assert "pdist: 0.720 (+0.020, p = 0.3000, which may be chance)." in said
    assert "lsr: 0.400 (-0.300, p = 0.0020)." in said
    assert "Not reproduced at this scale: lsr no better than a frozen tower, or by chance." in said
    assert "Reproduced: each" in distillation.verdict({**matches, arm("lsr"): 0.6}, p_values)


def test_attention_distillation_is_compared_with_a_frozen_tower_of_its_model() -> None:
    arm = distillation.Arm
    fid, adist = arm("frozen", "fid"), arm("adist", "fid")
    matches = {arm("frozen"): 0.5, fid: 0.8, arm("likelihood"): 0.7, adist: 0.75}
    p_values = {each: distillation.PValues(0.01, 0.5) for each in matches}
    said = distillation.verdict(matches, p_values)
    assert "0.500 (RAG-Token), 0.800 (Fusion-in-Decoder) with a frozen tower" in said
    assert "Not reproduced at this scale: adist" in said
    assert "Reproduced: each" in distillation.verdict(matches | {fid: 0.6}, p_values)
    by_chance = p_values | {adist: distillation.PValues(0.3, 0.5)}
    assert "Not reproduced at this scale: adist" in distillation.verdict(matches | {fid: 0.6}, by_chance)


def test_refresh_says_what_both_towers_gain_and_cost() -> None:
    def facts(recall: float, seconds: float, teraflops: float) -> refresh.Facts:
        return refresh.Facts(recall, 1.0, 99, 49.5, seconds, teraflops)

    matches = {refresh.FROZEN: 0.4, refresh.SHARE: 0.8, refresh.ALL: 0.7}
    arms = {
        refresh.FROZEN: facts(0.5, 2.0, 1.0),
        refresh.SHARE: facts(0.9, 3.0, 2.5),
        refresh.ALL: facts(0.8, 2.0, 2.5),
    }
    surely, by_chance = ({refresh.SHARE: p, refresh.ALL: 0.5} for p in (0.001, 0.2))
    said = refresh.verdict(matches, arms, surely)
    assert "Exact match is 0.800 with a share in each step, and 0.400 with a frozen index (p = 0.0010, paired" in said
    assert "recall@1 0.900 and 0.500" in said
    assert "1.50 times the seconds and 2.50 times the FLOPs (a share in each step)" in said
    assert "gains here" in said
    assert "gains nothing certain here" in refresh.verdict(matches, arms, by_chance)
    worse = matches | {refresh.SHARE: 0.3, refresh.ALL: 0.2}
    assert "costs accuracy here" in refresh.verdict(worse, arms, surely)
    assert "gains nothing certain here" in refresh.verdict(worse, arms, by_chance)


@pytest.mark.parametrize(("second", "moves"), [([0.2, 0.8], 0.7), ([0.85, 0.15], 0.05)])
def test_the_posterior_moves_between_tokens(second: list[float], moves: float) -> None:
    posteriors = np.array([[0.9, 0.1], second]).T
    passages = [RetrievedPassage("1", "Lyon", "…", -0.1, 0.9), RetrievedPassage("2", "", "…", -2.3, 0.1)]
    said = posterior.verdict("token", Answer("Rhône", 0, 0, passages, ["Rh", "ône"], posteriors, []), posteriors)
    assert f"moves by up to {moves:.3f}" in said
    assert ("Reproduced" in said) == (moves > posterior.MOVED)
    assert ("Lyon, passage 2" in said) == (second[1] > 0.5)
    same = posterior.verdict("sequence", Answer("Rhône", 0, 0, passages, ["Rh", "ône"], posteriors, []), posteriors)
    assert same.endswith("RAG-Sequence has one posterior for all tokens by definition.")
