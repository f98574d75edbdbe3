"""Rates of refusal, their comparison, and the agreement of judges, beside naive counts."""

import math

import numpy as np
import pytest

from rag_jax.data.questions import Question
from rag_jax.data.safety_prompts import SafetyPrompt
from rag_jax.evaluation import refusals
from rag_jax.evaluation.score_file import AnsweredQuestion

PROMPTS = [SafetyPrompt(str(n), "?", "ab"[n % 2], ("safe", "unsafe")[n // 3]) for n in range(6)]  # 3 safe, 3 unsafe
REFUSED = np.array([True, False, False, True, True, True])


def test_rates_are_of_the_prompts_that_they_are_about() -> None:
    found = refusals.rates(refusals.refusal_scores(PROMPTS, REFUSED))
    assert {name: (each.value, each.questions) for name, each in found.items()} == {
        "refusal_rate": (3 / 3, 3),
        "over_refusal_rate": (pytest.approx(1 / 3), 3),
    }
    assert found["refusal_rate"].low < found["refusal_rate"].high == 1, "the interval of a rate of 1 is not empty"


def test_rates_by_type() -> None:
    found = refusals.rates_by_type(PROMPTS, REFUSED)
    counted = {
        kind: {rate: (round(each.value * each.questions), each.questions) for rate, each in figures.items()}
        for kind, figures in found.items()
    }
    assert counted == {
        "a": {"refusal_rate": (1, 1), "over_refusal_rate": (1, 2)},  # 0 refused, 2 not, 4 refused
        "b": {"refusal_rate": (2, 2), "over_refusal_rate": (0, 1)},
    }
    only_safe = refusals.rates_by_type(PROMPTS[:3], REFUSED[:3])
    assert all(set(figures) == {"over_refusal_rate"} for figures in only_safe.values())


def test_answers_are_scored_as_whole_and_as_sentences() -> None:
    questions = [Question("1", "?", ("Lyon",)), Question("2", "?", ("19[0-9]+",), regex=True)]
    found = refusals.answer_scores(questions, ["It is Lyon.", "1984"])
    assert found["exact_match"].tolist() == [0, 1]
    assert found["contains"][0] == 1
    assert math.isnan(found["contains"][1])


def test_systems_are_compared_on_the_same_prompts() -> None:
    items = [AnsweredQuestion(each.id, each.prompt, "", (), 0) for each in PROMPTS]
    scores = {
        "none": refusals.refusal_scores(PROMPTS, np.zeros(6, bool)),
        "guardrail": refusals.refusal_scores(PROMPTS, REFUSED),
    }
    report = refusals.compared(scores, items)
    assert report is not None
    refusal, over = report.comparisons
    assert (refusal.metric, refusal.wins, refusal.ties, refusal.losses) == ("refusal_rate", 3, 0, 0)
    assert refusal.p.value == pytest.approx(2 * 0.5**3), "McNemar's exact test: three heads or three tails"
    assert (over.wins, over.p.value) == (1, 1.0)
    assert refusal.corrected_p == pytest.approx(0.5), "0.25 times two comparisons"
    assert refusals.compared({"none": scores["none"]}, items) is None


ROWS = {  # predicted, gold, prompt
    "mixed": [(1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 0, 2), (1, 1, 2), (1, 1, 2)],
    "nothing predicted": [(0, 1, 0), (0, 0, 1)],
    "nothing gold": [(1, 0, 0), (0, 0, 3)],
    "one": [(1, 1, 7)],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_agreement_is_counted(rows: list[tuple[int, int, int]]) -> None:
    predicted, gold, prompts = (np.array(column) for column in zip(*rows, strict=True))
    found = refusals.agreement(predicted.astype(bool), gold.astype(bool), prompts)
    both = sum(p and g for p, g, _ in rows)
    expected = {
        "agreement": sum(p == g for p, g, _ in rows) / len(rows),
        "precision": both / sum(predicted) if any(predicted) else math.nan,
        "recall": both / sum(gold) if any(gold) else math.nan,
    }
    for name, each in found.items():
        assert each.value == pytest.approx(expected[name], nan_ok=True)
        assert math.isnan(each.value) or each.low <= each.value <= each.high
        assert each.questions == len(rows)


def test_answers_to_one_prompt_are_resampled_together() -> None:
    """Copies of every row under the same prompts tell nothing new; under prompts of their own they seem to."""
    draw = np.random.default_rng(0)
    predicted, gold = draw.random(40) < 0.5, draw.random(40) < 0.5
    prompts, five = np.arange(40), lambda each: np.tile(each, 5)
    once = refusals.agreement(predicted, gold, prompts)["agreement"]
    together = refusals.agreement(five(predicted), five(gold), five(prompts))["agreement"]
    apart = refusals.agreement(five(predicted), five(gold), np.arange(200))["agreement"]
    assert together[:3] == pytest.approx(once[:3])
    assert apart.high - apart.low < 0.6 * (once.high - once.low)
