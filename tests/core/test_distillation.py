"""Distillation from the reader against loops in float64, and what of a training step each part of the loss trains."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import handmade
import hypotheses
import naive
from rag_jax.core import attention as attention_mass
from rag_jax.core import distillation, gradient, likelihood, training
from rag_jax.core.distillation import ReaderSignals
from rag_jax.core.reading import InputLayout
from rag_jax.types import Generator, RagParams, SearchResults

SHAPE = 3, 4, 3, 5
TAU, T = 0.7, 0.3
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5)
OBJECTIVES = {
    "emdr2": partial(distillation.emdr2, temperature=TAU),
    **{
        name: partial(getattr(distillation, name), temperature=TAU, teacher_temperature=T)
        for name in ("pdist", "loop", "adist", "lsr")
    },
}
objectives = pytest.mark.parametrize("name", list(OBJECTIVES))
problems = st.builds(naive.problem, st.integers(0, 2**32 - 1), st.just(SHAPE))


def attention(problem: naive.Problem) -> np.ndarray:
    """A distribution over the passages that exist, made of the problem's first logits."""
    mass = np.where(problem.valid, np.exp(problem.logits[:, :, 0, 0]), 0)
    return (mass / mass.sum(axis=1, keepdims=True)).astype(np.float32)


def signals_of(problem: naive.Problem, with_attention: bool = False) -> ReaderSignals:
    log_probs = jax.jit(likelihood.target_log_probs)(problem.logits, problem.targets)
    mass = jnp.asarray(attention(problem)) if with_attention else None
    return ReaderSignals(log_probs, jnp.asarray(problem.mask), mass)


@partial(jax.jit, static_argnums=0)
def _losses_and_gradients(name: str, problem: naive.Problem, mass):
    """Losses, and the gradients of their sum with respect to scores, log-probabilities and attention."""

    def total(scores, log_probs, mass):
        prior = likelihood.doc_log_prior(scores, problem.valid)
        each = OBJECTIVES[name](prior, ReaderSignals(log_probs, problem.mask, mass))
        return jnp.sum(each), each

    log_probs = likelihood.target_log_probs(problem.logits, problem.targets)
    gradients, each = jax.grad(total, (0, 1, 2), has_aux=True)(problem.scores, log_probs, mass)
    return each, gradients


def losses_and_gradients(name: str, problem: naive.Problem):
    return jax.device_get(_losses_and_gradients(name, problem, attention(problem)))


def naive_one(name: str, problem: naive.Problem, b: int) -> tuple[float, np.ndarray]:
    """The loss of question b and its derivative by each score: by hand, over the passages that exist."""
    existing = [k for k in range(SHAPE[1]) if problem.valid[b, k]]
    probs = naive.probabilities(problem.logits)[b]
    tokens = [t for t in range(SHAPE[2]) if problem.mask[b, t]]
    log_probs = {k: sum(np.log(probs[k, t, problem.targets[b, t]]) for t in tokens) for k in existing}
    prior = dict(zip(existing, naive.softmax(problem.scores[b, existing]), strict=True))
    retriever = dict(zip(existing, naive.softmax(problem.scores[b, existing] / np.float64(TAU)), strict=True))
    gradient = np.zeros(SHAPE[1])
    if name == "emdr2":
        likelihood = sum(retriever[k] * np.exp(log_probs[k]) for k in existing)
        for k in existing:
            gradient[k] = (retriever[k] - retriever[k] * np.exp(log_probs[k]) / likelihood) / TAU
        return -np.log(likelihood), gradient
    judgement = {}
    for k in existing:
        others = [j for j in existing if j != k]
        if name == "pdist":
            judgement[k] = log_probs[k] / len(tokens)
        if name == "loop":
            without = sum(prior[j] * np.exp(log_probs[j]) for j in others)
            judgement[k] = -np.log(without / sum(prior[j] for j in others)) / len(tokens) if others else 0.0
        if name == "adist":
            judgement[k] = np.log(np.float64(attention(problem)[b, k]))
        if name == "lsr":
            judgement[k] = log_probs[k]
    teacher = dict(zip(existing, naive.softmax([judgement[k] / T for k in existing]), strict=True))
    if name == "lsr":
        loss = sum(retriever[k] * np.log(retriever[k] / teacher[k]) for k in existing)
        for k in existing:
            gradient[k] = retriever[k] * (np.log(retriever[k] / teacher[k]) - loss) / TAU
        return loss, gradient
    for k in existing:
        gradient[k] = (retriever[k] - teacher[k]) / TAU
    return sum(teacher[k] * np.log(teacher[k] / retriever[k]) for k in existing if teacher[k]), gradient


@objectives
@hypotheses.costly
@given(problem=problems)
def test_loss_and_gradient_are_those_of_the_formula(name, problem):
    each, (by_score, by_log_prob, by_mass) = losses_and_gradients(name, problem)
    for b in range(SHAPE[0]):
        loss, gradient = naive_one(name, problem, b)
        close(each[b], loss)
        close(by_score[b], gradient)
    assert not np.any(by_log_prob), "the reader is a constant"
    assert not np.any(by_mass), "the attention is a constant"


@objectives
@hypotheses.costly
@given(problem=problems)
def test_a_missing_passage_is_one_that_was_never_there(name, problem):
    """Whatever its place in the arrays holds, neither losses nor gradients know."""
    missing = ~problem.valid
    logits = np.where(missing[:, :, None, None], problem.logits[:, ::-1] + 3 * problem.logits**2, problem.logits)
    other = problem._replace(logits=logits, scores=np.where(missing, np.float32(np.inf), problem.scores))
    each, (by_score, _, _) = jax.device_get(_losses_and_gradients(name, other, attention(problem)))
    expected, (gradient, _, _) = losses_and_gradients(name, problem)
    close(each, expected)
    close(by_score, gradient)
    assert not np.any(by_score[missing])


@objectives
def test_a_question_with_one_passage_or_none_or_without_target_has_no_gradient_or_a_finite_one(name):
    problem = naive.problem(3, SHAPE)
    valid = np.array([[True, False, False, False], [False] * 4, [True] * 4])
    problem = problem._replace(valid=valid, mask=np.array([[True] * 3, [True] * 3, [False] * 3]))
    mass = np.where(valid & problem.mask.any(axis=1, keepdims=True), 1 / np.maximum(1, valid.sum(1, keepdims=True)), 0)
    each, (by_score, _, _) = jax.device_get(_losses_and_gradients(name, problem, mass.astype(np.float32)))
    assert np.all(np.isfinite(each))
    assert np.all(np.isfinite(by_score))
    np.testing.assert_allclose(by_score[:2], 0, atol=1e-6)
    assert each[1] == 0


@objectives
@hypotheses.costly
@given(problem=problems)
def test_only_differences_of_scores_count(name, problem):
    """So the prior does as well as the scores."""
    moved = problem._replace(scores=problem.scores + np.float32(8))
    jax.tree.map(close, *(losses_and_gradients(name, each) for each in (problem, moved)))


def test_no_divergence_from_a_retriever_that_agrees_with_its_teacher():
    problem = naive.problem(5, SHAPE)._replace(valid=np.ones(SHAPE[:2], bool))
    signals = signals_of(problem, with_attention=True)
    agreeing = {
        "pdist": signals.sequence_log_probs / signals.lengths / T,
        "adist": jnp.log(signals.attention) / T,
        "lsr": signals.sequence_log_probs / T,
    }
    for name, scores in agreeing.items():
        close(OBJECTIVES[name](likelihood.doc_log_prior(scores * TAU), signals), np.zeros(SHAPE[0]), atol=1e-6)


def test_of_two_passages_leaving_one_out_is_the_perplexity_of_the_other():
    problem = naive.problem(6, (3, 2, 4, 5))._replace(valid=np.ones((3, 2), bool))
    signals = signals_of(problem)
    prior = likelihood.doc_log_prior(jnp.asarray(problem.scores))
    close(distillation.loop(prior, signals), distillation.pdist(prior, signals))


def test_attention_must_be_given():
    problem = naive.problem(0, SHAPE)
    signals = signals_of(problem)
    with pytest.raises(ValueError, match=r"^these signals hold no attention, which a decoder over all passages has$"):
        distillation.adist(likelihood.doc_log_prior(jnp.asarray(problem.scores)), signals)


# The training step, with a decoder that attends to one state per passage.


class Memory(NamedTuple):
    states: jax.Array  # [R, S, D]
    mask: jax.Array  # [R, S]


def encode(params, inputs, key=None) -> Memory:
    states = handmade.read_words(params, inputs)[:, None, :]
    return Memory(states, jnp.ones(states.shape[:2], bool))


def fuse(encoded: Memory, exists) -> Memory:
    return Memory(encoded.states.reshape(*exists.shape, -1), exists)


def attend(params, decoder_inputs, encoded: Memory):
    scores = jnp.einsum("RTD,RSD->RTS", params["word"][decoder_inputs], encoded.states)
    return jax.nn.softmax(jnp.where(encoded.mask[:, None, :], scores, jnp.finfo(scores.dtype).min), axis=2)


def decode(params, decoder_inputs, encoded: Memory, cache=None, place=None, key=None):
    read = jnp.einsum("RTS,RSD->RTD", attend(params, decoder_inputs, encoded), encoded.states)
    return jnp.tanh(read + params["word"][decoder_inputs]), None


GENERATOR = Generator(encode, decode, handmade.say_words, lambda rows, slots: None, fuse, attend)
LAYOUTS = {"token": InputLayout(8), "fid": InputLayout(8, fuses=True)}
layouts = pytest.mark.parametrize("model", list(LAYOUTS))


def recipe(model: str, name: str | None, weight: float = 1.0) -> training.Recipe:
    made, objective = handmade.recipe(), None if name is None else OBJECTIVES[name]
    networks = made.networks._replace(generator=GENERATOR)
    return made._replace(networks=networks, layout=LAYOUTS[model], distillation=objective, distillation_weight=weight)


def loss_and_gradient(made: training.Recipe) -> gradient.LossAndGradient:
    """Of the first step."""
    inputs = gradient.TrainingBatch(handmade.batch(), handmade.NO_GOLD, None)
    run = jax.jit(partial(gradient.loss_and_gradient, made))
    return jax.device_get(run(handmade.rag_params(), handmade.knowledge(), inputs, jax.random.key(4)))


@cache
def first(model: str, name: str | None, weight: float = 1.0) -> gradient.LossAndGradient:
    return loss_and_gradient(recipe(model, name, weight))


@pytest.mark.parametrize("model", ["token", pytest.param("fid", marks=pytest.mark.extended)])
def test_the_distillation_trains_the_question_tower_and_the_objective_the_generator(model):
    cases = (None,), ("pdist", 0.0), ("pdist",), ("pdist", 2.0)
    plain, without, with_it, twice = (first(model, *case) for case in cases)
    jax.tree.map(close, with_it.gradient.generator, plain.gradient.generator)
    jax.tree.map(np.testing.assert_array_equal, without.gradient.generator, with_it.gradient.generator)
    assert not np.any(without.gradient.question_tower)
    assert np.any(with_it.gradient.question_tower)
    close(twice.gradient.question_tower, 2 * with_it.gradient.question_tower)
    close(without.loss, plain.loss)
    close(twice.loss - plain.loss, 2 * (with_it.loss - plain.loss))
    close(np.mean(with_it.stats.distillation), with_it.loss - plain.loss)
    close(twice.stats.distillation, with_it.stats.distillation)
    assert plain.stats.distillation is None


def nothing(prior, logits, targets, mask):
    return jnp.zeros(len(targets))


@layouts
def test_the_log_probabilities_are_those_of_passages_read_one_by_one(model):
    """RAG-Token's loss of them is that of a step without a distillation."""

    def marginal(prior, signals):
        return -likelihood.rag_token(prior, signals.target_log_probs, signals.mask)

    made = recipe(model, None)._replace(objective=nothing, distillation=marginal)
    close(loss_and_gradient(made).loss, first("token", None).loss)


def test_the_attention_is_that_of_the_passages_that_were_read_together():
    made = recipe("fid", None)._replace(objective=nothing, distillation=lambda _, signals: signals.attention[:, 1])
    mass = partial(attention_mass.of_retrieved, made.networks, num_docs=handmade.K, layout=LAYOUTS["fid"])
    expected = jax.jit(mass)(handmade.rag_params(), handmade.knowledge(), handmade.batch())
    close(loss_and_gradient(made).loss, np.mean(expected[:, 1]))


def test_passages_that_are_not_read_together_have_no_attention():
    with pytest.raises(ValueError, match="hold no attention"):
        loss_and_gradient(recipe("token", "adist"))
    silent = recipe("fid", "adist")
    silent = silent._replace(networks=silent.networks._replace(generator=GENERATOR._replace(cross_attention=None)))
    with pytest.raises(ValueError, match="hold no attention"):
        loss_and_gradient(silent)


def test_several_passages_in_one_input_have_no_signals():
    joined = recipe("token", "pdist")._replace(layout=InputLayout(8, passages_per_input=2))
    with pytest.raises(ValueError, match=r"^a distillation needs passages that are read one by one, or fused"):
        loss_and_gradient(joined)


@pytest.mark.extended
def test_microbatches_have_the_gradient_of_the_whole():
    made = recipe("fid", "lsr")
    _, one, whole = handmade.one_step(made)
    _, other, parts = handmade.one_step(made._replace(num_microbatches=handmade.B))
    jax.tree.map(close, other, one)
    close(parts.loss, whole.loss)
    close(parts.distillation, whole.distillation)


@objectives
def test_descent_on_the_question_tower_brings_the_retriever_to_its_teacher(name):
    """Of the passages that it finds at first, with the generator as it is."""
    found = SearchResults(handmade.seen().retrieved.rows, None)
    made = recipe("fid", name)._replace(objective=nothing, trainable=only_the_tower)
    run = jax.jit(partial(training.train_step, made))
    state, losses = handmade.start(made), []
    for _ in range(20):
        state, metrics = run(state, handmade.knowledge(), handmade.batch(), handmade.NO_GOLD, found)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]
    assert np.any(state.params.question_tower != handmade.rag_params().question_tower)
    jax.tree.map(np.testing.assert_array_equal, state.params.generator, handmade.rag_params().generator)


def only_the_tower(params: RagParams) -> RagParams:
    return jax.tree.map(lambda _: False, params)._replace(question_tower=True)
