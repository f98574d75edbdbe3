"""Bootstrap intervals."""

import math

import numpy as np
import pytest

from rag_jax.evaluation.intervals import Figure, figure, mean_figure, rate_figure, score_figure


def test_the_interval_of_a_mean_is_that_of_resampled_questions() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0] * 20)
    found = mean_figure(values, resamples=4_000)
    draw = np.random.default_rng(1)
    means = [np.mean(draw.choice(values, len(values))) for _ in range(4_000)]
    assert found.value == pytest.approx(2 / 3)
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=0.01)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=0.01)
    assert found.questions == 120


def test_questions_to_which_a_score_does_not_apply_are_not_counted() -> None:
    values = np.array([1.0, math.nan, 0.0, math.nan])
    assert mean_figure(values)[::3] == (0.5, 2)
    empty = mean_figure(np.full(3, math.nan))
    assert math.isnan(empty.value)
    assert empty.questions == 0


def test_a_statistic_of_the_whole_set_is_computed_on_drawn_questions() -> None:
    values = np.arange(50) / 50
    found = figure(lambda numbers: float(np.mean(values[numbers])), 50, resamples=500)
    assert found == mean_figure(values, resamples=500)._replace(low=found.low, high=found.high)
    assert found.low < found.value < found.high
    assert found == figure(lambda numbers: float(np.mean(values[numbers])), 50, resamples=500), "the same seed"


def test_the_interval_of_a_statistic_that_resampling_enlarges_is_mirrored() -> None:
    """The absolute mean of noise around 0.05: its resamples are larger on average."""
    noise = np.random.default_rng(0).standard_normal(50) / 4
    values = noise - noise.mean() + 0.05
    how = {"statistic": lambda numbers: float(np.abs(np.mean(values[numbers]))), "questions": 50}
    plain, basic = figure(**how), figure(**how, basic=True)
    assert basic == plain._replace(
        low=0.1 - plain.high if plain.high < 0.1 else 0.0, high=pytest.approx(0.1 - plain.low)
    )
    assert basic.low <= basic.value <= basic.high


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scores_that_are_all_alike_have_an_interval_too(value: float) -> None:
    values = np.array([value] * 9 + [math.nan])
    assert score_figure(values) == rate_figure(values)
    mixed = np.array([value] * 9 + [1 - value])
    assert score_figure(mixed) == mean_figure(mixed)
    assert score_figure(np.full(3, 0.5)) == Figure(0.5, 0.5, 0.5, 3)
    assert math.isnan(score_figure(np.full(3, math.nan)).value)


@pytest.mark.parametrize("values", [[1.0] * 9, [0.0]])
def test_a_figure_without_spread_has_an_interval_of_one_value(values: list[float]) -> None:
    assert mean_figure(np.array(values)) == Figure(values[0], values[0], values[0], len(values))


@pytest.mark.parametrize(("ones", "count"), [(0, 5), (5, 5), (3, 40), (20, 41)])
def test_the_interval_of_a_rate_is_wilsons(ones: int, count: int) -> None:
    """The rates p0 from which the observed one is at most z standard errors away: (p - p0)^2 <= z^2 p0 (1 - p0) / n."""
    found = rate_figure(np.array([1.0] * ones + [0.0] * (count - ones) + [math.nan]))
    assert (found.value, found.questions) == (ones / count, count)
    for end in (found.low, found.high):
        assert (found.value - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count, abs=1e-7)
    assert found.low < found.high
    assert math.isnan(rate_figure(np.array([math.nan])).value)
