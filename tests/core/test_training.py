"""The training step with networks small enough to know their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import naive
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.core import losses, training
from rag_jax.types import Batch, Generator, Knowledge, Networks, RagParams, Tokens

B, K, N, D, V, T = 3, 3, 12, 4, 11, 4
OBJECTIVES = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
models = pytest.mark.parametrize("model", list(OBJECTIVES))


def bag_of_words(embedding, tokens, key=None):
    """The mean of the tokens' embeddings."""
    weights = tokens.mask.astype(jnp.float32) / tokens.lengths[:, None].astype(jnp.float32)
    return jnp.einsum("RL,RLD->RD", weights, embedding[tokens.ids])


def noisy_bag_of_words(embedding, tokens, key=None):
    """The same with dropout of a kind: noise wherever there is a key."""
    mean = bag_of_words(embedding, tokens)
    return mean if key is None else mean + jax.random.normal(key, mean.shape)


def identity(queries, tokens, key=None):
    """A tower whose parameters are the questions' vectors."""
    return queries


def read_words(params, inputs, key=None):
    return bag_of_words(params["word"], inputs)


def say_words(params, decoder_inputs, memory, cache=None, key=None):
    return jnp.tanh(memory[:, None, :] + params["word"][decoder_inputs]) @ params["out"], None


GENERATOR = Generator(read_words, say_words, lambda rows, length: None)


def recipe(model="token", tower=bag_of_words, optimizer=None, num_docs=K, smoothing=0.0) -> training.Recipe:
    objective = partial(OBJECTIVES[model], label_smoothing=smoothing)
    return training.Recipe(Networks(tower, GENERATOR), objective, optimizer or optax.sgd(1.0), num_docs, 8)


def tokens(draw: np.random.Generator, *shape: int) -> Tokens:
    ids = draw.integers(0, V, shape).astype(np.int32)
    lengths = draw.integers(1, shape[-1] + 1, shape[:-1]).astype(np.int32)
    return Tokens(jnp.array(ids), jnp.array(lengths))


def normal(draw: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.array(draw.standard_normal(shape).astype(np.float32))


def knowledge(seed: int = 0, count: int = N) -> Knowledge:
    draw = np.random.default_rng(seed)
    return Knowledge(normal(draw, count, D), tokens(draw, count, 5))


def batch(seed: int = 1, question_length: int = 4) -> Batch:
    draw = np.random.default_rng(seed)
    target = tokens(draw, B, T)
    inputs = np.roll(target.ids, 1, axis=1)
    inputs[:, 0] = 0
    return Batch(tokens(draw, B, question_length), tokens(draw, B, 3), jnp.array(inputs), target.ids, target.mask)


def rag_params(seed: int = 2, question_tower: jax.Array | None = None) -> RagParams:
    draw = np.random.default_rng(seed)
    generator = {"word": normal(draw, V, D), "out": normal(draw, D, V)}
    return RagParams(normal(draw, V, D) if question_tower is None else question_tower, generator)


def start(made_of: training.Recipe, **changed) -> training.TrainState:
    return training.init(made_of, rag_params(**changed), jax.random.key(3))


NO_GOLD = jnp.full((B, 1), -1, jnp.int32)


def step(made_of: training.Recipe):
    return jax.jit(partial(training.train_step, made_of))


def one_step(made_of: training.Recipe, known: Knowledge | None = None, positives=NO_GOLD, **changed):
    """Parameters before and after, and the metrics."""
    state = start(made_of, **changed)
    after, metrics = step(made_of)(state, knowledge() if known is None else known, batch(), positives)
    return state.params, after.params, metrics


def difference(before, after):
    return jax.tree.map(lambda old, new: np.asarray(old) - np.asarray(new), before, after)


def seen_by(made_of: training.Recipe, params: RagParams) -> training.Forward:
    return jax.jit(partial(training.forward, made_of))(params, knowledge(), batch())


@models
def test_training_lowers_the_loss(model):
    made_of = recipe(model, optimizer=optax.adam(0.02))
    state, train = start(made_of), step(made_of)
    seen = []
    for _ in range(25):
        state, metrics = train(state, knowledge(), batch(), NO_GOLD)
        seen.append(float(metrics.loss))
    assert seen[-1] < 0.8 * seen[0]


@models
def test_the_tower_learns_posterior_minus_prior_of_each_passages_vector(model):
    made_of = recipe(model, identity)
    before, after, _ = one_step(made_of, question_tower=normal(np.random.default_rng(4), B, D))
    seen, target = seen_by(made_of, before), batch()
    prior, probs = naive.doc_prior(np.array(seen.retrieved.scores)), naive.probabilities(np.array(seen.logits))
    mask = np.array(target.target_mask)
    if model == "sequence":
        wanted = naive.sequence_posterior(prior, probs, np.array(target.targets), mask) - prior
    else:
        posterior = naive.token_posterior(prior, probs, np.array(target.targets), mask)
        wanted = np.sum((posterior - prior[:, :, None]) * mask[:, None, :], axis=2)
    vectors = np.array(knowledge().vectors)[np.array(seen.retrieved.ids)]
    for b in range(B):
        pull = sum(wanted[b, k] * vectors[b, k] for k in range(K))
        close((after.question_tower - before.question_tower)[b], pull / B)


@models
def test_a_frozen_tower_stays_while_the_generator_learns(model):
    moved = difference(*one_step(recipe(model, training.frozen(bag_of_words)))[:2])
    assert not np.any(moved.question_tower)
    assert np.any(moved.generator["word"])


def test_a_frozen_tower_has_no_dropout(key):
    question = batch().question
    noisy = noisy_bag_of_words(rag_params().question_tower, question, key)
    still = training.frozen(noisy_bag_of_words)(rag_params().question_tower, question, key)
    np.testing.assert_array_equal(still, bag_of_words(rag_params().question_tower, question))
    assert np.any(noisy != still)


def test_the_index_is_a_constant():
    def loss(vectors):
        known = knowledge()._replace(vectors=vectors)
        return jnp.sum(training.eval_step(recipe(), rag_params(), known, batch()))

    assert not np.any(jax.jit(jax.grad(loss))(knowledge().vectors))


@models
def test_asking_for_more_passages_than_exist_is_asking_for_all(model):
    few = knowledge(count=2)
    _, all_of_them, expected = one_step(recipe(model, num_docs=2, smoothing=0.1), few)
    _, more, seen = one_step(recipe(model, num_docs=4, smoothing=0.1), few)
    jax.tree.map(close, more, all_of_them)
    jax.tree.map(close, seen._replace(recall=0.0), expected._replace(recall=0.0))


@models
def test_eval_is_the_papers_log_likelihood(model):
    made_of, target = recipe(model), batch()
    seen = seen_by(made_of, rag_params())
    prior, probs = naive.doc_prior(np.array(seen.retrieved.scores)), naive.probabilities(np.array(seen.logits))
    paper = {"token": naive.rag_token, "sequence": naive.rag_sequence}[model]
    expected = paper(prior, probs, np.array(target.targets), np.array(target.target_mask))
    close(jax.jit(partial(training.eval_step, made_of))(rag_params(), knowledge(), target), expected)


def test_eval_is_minus_the_objective_whatever_that_is():
    made_of = recipe()._replace(objective=lambda prior, logits, targets, mask: targets[:, 0].astype(jnp.float32))
    np.testing.assert_array_equal(
        training.eval_step(made_of, rag_params(), knowledge(), batch()), -batch().targets[:, 0].astype(jnp.float32)
    )


@models
def test_the_loss_is_told_in_nats_per_target_token(model):
    _, _, metrics = one_step(recipe(model))
    log_probs = jax.jit(partial(training.eval_step, recipe(model)))(rag_params(), knowledge(), batch())
    close(metrics.loss, -np.sum(log_probs) / np.sum(batch().target_mask))


def test_the_gradients_norm_is_told_before_clipping():
    moved = difference(*one_step(recipe())[:2])  # the gradient itself, at a learning rate of one
    clip = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    before, after, metrics = one_step(recipe(optimizer=clip))
    close(metrics.grad_norm, optax.tree.norm(moved))
    close(optax.tree.norm(difference(before, after)), 1e-3, atol=1e-7, rtol=1e-2)


def test_the_priors_entropy_is_told():
    _, _, metrics = one_step(recipe())
    prior = naive.doc_prior(np.array(seen_by(recipe(), rag_params()).retrieved.scores))
    close(metrics.prior_entropy, np.mean([-sum(p * np.log(p) for p in row) for row in prior]))


def test_entropy_of_certainty_is_zero_and_of_a_uniform_prior_log_k():
    log_probs = jnp.log(jnp.array([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]))
    close(training.entropy(log_probs), np.log([1, 4, 2]))


golds = st.lists(st.integers(0, 8), max_size=3)
found = st.lists(st.integers(0, 8), min_size=4, max_size=4, unique=True)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(golds, found, st.integers(0, 4)), min_size=3, max_size=3))
def test_recall_is_the_share_of_answerable_questions_with_a_gold_passage(questions):
    positives = np.array([gold + [-1] * (3 - len(gold)) for gold, _, _ in questions], np.int32)
    ids = np.array([ids[:some] + [-1] * (4 - some) for _, ids, some in questions], np.int32)
    hits = [bool(set(gold) & set(ids[:some])) for gold, ids, some in questions if gold]
    close(jax.jit(training.recall)(ids, positives), np.mean(hits) if hits else np.nan)


def test_the_step_tells_the_recall_of_what_it_retrieved():
    ids = np.array(seen_by(recipe(), rag_params()).retrieved.ids)
    elsewhere = next(n for n in range(N) if n not in ids[1])
    positives = jnp.array([[ids[0, K - 1], -1], [elsewhere, -1], [-1, -1]], jnp.int32)
    assert one_step(recipe(), positives=positives)[2].recall == 1 / 2


def test_each_step_draws_its_own_dropout_and_nothing_else_is_random():
    made_of = recipe(tower=noisy_bag_of_words, optimizer=optax.sgd(0.0))
    state, train = start(made_of), step(made_of)
    second, first_metrics = train(state, knowledge(), batch(), NO_GOLD)
    _, again = train(state, knowledge(), batch(), NO_GOLD)
    _, second_metrics = train(second, knowledge(), batch(), NO_GOLD)
    assert first_metrics.loss == again.loss
    assert first_metrics.loss != second_metrics.loss


def test_a_step_counts_itself_and_keeps_its_key():
    state = start(recipe())
    after, _ = step(recipe())(state, knowledge(), batch(), NO_GOLD)
    assert (int(state.step), int(after.step)) == (0, 1)
    assert after.key == state.key


def test_every_bucket_is_compiled_once():
    compiled = []

    def counted(params, question, key=None):
        compiled.append(question.ids.shape)
        return bag_of_words(params, question, key)

    made_of = recipe(tower=counted, optimizer=optax.adam(0.1))
    state, train = start(made_of), step(made_of)
    for seed in range(5):
        state, _ = train(state, knowledge(seed), batch(seed), NO_GOLD)
    assert compiled == [(B, 4)]
    for seed in range(2):
        state, _ = train(state, knowledge(seed), batch(seed, question_length=6), NO_GOLD)
    assert compiled == [(B, 4), (B, 6)]
    assert train._cache_size() == 2
