"""The objectives against float64 loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
from rag_jax.core import likelihood, losses

cases = hypotheses.costly
SHAPE = (3, 3, 4, 5)
problems = st.builds(naive.problem, st.integers(0, 2**32 - 1), st.just(SHAPE))
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)
MODELS = ["token", "sequence"]
SMOOTHING = [0.0, 0.1]


@partial(jax.jit, static_argnums=(0, 1))
def _losses_and_gradients(model: str, smoothing: float, problem: naive.Problem):
    objective = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}[model]

    def total(scores, logits):
        prior = likelihood.doc_log_prior(scores, problem.valid)
        each = objective(prior, logits, problem.targets, problem.mask, label_smoothing=smoothing)
        return jnp.sum(each), each

    gradients, each = jax.grad(total, (0, 1), has_aux=True)(problem.scores, problem.logits)
    return each, gradients


def loss(model: str, smoothing: float, problem: naive.Problem) -> np.ndarray:
    return jax.device_get(_losses_and_gradients(model, smoothing, problem)[0])


def gradients(model: str, smoothing: float, problem: naive.Problem) -> tuple[np.ndarray, np.ndarray]:
    """Of the summed losses, with respect to the scores and the logits."""
    return jax.device_get(_losses_and_gradients(model, smoothing, problem)[1])


def paper(problem: naive.Problem):
    prior, probs = naive.doc_prior(problem.scores, problem.valid), naive.probabilities(problem.logits)
    return prior, probs, problem.targets, problem.mask


@pytest.mark.parametrize("smoothing", SMOOTHING)
@hypotheses.costly
@given(problem=problems)
def test_token_loss_is_the_documented_formula(smoothing, problem):
    close(loss("token", smoothing, problem), naive.rag_token_loss(*paper(problem), smoothing))


@pytest.mark.parametrize("smoothing", SMOOTHING)
@hypotheses.costly
@given(problem=problems)
def test_sequence_loss_is_the_documented_formula(smoothing, problem):
    close(loss("sequence", smoothing, problem), naive.rag_sequence_loss(*paper(problem), smoothing))


@cases
@given(problems)
def test_without_smoothing_the_losses_are_negative_log_likelihoods(problem):
    close(loss("token", 0.0, problem), -naive.rag_token(*paper(problem)))
    close(loss("sequence", 0.0, problem), -naive.rag_sequence(*paper(problem)))


@cases
@given(problem=problems, seed=st.integers(0, 2**32 - 1))
def test_the_gradient_of_the_smoothing_of_tokens_is_that_of_its_formula(problem, seed):
    prior = likelihood.doc_log_prior(jnp.asarray(problem.scores), jnp.asarray(problem.valid))
    weights = jnp.asarray(np.random.default_rng(seed).standard_normal(problem.mask.shape), jnp.float32)

    def formula(prior, logits):
        return likelihood.marginal(prior, jax.nn.log_softmax(logits, axis=3)).sum(2)

    def gradients_of(function):
        return jax.grad(lambda *each: jnp.sum(weights * function(*each)), (0, 1))(prior, jnp.asarray(problem.logits))

    for ours, theirs in zip(gradients_of(losses.sum_of_log_marginals), gradients_of(formula), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize(("model", "share"), [("token", 0.2), ("sequence", 0.0)])
def test_label_smoothing_needs_no_second_array_over_the_vocabulary_under_each_passage(model, share):
    batch, k, length, vocabulary = 2, 5, 4, 5_000
    objective = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}[model]
    targets, mask = jnp.zeros((batch, length), jnp.int32), jnp.ones((batch, length), bool)

    def smoothed(prior, logits):
        return jnp.sum(objective(prior, logits, targets, mask, label_smoothing=0.1))

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((batch, k), (batch, k, length, vocabulary))]
    program = jax.jit(jax.value_and_grad(smoothed, (0, 1)), compiler_options={"xla_backend_optimization_level": 2})
    temporary = program.lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    assert temporary < (share + 0.1) * 4 * np.prod(shapes[1].shape)  # the marginal of RAG-Token has no axis K


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("model", MODELS)
@hypotheses.costly
@given(problem=problems)
def test_the_prior_counts_once_so_identical_passages_make_it_irrelevant(model, smoothing, problem):
    """A prior counted V times, once for each smoothed word, would not sum to one over the passages."""
    same = problem._replace(logits=np.repeat(problem.logits[:, :1], problem.logits.shape[1], axis=1))
    certain = same._replace(valid=np.arange(same.valid.shape[1])[None, :] == np.zeros((len(same.valid), 1)))
    close(loss(model, smoothing, same), loss(model, smoothing, certain))


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("model", MODELS)
@hypotheses.costly
@given(problem=problems)
def test_missing_passages_have_exactly_no_gradient(model, smoothing, problem):
    scores, logits = gradients(model, smoothing, problem)
    assert np.all(np.isfinite(scores))
    assert np.all(np.isfinite(logits))
    assert not np.any(scores[~problem.valid])
    assert not np.any(logits[~problem.valid])


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("model", MODELS)
@hypotheses.costly
@given(problem=problems)
def test_a_question_without_any_passage_teaches_nothing_and_leaves_the_others_alone(model, smoothing, problem):
    valid = problem.valid.copy()
    valid[0] = False
    empty = problem._replace(valid=valid)
    before, after = loss(model, smoothing, problem), loss(model, smoothing, empty)
    assert np.isposinf(after[0])
    np.testing.assert_array_equal(before[1:], after[1:])
    for old, new in zip(gradients(model, smoothing, problem), gradients(model, smoothing, empty), strict=True):
        assert not np.any(new[0])
        np.testing.assert_array_equal(old[1:], new[1:])


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("model", MODELS)
@hypotheses.costly
@given(problem=problems, seed=st.integers(0, 2**32 - 1))
def test_padded_targets_change_neither_value_nor_gradient(model, smoothing, problem, seed):
    other = naive.problem(seed, SHAPE)
    changed = problem._replace(
        targets=np.where(problem.mask, problem.targets, other.targets),
        logits=np.where(problem.mask[:, None, :, None], problem.logits, other.logits),
    )
    np.testing.assert_array_equal(loss(model, smoothing, problem), loss(model, smoothing, changed))
    scores, logits = gradients(model, smoothing, problem)
    np.testing.assert_array_equal(scores, gradients(model, smoothing, changed)[0])
    assert not np.any(np.where(problem.mask[:, None, :, None], 0, logits))


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_logits_give_a_float32_loss(model):
    problem = naive.problem(0, SHAPE)
    half = problem._replace(logits=problem.logits.astype(jnp.bfloat16))
    seen = loss(model, SMOOTHING[-1], half)
    assert seen.dtype == np.float32
    close(seen, loss(model, SMOOTHING[-1], half._replace(logits=half.logits.astype(np.float32))))


def test_the_losses_are_objectives():
    assert isinstance(losses.rag_token_loss, losses.Objective)
    assert isinstance(losses.rag_sequence_loss, losses.Objective)
