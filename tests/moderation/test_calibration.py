"""Calibration: label likelihoods as probabilities."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import special

from rag_jax.errors import InputError
from rag_jax.moderation import calibration
from rag_jax.moderation.calibration import Calibration

SCORES = np.log(np.array([[0.02, 0.01, 0.001], [0.03, 0.0001, 0.01], [0.5, 0.1, 0.2]]))


def test_without_a_bias_the_labels_are_normalised():
    expected = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(Calibration()(SCORES), expected, rtol=1e-12)


@given(st.lists(st.floats(-20, 0), min_size=3, max_size=3))
def test_a_text_without_content_is_as_likely_in_every_category(row):
    free = calibration.content_free(np.array([row]))
    np.testing.assert_allclose(free(np.array([row])), np.full((1, 3), 1 / 3), rtol=1e-6)


def test_several_texts_without_content_are_averaged():
    mean = special.softmax(SCORES, axis=1).mean(axis=0)
    np.testing.assert_allclose(calibration.content_free(SCORES).bias, -np.log(mean), rtol=1e-12)


def labelled(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihoods that prefer the first label, and labels drawn from what they would be, were they fair."""
    draw = np.random.default_rng(0)
    fair = draw.normal(size=(count, 3))
    labels = [draw.choice(3, p=row) for row in special.softmax(2 * fair, axis=1)]
    return fair + np.array([3.0, 0.0, -1.0]), np.array(labels)


def test_a_fit_finds_the_scale_and_takes_the_preference_away():
    scores, labels = labelled(4_000)
    found = calibration.fit(scores, labels)
    assert found.bias is not None
    assert found.scale == pytest.approx(2.0, abs=0.2)
    np.testing.assert_allclose(np.array(found.bias) - found.bias[0], [0, 6, 8], atol=0.8)


def test_a_fit_is_at_the_maximum_of_the_likelihood():
    scores, labels = labelled()

    def likelihood(found: Calibration) -> float:
        return float(np.mean(np.log(found(scores)[np.arange(len(labels)), labels])))

    best = calibration.fit(scores, labels)
    assert best.bias is not None
    assert likelihood(best) > likelihood(Calibration())
    for change in np.eye(4) * 0.05:
        for sign in (-1, 1):
            moved = Calibration(best.scale + sign * change[3], tuple(np.array(best.bias) + sign * change[:3]))
            assert likelihood(moved) < likelihood(best)


def test_labels_that_the_scores_tell_apart_completely_keep_a_finite_fit():
    found = calibration.fit(np.array([[0.0, -9.0], [-9.0, 0.0]]), np.array([0, 1]))
    assert np.isfinite([found.scale, *(found.bias or ())]).all()


@pytest.mark.parametrize(("scale", "bias"), [(0.0, None), (-1.0, None), (float("nan"), None), (1.0, (0.0, np.inf))])
def test_a_calibration_that_would_hide_or_turn_the_scores_is_refused(scale, bias):
    with pytest.raises(InputError, match=r"give finite numbers, the scale above 0$"):
        Calibration(scale, bias)


def test_labels_that_do_not_follow_the_scores_are_refused():
    scores = np.array([[0.0, -4.0], [-4.0, 0.0]] * 10)
    with pytest.raises(InputError, match=r"^calibration: the labels do not follow the model's scores"):
        calibration.fit(scores, np.array([1, 0] * 10))
    with pytest.raises(InputError, match=r"^calibration: a text has a label of probability 0"):
        calibration.fit(np.array([[0.0, -np.inf], [-1.0, 0.0]]), np.array([0, 1]))


def test_a_category_without_a_text_is_refused():
    with pytest.raises(InputError, match=r"^calibration: category number 2 of 3 has no text; give one of each$"):
        calibration.fit(SCORES, np.array([0, 2, 0]))
