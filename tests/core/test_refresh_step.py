"""The training step of both towers: its gradient by finite differences of the paper's formulas, and its memory."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import naive
from handmade import (
    NO_GOLD,
    RATE,
    B,
    D,
    K,
    N,
    V,
    bag_of_words,
    batch,
    close,
    forward,
    knowledge,
    models,
    noisy_bag_of_words,
    normal,
    rag_params,
    recipe,
    tokens,
)
from rag_jax.core import refresh, training
from rag_jax.core.refresh import Refresh, new_index
from rag_jax.core.training import TrainState
from rag_jax.types import Knowledge, RagParams, SearchResults, Tokens
from suites import first

MARGINALS = {"token": naive.rag_token, "sequence": naive.rag_sequence}


def params(width: int = D) -> RagParams:
    draw = np.random.default_rng(11)
    return rag_params()._replace(question_tower=normal(draw, V, width), passage_tower=normal(draw, V, width))


def known() -> Knowledge:
    """No vectors: those of the state are searched."""
    no_vectors = np.zeros((0, D), np.float32)
    return knowledge()._replace(passage_vectors=no_vectors, tower_tokens=tokens(np.random.default_rng(12), N, 6))


def both_towers(model: str = "token", every: int | None = None, num_candidates: int | None = None) -> training.Recipe:
    return recipe(model)._replace(refresh=Refresh(bag_of_words, bag_of_words, every, num_candidates=num_candidates))


def begun(made_of: training.Recipe, given: RagParams, vectors: np.ndarray) -> TrainState:
    return training.init(made_of, given, jax.random.key(3))._replace(refreshed=new_index(jnp.asarray(vectors)))


def encoded(tower: np.ndarray, read: Tokens) -> np.ndarray:
    rows = zip(read.ids, read.lengths, strict=True)
    return np.array([np.mean([tower[word] for word in ids[:length]], axis=0, dtype=np.float64) for ids, length in rows])


def nearest(scores: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def differences(function, tower: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """The gradient of a function of float64, by central differences."""
    slopes = np.zeros(tower.shape)
    for place in np.ndindex(tower.shape):
        up, down = tower.copy(), tower.copy()
        up[place], down[place] = up[place] + eps, down[place] - eps
        slopes[place] = (function(up) - function(down)) / (2 * eps)
    return slopes


@models
@pytest.mark.parametrize("num_candidates", first(1, [6, None]))
def test_both_towers_get_the_gradient_of_the_marginal_likelihood(model, num_candidates):
    given, vectors, asked = params(), knowledge().passage_vectors, batch()
    questions, passages = (given.question_tower.astype(np.float64), given.passage_tower.astype(np.float64))
    stale = encoded(questions, asked.question) @ vectors.T
    fresh = encoded(questions, asked.question) @ encoded(passages, known().tower_tokens).T
    rows = nearest(stale, num_candidates or K)
    rows = np.take_along_axis(rows, nearest(np.take_along_axis(fresh, rows, axis=1), K), axis=1).astype(np.int32)
    read = jax.device_get(forward()(rag_params(), knowledge(), asked, SearchResults(rows, None)))
    probs = naive.probabilities(read.logits)

    def loss(question_tower: np.ndarray, passage_tower: np.ndarray) -> float:
        scores = encoded(question_tower, asked.question) @ encoded(passage_tower, known().tower_tokens).T
        prior = naive.doc_prior(np.take_along_axis(scores, rows, axis=1))
        return -float(np.mean(MARGINALS[model](prior, probs, asked.targets, asked.target_mask)))

    made_of = both_towers(model, num_candidates=num_candidates)
    state, metrics = jax.jit(partial(training.train_step, made_of))(
        begun(made_of, given, vectors), known(), asked, NO_GOLD
    )
    close(metrics.loss, loss(questions, passages) * B / np.sum(asked.target_mask))
    close(
        (given.question_tower - state.params.question_tower) / RATE, differences(lambda q: loss(q, passages), questions)
    )
    close(
        (given.passage_tower - state.params.passage_tower) / RATE, differences(lambda d: loss(questions, d), passages)
    )


def test_candidates_are_ranked_without_dropout_and_the_prior_has_it():
    """With a passage tower that dropout changes, the same passages are read as without."""
    given, vectors, asked = params(), knowledge().passage_vectors, batch()
    quiet = both_towers(num_candidates=6)
    noisy = quiet._replace(
        networks=quiet.networks._replace(tower=noisy_bag_of_words),
        refresh=quiet.refresh._replace(tower=noisy_bag_of_words),
    )
    fresh = encoded(given.question_tower, asked.question) @ encoded(given.passage_tower, known().tower_tokens).T
    rows = nearest(encoded(given.question_tower, asked.question) @ vectors.T, 6)
    rows = np.take_along_axis(rows, nearest(np.take_along_axis(fresh, rows, axis=1), K), axis=1).astype(np.int32)
    train = jax.jit(partial(training.train_step, noisy))
    for number in range(5):
        state = begun(noisy, given, vectors)._replace(step=jnp.int32(number))
        searched, metrics = train(state, known(), asked, NO_GOLD)
        given_rows, expected = train(state, known(), asked, NO_GOLD, SearchResults(rows, None))
        close(metrics.loss, expected.loss)
        jax.tree.map(close, jax.device_get(searched.params), jax.device_get(given_rows.params))


def test_a_step_searches_the_vectors_that_it_has_just_encoded():
    given, made_of = params(), both_towers(every=1)
    state, metrics = jax.jit(partial(training.train_step, made_of))(
        begun(made_of, given, np.full((N, D), 1e3, np.float32)), known(), batch(), nearest_gold(given)
    )
    close(state.refreshed.vectors, encoded(given.passage_tower, known().tower_tokens))
    assert metrics.recall == 1
    assert (int(metrics.staleness.staleness_oldest), float(metrics.staleness.staleness_mean)) == (0, 0)


def nearest_gold(given: RagParams) -> np.ndarray:
    """The best passage of each question by the towers as they are."""
    fresh = encoded(given.question_tower, batch().question) @ encoded(given.passage_tower, known().tower_tokens).T
    return nearest(fresh, 1).astype(np.int32)


def test_parts_of_a_batch_share_one_refreshed_index():
    results = []
    for parts in (1, B):
        made_of = both_towers(every=2)._replace(num_microbatches=parts)
        state = begun(made_of, params(), knowledge().passage_vectors)
        results.append(jax.jit(partial(training.train_step, made_of))(state, known(), batch(), NO_GOLD)[0])
    jax.tree.map(close, results[0].params, results[1].params)
    jax.tree.map(close, results[0].refreshed, results[1].refreshed)


@pytest.mark.parametrize("at_once", first(1, [False, True]))
def test_a_step_holds_one_copy_of_the_vectors(monkeypatch, at_once):
    """Those of the donated state, which it returns in place; beside them there is no array of their size."""
    monkeypatch.setattr(refresh, "BLOCK_TOKENS", 600)  # activations of a hundred rows
    count, width = 16_384, 256
    made_of = recipe()._replace(refresh=Refresh(bag_of_words, bag_of_words, 1_024, at_once))

    def first() -> TrainState:
        index = new_index(jnp.zeros((count, width)))
        return training.init(made_of, params(width), jax.random.key(0))._replace(refreshed=index)

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.int32)

    read = Tokens(shape(count, 6), shape(count))
    blind = Knowledge(jax.ShapeDtypeStruct((0, width), jnp.float32), read, None, read)
    step = jax.jit(partial(training.train_step, made_of), donate_argnums=0)
    memory = step.lower(jax.eval_shape(first), blind, batch(), NO_GOLD).compile().memory_analysis()
    vectors = 4 * count * width
    assert memory.alias_size_in_bytes >= vectors
    assert memory.argument_size_in_bytes < 1.2 * vectors
    assert memory.temp_size_in_bytes < vectors / 2


@pytest.mark.parametrize("without", ["index", "tokens"])
def test_a_refresh_needs_an_index_and_tokens(without):
    made_of, blind = both_towers(every=2), known()
    state = begun(made_of, params(), knowledge().passage_vectors)
    if without == "index":
        state = state._replace(refreshed=None)
    else:
        blind = blind._replace(tower_tokens=None)
    with pytest.raises(ValueError, match="needs the index in the state, and the passage tower's tokens"):
        training.train_step(made_of, state, blind, batch(), NO_GOLD)
