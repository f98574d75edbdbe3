"""The contrastive losses against float64 loops, values and gradients."""

import math
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
from rag_jax.core import contrastive
from suites import only

B, M, D = 3, 6, 4
seeds = st.integers(0, 2**32 - 1)
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)


class Problem(NamedTuple):
    """A random batch of vectors."""

    questions: np.ndarray  # [B, D]
    passages: np.ndarray  # [M, D]
    candidates: np.ndarray  # [B, M]
    log_q: np.ndarray  # [M]
    weights: np.ndarray  # [B], of each question's loss in the sum that is differentiated


def problem(seed: int) -> Problem:
    draw = np.random.default_rng(seed)
    candidates = draw.random((B, M)) < 0.7
    candidates[np.arange(B), np.arange(B)] = True
    arrays = (draw.standard_normal(shape).astype(np.float32) for shape in ((B, D), (M, D), (M,), (B,)))
    questions, passages, log_q, weights = arrays
    return Problem(questions, passages, candidates, log_q, weights)


problems = st.builds(problem, seeds)


def naive_scores(questions, passages, temperature=1.0) -> np.ndarray:
    found = np.zeros((len(questions), len(passages)))
    for i, j in np.ndindex(found.shape):
        found[i, j] = sum(float(a) * float(b) for a, b in zip(questions[i], passages[j], strict=True)) / temperature
    return found


def naive_loss(scores, candidates, log_q) -> np.ndarray:
    losses = []
    for i in range(len(scores)):
        weight = [math.exp(scores[i, j] - log_q[j]) for j in range(scores.shape[1])]
        losses.append(-math.log(weight[i] / sum(weight[j] for j in range(len(weight)) if candidates[i, j])))
    return np.array(losses)


def naive_symmetric_loss(scores, candidates, log_q) -> np.ndarray:
    forward = naive_loss(scores, candidates, log_q)
    backward = []
    for i in range(B):
        total = sum(math.exp(scores[k, i]) for k in range(B) if candidates[k, i])
        backward.append(-math.log(math.exp(scores[i, i]) / total))
    return np.array([(one + other) / 2 for one, other in zip(forward, backward, strict=True)])


def naive_cut(vectors, width: int, norm: float | None) -> np.ndarray:
    cut = [row[:width] for row in vectors]
    return np.array(cut if norm is None else [norm * row / math.sqrt(sum(row**2)) for row in cut])


def naive_objective(questions, passages, candidates, log_q, *, temperature, symmetric, widths, vector_norm):
    loss, losses = naive_symmetric_loss if symmetric else naive_loss, np.zeros(B)
    for width in widths or (D,):
        norm = vector_norm if widths else None
        cut = naive_cut(questions, width, norm), naive_cut(passages, width, norm)
        losses += loss(naive_scores(*cut, temperature), candidates, log_q) / max(1, len(widths))
    return losses


def slope(function, at: np.ndarray) -> np.ndarray:
    """The gradient of a float64 function by central differences."""
    at, found, step = at.astype(np.float64), np.zeros(at.shape), 1e-5
    for place in np.ndindex(at.shape):
        sides = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * step
            sides.append(function(moved))
        found[place] = (sides[0] - sides[1]) / (2 * step)
    return found


SETTINGS = {
    "plain": {"temperature": 1.0, "symmetric": False, "widths": (), "vector_norm": None},
    "temperature": {"temperature": 0.5, "symmetric": False, "widths": (), "vector_norm": None},
    "symmetric": {"temperature": 2.0, "symmetric": True, "widths": (), "vector_norm": None},
    "matryoshka": {"temperature": 1.0, "symmetric": False, "widths": (4, 2, 1), "vector_norm": None},
    "all": {"temperature": 0.5, "symmetric": True, "widths": (4, 3), "vector_norm": 1.5},
}


@cache
def differentiated(name: str):
    """The losses, and the gradient of their weighted sum with respect to both vectors."""
    objective = contrastive.objective(**SETTINGS[name])

    def total(questions, passages, candidates, log_q, weights):
        losses = objective(questions, passages, candidates, log_q)
        return jnp.sum(weights * losses), losses

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("name", only(["plain", "all"], SETTINGS))
@hypotheses.costly
@given(given=problems)
def test_losses_and_gradients_are_the_formulas(name, corrected, given):
    log_q = given.log_q if corrected else None
    gradient, losses = differentiated(name)(given.questions, given.passages, given.candidates, log_q, given.weights)
    assert losses.dtype == np.float32
    naive = partial(
        naive_objective, candidates=given.candidates, log_q=given.log_q if corrected else np.zeros(M), **SETTINGS[name]
    )
    close(losses, naive(given.questions.astype(np.float64), given.passages.astype(np.float64)))
    close(gradient[0], slope(lambda moved: given.weights @ naive(moved, given.passages.astype(np.float64)), given[0]))
    close(gradient[1], slope(lambda moved: given.weights @ naive(given.questions.astype(np.float64), moved), given[1]))


loss_of_scores = jax.jit(contrastive.contrastive_loss)
accuracy_of = jax.jit(contrastive.accuracy)


@hypotheses.costly
@given(problems)
def test_an_accidental_hit_has_exactly_no_gradient(given):
    candidates = given.candidates.copy()
    candidates[:, M - 1] = False
    (_, passages), _ = differentiated("plain")(given.questions, given.passages, candidates, None, given.weights)
    assert not np.any(passages[M - 1])
    assert np.any(passages[:B])


def test_an_accidental_hit_is_none_in_either_direction():
    given = problem(0)
    candidates = np.ones((B, M), bool)
    candidates[0, 1] = False
    scores = naive_scores(given.questions, given.passages).astype(np.float32)

    def total(scores, i):
        return contrastive.symmetric_loss(scores, candidates)[i]

    seen = np.stack([jax.grad(total)(scores, i) for i in range(B)])
    assert not np.any(seen[:, 0, 1])
    assert np.all(seen[0, 0, 2:] != 0)  # question 0 among the passages
    assert np.all(seen[1, [1, 2], 1] != 0)  # passage 1 among the questions


@hypotheses.costly
@given(problems)
def test_the_positive_is_always_a_candidate(given):
    scores = naive_scores(given.questions, given.passages).astype(np.float32)
    without = given.candidates.copy()
    without[np.arange(B), np.arange(B)] = False
    np.testing.assert_array_equal(loss_of_scores(scores, without), loss_of_scores(scores, given.candidates))
    assert accuracy_of(scores, without) == accuracy_of(scores, given.candidates)


@hypotheses.costly
@given(problems, st.floats(-20, 20, width=32))
def test_only_differences_of_log_q_count(given, shift):
    scores = naive_scores(given.questions, given.passages).astype(np.float32)
    shifted = loss_of_scores(scores, given.candidates, given.log_q + np.float32(shift))
    close(shifted, loss_of_scores(scores, given.candidates, given.log_q), atol=1e-4)


@pytest.mark.parametrize("corrected", [True, False])
def test_with_the_correction_the_best_scores_are_log_probabilities(corrected):
    """Of a question whose positive is drawn from p, beside a negative drawn from q: no gradient in the mean."""
    p, q = np.array([0.6, 0.3, 0.1], np.float32), np.array([0.2, 0.1, 0.7], np.float32)

    def mean_loss(scores):
        total = jnp.zeros(())
        for a in range(3):
            for b in range(3):
                pair = jnp.stack([scores[a], scores[b]])[None, :]
                log_q = jnp.log(jnp.stack([q[a], q[b]])) if corrected else None
                total += p[a] * q[b] * contrastive.contrastive_loss(pair, jnp.ones((1, 2), bool), log_q)[0]
        return total

    gradient = jax.jit(jax.grad(mean_loss))
    best = np.log(p) if corrected else np.log(p / q)
    close(gradient(best), np.zeros(3), atol=1e-6)
    assert np.abs(gradient(np.log(p / q) if corrected else np.log(p))).max() > 0.01


def test_scores_of_any_size_have_a_finite_loss():
    scores = np.array([[1e4, -1e4, 0], [3e4, -3e4, 1e3]], np.float32)
    close(loss_of_scores(scores, np.ones((2, 3), bool)), [0, 6e4])


def test_bfloat16_vectors_are_scored_in_float32():
    given = problem(1)
    narrow = given.questions.astype(jnp.bfloat16), given.passages.astype(jnp.bfloat16)
    seen = jax.jit(contrastive.scores)(*narrow)
    assert seen.dtype == np.float32
    close(seen, naive_scores(*narrow))


@hypotheses.costly
@given(problems)
def test_accuracy_is_the_share_of_positives_that_score_highest(given):
    scores = np.round(naive_scores(given.questions, given.passages)).astype(np.float32)  # with ties
    hits = [all(scores[i, i] > scores[i, j] for j in range(M) if j != i and given.candidates[i, j]) for i in range(B)]
    close(accuracy_of(scores, given.candidates), sum(hits) / B)


def test_a_collapsed_tower_has_an_accuracy_of_zero():
    assert accuracy_of(np.ones((B, M), np.float32), np.ones((B, M), bool)) == 0


def test_a_zero_vector_can_be_cut_and_normalised():
    given = problem(2)
    passages = np.zeros_like(given.passages)
    gradient, losses = differentiated("all")(given.questions, passages, given.candidates, None, given.weights)
    assert np.isfinite(losses).all()
    assert all(np.isfinite(each).all() for each in gradient)


@pytest.mark.parametrize("width", [0, D + 1])
def test_a_width_that_vectors_do_not_have_is_refused(width):
    given = problem(3)
    with pytest.raises(ValueError, match=f"vectors of width {D} cannot be cut to width {width}"):
        contrastive.objective(widths=(width,))(given.questions, given.passages, given.candidates)


def naive_margin_mse(scores, teacher, valid) -> np.ndarray:
    losses = []
    for s, t, there in zip(scores, teacher, valid, strict=True):
        margins = [(s[0] - s[j]) - (t[0] - t[j]) for j in range(1, len(s)) if there[0] and there[j]]
        losses.append(sum(margin**2 for margin in margins) / len(margins) if margins else 0.0)
    return np.array(losses)


@jax.jit
def margin_mse(scores, teacher, valid, weights):
    def total(scores):
        losses = contrastive.margin_mse(scores, teacher, valid)
        return jnp.sum(weights * losses), losses

    return jax.grad(total, has_aux=True)(scores)


@hypotheses.costly
@given(seeds)
def test_margin_mse_and_its_gradient_are_the_formula_whatever_is_not_valid(seed):
    draw = np.random.default_rng(seed)
    scores, teacher = draw.standard_normal((2, B, 4)).astype(np.float32)
    valid, weights = draw.random((B, 4)) < 0.7, draw.standard_normal(B).astype(np.float32)
    padded = np.where(valid, teacher, -np.inf).astype(np.float32)
    gradient, losses = margin_mse(scores, padded, valid, weights)
    close(losses, naive_margin_mse(scores.astype(np.float64), teacher, valid))
    close(gradient, slope(lambda moved: weights @ naive_margin_mse(moved, teacher, valid), scores))


@cache
def distilled(share: float):
    """The losses, and the gradient of their weighted sum with respect to both vectors, with a teacher."""
    objective = contrastive.objective(0.5, margin_mse_share=share)

    def total(questions, passages, candidates, teacher, weights):
        losses = objective(questions, passages, candidates, teacher=teacher)
        return jnp.sum(weights * losses), losses

    return jax.jit(jax.grad(total, (0, 1), has_aux=True))


@pytest.mark.parametrize("share", [0.3, 1.0])
@hypotheses.costly
@given(given=problems, seed=seeds)
def test_a_share_of_margin_mse_is_that_of_each_question_s_own_passages(share, given, seed):
    """Of B = 3 questions and M = 6 passages, passage 3 + i is the only hard negative of question i."""
    draw = np.random.default_rng(seed)
    teacher = draw.standard_normal((B, 2)).astype(np.float32)
    known = draw.random((B, 2)) < 0.8

    def naive(questions, passages):
        scores = naive_scores(questions, passages, 0.5)
        own = np.array([[scores[i, i], scores[i, B + i]] for i in range(B)])
        softmax = naive_loss(scores, given.candidates, np.zeros(M))
        return (1 - share) * softmax + share * naive_margin_mse(own, teacher, known)

    asked, read = given.questions.astype(np.float64), given.passages.astype(np.float64)
    labels = np.where(known, teacher, np.nan).astype(np.float32)
    gradient, losses = distilled(share)(given.questions, given.passages, given.candidates, labels, given.weights)
    close(losses, naive(asked, read))
    close(gradient[0], slope(lambda moved: given.weights @ naive(moved, read), asked))
    close(gradient[1], slope(lambda moved: given.weights @ naive(asked, moved), read))


def test_own_scores_are_the_positive_and_its_hard_negatives():
    scores = np.arange(2 * 8.0).reshape(2, 8)  # two questions with three hard negatives each
    assert contrastive.own_scores(scores).tolist() == [[0, 2, 3, 4], [9, 13, 14, 15]]
    assert contrastive.own_scores(scores[:, :2]).tolist() == [[0], [9]]


def test_margin_mse_without_a_teacher_is_an_error():
    given = problem(0)
    with pytest.raises(ValueError, match="without a teacher's scores"):
        contrastive.objective(margin_mse_share=0.5)(given.questions, given.passages, given.candidates)


def test_what_is_composed_is_an_objective():
    assert isinstance(contrastive.objective(), contrastive.ContrastiveObjective)
    assert isinstance(contrastive.objective(widths=(2,)), contrastive.ContrastiveObjective)
