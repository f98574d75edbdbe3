"""The marginal likelihoods against float64 loops, and what must hold of them whatever the numbers."""

import doctest
import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
from rag_jax.core import likelihood

SHAPES = [(2, 3, 4, 5), (3, 2, 3, 7)]  # B, K, T, V
cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from(SHAPES)
problems = st.builds(naive.problem, seeds, shapes)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
MODELS = ["token", "sequence"]


class Marginals(NamedTuple):
    prior: jax.Array
    token: jax.Array
    sequence: jax.Array
    token_posterior: jax.Array
    sequence_posterior: jax.Array


@jax.jit
def _marginals(problem: naive.Problem) -> Marginals:
    prior = likelihood.doc_log_prior(problem.scores, problem.valid)
    chosen = likelihood.target_log_probs(problem.logits, problem.targets)
    return Marginals(
        prior,
        likelihood.rag_token(prior, chosen, problem.mask),
        likelihood.rag_sequence(prior, chosen, problem.mask),
        likelihood.token_doc_posterior(prior, chosen, problem.mask),
        likelihood.sequence_doc_posterior(prior, chosen, problem.mask),
    )


@jax.jit
def _gradients(problem: naive.Problem) -> dict[str, tuple[jax.Array, jax.Array]]:
    def total(scores, logits, model):
        return jnp.sum(getattr(_marginals(problem._replace(scores=scores, logits=logits)), model))

    return {model: jax.grad(total, (0, 1))(problem.scores, problem.logits, model) for model in MODELS}


_prior = jax.jit(likelihood.doc_log_prior)
_log_probs = jax.jit(likelihood.target_log_probs)
_marginal = jax.jit(likelihood.marginal)


@jax.jit
def _marginal_gradient(prior, log_probs, weights):
    """Of a weighted sum over those marginals that are not impossible."""

    def total(prior, log_probs):
        found = likelihood.marginal(prior, log_probs)
        return jnp.sum(jnp.where(jnp.isneginf(found), 0.0, weights * found))

    return jax.grad(total, (0, 1))(prior, log_probs)


def marginals(problem: naive.Problem) -> Marginals:
    return jax.device_get(_marginals(problem))


def gradients(model: str, problem: naive.Problem) -> tuple[np.ndarray, np.ndarray]:
    """Of each question's log-likelihood, with respect to the scores and the logits."""
    return jax.device_get(_gradients(problem))[model]


def paper(problem: naive.Problem):
    return naive.doc_prior(problem.scores, problem.valid), naive.probabilities(problem.logits)


def permuted(problem: naive.Problem, seed: int) -> naive.Problem:
    order = np.random.default_rng(seed).permutation(problem.scores.shape[1])
    return problem._replace(
        scores=problem.scores[:, order], valid=problem.valid[:, order], logits=problem.logits[:, order]
    )


@cases
@given(problems)
def test_every_quantity_is_the_papers_formula(problem):
    prior, probs = paper(problem)
    seen = marginals(problem)
    close(np.exp(seen.prior), prior)
    close(seen.token, naive.rag_token(prior, probs, problem.targets, problem.mask))
    close(seen.sequence, naive.rag_sequence(prior, probs, problem.targets, problem.mask))
    close(seen.token_posterior, naive.token_posterior(prior, probs, problem.targets, problem.mask))
    close(seen.sequence_posterior, naive.sequence_posterior(prior, probs, problem.targets, problem.mask))


def mixture(seed: int, rest: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A prior `[B, K]` and log-probabilities `[B, K, *rest]`; some are -inf, for the last question the whole prior."""
    draw = np.random.default_rng(seed)
    problem = naive.problem(seed, (3, 3, 1, 2))
    log_probs = np.where(draw.random((3, 3, *rest)) < 0.3, -np.inf, -draw.exponential(2.0, (3, 3, *rest)))
    problem.valid[2] = False
    return jax.device_get(_prior(problem.scores, problem.valid)), log_probs.astype(np.float32)


rests = pytest.mark.parametrize("rest", [(), (5,), (2, 4)])


@rests
@cases
@given(seed=seeds)
def test_the_marginal_is_the_priors_mean_of_the_probabilities_whatever_they_range_over(rest, seed):
    prior, log_probs = mixture(seed, rest)
    found = _marginal(prior, log_probs)
    assert found.shape == (3, *rest)
    p, probs = np.exp(prior.astype(np.float64)), np.exp(log_probs.astype(np.float64))
    for b, *where in np.ndindex(3, *rest):
        expected = sum(p[b, k] * probs[(b, k, *where)] for k in range(3))
        if expected == 0:
            assert np.isneginf(found[(b, *where)])
        else:
            close(found[(b, *where)], np.log(expected))


@rests
@cases
@given(seed=seeds)
def test_the_marginals_gradient_is_the_posterior_and_nothing_where_it_is_impossible(rest, seed):
    prior, log_probs = mixture(seed, rest)
    weights = np.random.default_rng(seed + 1).standard_normal((3, *rest)).astype(np.float32)
    by_prior, by_log_probs = _marginal_gradient(prior, log_probs, weights)
    p, probs = np.exp(prior.astype(np.float64)), np.exp(log_probs.astype(np.float64))
    expected = np.zeros(log_probs.shape)
    for b, *where in np.ndindex(3, *rest):
        joint = np.array([p[b, k] * probs[(b, k, *where)] for k in range(3)])
        if joint.sum() > 0:
            expected[(b, slice(None), *where)] = weights[(b, *where)] * joint / joint.sum()
    close(by_log_probs, expected)
    close(by_prior, expected.reshape(3, 3, -1).sum(axis=2))


@cases
@given(seeds)
def test_scores_of_dprs_size_keep_their_gaps(seed):
    scores = np.float32(75) + np.random.default_rng(seed).standard_normal((2, 5)).astype(np.float32)
    prior = np.exp(_prior(scores))
    np.testing.assert_allclose(prior, naive.doc_prior(scores), rtol=75 * np.finfo(np.float32).eps)


@cases
@given(seeds)
def test_with_one_passage_both_models_are_plain_seq2seq(seed):
    problem = naive.problem(seed, (3, 1, 4, 5))
    plain = naive.seq2seq(naive.probabilities(problem.logits)[:, 0], problem.targets, problem.mask)
    close(marginals(problem).token, plain)
    close(marginals(problem).sequence, plain)


@cases
@given(seeds)
def test_for_one_target_token_the_models_agree(seed):
    seen = marginals(naive.problem(seed, (3, 4, 1, 6)))
    close(seen.token, seen.sequence)
    close(seen.token_posterior[:, :, 0], seen.sequence_posterior)


@cases
@given(problems)
def test_identical_passages_make_the_prior_irrelevant(problem):
    same = problem._replace(logits=np.repeat(problem.logits[:, :1], problem.logits.shape[1], axis=1))
    plain = naive.seq2seq(naive.probabilities(same.logits)[:, 0], same.targets, same.mask)
    close(marginals(same).token, plain)
    close(marginals(same).sequence, plain)


@cases
@given(problems, seeds)
def test_the_order_of_the_passages_does_not_matter(problem, seed):
    seen, other = marginals(problem), marginals(permuted(problem, seed))
    close(seen.token, other.token)
    close(seen.sequence, other.sequence)


@cases
@given(problems, st.integers(-100, 100))
def test_shifting_all_scores_changes_nothing(problem, shift):
    shifted = marginals(problem._replace(scores=problem.scores + np.float32(shift)))
    for seen, other in zip(marginals(problem), shifted, strict=True):
        np.testing.assert_allclose(seen, other, rtol=1e-5, atol=1e-4)  # the scores' own rounding at 100, T times


@cases
@given(problems)
def test_sequence_scores_learn_posterior_minus_prior(problem):
    prior, probs = paper(problem)
    posterior = naive.sequence_posterior(prior, probs, problem.targets, problem.mask)
    close(gradients("sequence", problem)[0], posterior - prior)


@cases
@given(problems)
def test_token_scores_learn_posterior_minus_prior_of_every_token(problem):
    prior, probs = paper(problem)
    posterior = naive.token_posterior(prior, probs, problem.targets, problem.mask)
    close(gradients("token", problem)[0], np.sum((posterior - prior[:, :, None]) * problem.mask[:, None, :], axis=2))


@cases
@given(seeds)
def test_the_likelihoods_of_all_answers_sum_to_one(seed):
    words, docs = 3, 2
    draw = np.random.default_rng(seed)
    first = draw.standard_normal((docs, words)).astype(np.float32)
    second = draw.standard_normal((docs, words, words)).astype(np.float32)  # given the first word
    answers = np.array(list(itertools.product(range(words), repeat=2)), np.int32)
    logits = np.stack([np.stack([first, second[:, a]], axis=1) for a, _ in answers])
    scores = np.repeat(draw.standard_normal((1, docs)).astype(np.float32), len(answers), axis=0)
    every = np.ones((len(answers), docs), bool), np.ones((len(answers), 2), bool)
    seen = marginals(naive.Problem(scores, every[0], logits, answers, every[1]))
    close(np.exp(seen.token).sum(), 1.0)
    close(np.exp(seen.sequence).sum(), 1.0)


@cases
@given(problems)
def test_posteriors_sum_to_one_on_tokens_and_vanish_on_padding(problem):
    seen = marginals(problem)
    close(seen.sequence_posterior.sum(axis=1), np.ones(len(problem.mask)))
    close(seen.token_posterior.sum(axis=1), problem.mask.astype(np.float32))
    assert not np.any(np.where(problem.mask[:, None, :], 0, seen.token_posterior))


@cases
@given(problems)
def test_missing_passages_have_no_prior_and_no_posterior(problem):
    seen = marginals(problem)
    assert np.all(np.isneginf(seen.prior) == ~problem.valid)
    assert not np.any(seen.sequence_posterior[~problem.valid])
    assert not np.any(seen.token_posterior[~problem.valid])


@pytest.mark.parametrize("model", MODELS)
@cases
@given(problem=problems)
def test_missing_passages_have_exactly_no_gradient(model, problem):
    scores, logits = gradients(model, problem)
    assert np.all(np.isfinite(scores))
    assert np.all(np.isfinite(logits))
    assert not np.any(scores[~problem.valid])
    assert not np.any(logits[~problem.valid])


@cases
@given(problems, seeds)
def test_a_missing_passage_may_hold_anything(problem, seed):
    other = naive.problem(seed, problem.logits.shape)
    scores = np.where(problem.valid, problem.scores, other.scores)
    logits = np.where(problem.valid[:, :, None, None], problem.logits, other.logits)
    changed = marginals(problem._replace(scores=scores, logits=logits))
    for seen, other_seen in zip(marginals(problem), changed, strict=True):
        np.testing.assert_array_equal(seen, other_seen)


@pytest.mark.parametrize("model", MODELS)
@cases
@given(problem=problems)
def test_a_question_without_any_passage_is_impossible_and_leaves_the_others_alone(model, problem):
    valid = problem.valid.copy()
    valid[0] = False
    empty = problem._replace(valid=valid)
    before, after = marginals(problem), marginals(empty)
    assert np.isneginf(getattr(after, model)[0])
    assert np.all(np.isneginf(after.prior[0]))
    assert not np.any(after.sequence_posterior[0])
    assert not np.any(after.token_posterior[0])
    np.testing.assert_array_equal(getattr(before, model)[1:], getattr(after, model)[1:])
    for old, new in zip(gradients(model, problem), gradients(model, empty), strict=True):
        assert not np.any(new[0])
        np.testing.assert_array_equal(old[1:], new[1:])


@pytest.mark.parametrize("model", MODELS)
@cases
@given(problem=problems, seed=seeds)
def test_padded_targets_change_neither_value_nor_gradient(model, problem, seed):
    other = naive.problem(seed, problem.logits.shape)
    targets = np.where(problem.mask, problem.targets, other.targets)
    logits = np.where(problem.mask[:, None, :, None], problem.logits, other.logits)
    changed = problem._replace(targets=targets, logits=logits)
    np.testing.assert_array_equal(getattr(marginals(problem), model), getattr(marginals(changed), model))
    scores, by_logits = gradients(model, problem)
    np.testing.assert_array_equal(scores, gradients(model, changed)[0])
    assert not np.any(np.where(problem.mask[:, None, :, None], 0, by_logits))


@cases
@given(seeds)
def test_a_question_alone_is_what_it_is_in_the_batch(seed):
    problem = naive.problem(seed, SHAPES[0])
    together = marginals(problem)
    for row in range(len(problem.scores)):
        alone = marginals(naive.Problem(*(each[row : row + 1] for each in problem)))
        for seen, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(seen[row], other[0], rtol=1e-6, atol=1e-6)


@cases
@given(problems)
def test_bfloat16_logits_are_reduced_in_float32(problem):
    half = problem.logits.astype(jnp.bfloat16)
    seen = _log_probs(half, problem.targets)
    assert seen.dtype == jnp.float32
    np.testing.assert_array_equal(seen, _log_probs(half.astype(np.float32), problem.targets))


def test_bfloat16_scores_give_a_float32_prior():
    assert _prior(np.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


def test_the_prior_takes_every_passage_for_existing_by_default():
    scores = naive.problem(0, (2, 3, 1, 2)).scores
    close(np.exp(_prior(scores)), naive.doc_prior(scores))


def test_the_documented_examples_are_true():
    result = doctest.testmod(likelihood)
    assert result.attempted > 0
    assert result.failed == 0


@cases
@given(seeds)
def test_the_gradient_of_log_probabilities_is_that_of_their_formula(seed: int) -> None:
    draw = np.random.default_rng(seed)
    logits = jnp.asarray(3 * draw.standard_normal((2, 3, 4, 7)), jnp.float32)
    targets, weights = (
        jnp.asarray(draw.integers(0, 7, (2, 4))),
        jnp.asarray(draw.standard_normal((2, 3, 4)), jnp.float32),
    )

    def formula(logits):
        every = jax.nn.log_softmax(logits, axis=3)
        return jnp.sum(weights * jnp.take_along_axis(every, targets[:, None, :, None], axis=3)[..., 0])

    ours = jax.grad(lambda logits: jnp.sum(weights * likelihood.target_log_probs(logits, targets)))(logits)
    close(ours, jax.grad(formula)(logits))


def test_nothing_in_float32_over_the_vocabulary_is_kept_for_the_gradient() -> None:
    like = jax.ShapeDtypeStruct((2, 3, 4, 7), jnp.bfloat16), jax.ShapeDtypeStruct((2, 4), jnp.int32)
    _, backward = jax.eval_shape(lambda *given: jax.vjp(likelihood.target_log_probs, *given), *like)
    assert [leaf.dtype for leaf in jax.tree.leaves(backward) if leaf.shape == (2, 3, 4, 7)] == [jnp.bfloat16]


def test_a_loss_and_its_gradient_need_no_second_array_over_the_vocabulary() -> None:
    shape = 2, 3, 4, 5_000
    given = jax.ShapeDtypeStruct(shape[:2], jnp.float32), jax.ShapeDtypeStruct(shape, jnp.float32)

    def loss(prior, logits):
        chosen = likelihood.target_log_probs(logits, jnp.zeros((2, 4), jnp.int32))
        return jnp.sum(likelihood.rag_token(prior, chosen, jnp.ones((2, 4), bool)))

    program = jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options={"xla_backend_optimization_level": 2})
    temporary = program.lower(*given).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 0.1 * 4 * np.prod(shape)
