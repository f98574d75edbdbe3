"""The search against sorting, and what it keeps in memory."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
import naive
from rag_jax.core import retrieval
from rag_jax.types import Knowledge, SearchResults, Tokens
from suites import first

cases = hypotheses.costly
seeds = st.integers(0, 2**32 - 1)


def _retrieve(queries, known, k):
    return retrieval.gather(queries, known, retrieval.nearest(queries, known, k).rows)


retrieve = jax.jit(_retrieve, static_argnums=2)
search = jax.jit(retrieval.exact_top_k, static_argnums=2, static_argnames="block")

SIZES = [  # B, N, k, block
    (3, 640, 2, 320),  # whole blocks, two stages
    (2, 1_000, 3, 300),  # the last block overlaps the one before it
    (2, 301, 1, 300),  # by all but one vector, for the best alone
    (4, 50, 7, 16),  # one stage: fewer groups than k
    (2, 50, 7, 5),  # blocks shorter than k
    (1, 200, 3, 16_384),  # one block, not a multiple of the group
    (3, 4, 9, 3),  # fewer vectors than k
    (1, 1, 1, 1),
    (2, 130, 130, 64),  # everything
]


def integers(draw: np.random.Generator, *shape: int, limit: int = 3) -> np.ndarray:
    """Small whole numbers: exact inner products, many of them equal."""
    return draw.integers(-limit, limit + 1, shape).astype(np.float32)


def assert_same(found, queries, vectors, k):
    scores, ids = naive.top_k(queries, vectors, k)
    np.testing.assert_array_equal(found[1], np.array(ids, np.int32).reshape(len(queries), k))
    np.testing.assert_array_equal(found[0], np.array(scores, np.float32).reshape(len(queries), k))


@pytest.mark.parametrize(("batch", "count", "k", "block"), SIZES)
@hypotheses.costly
@given(seed=seeds)
def test_the_search_is_sorting_with_ties_to_the_smallest_id(batch, count, k, block, seed):
    draw = np.random.default_rng(seed)
    queries, vectors = integers(draw, batch, 4), integers(draw, count, 4)
    assert_same(search(queries, vectors, k, block=block), queries, vectors, k)


@cases
@given(seeds)
def test_the_search_is_sorting_without_ties(seed):
    draw = np.random.default_rng(seed)
    queries = draw.integers(-999, 1000, (3, 2)).astype(np.float32)
    vectors = draw.integers(-999, 1000, (700, 2)).astype(np.float32)
    assert_same(search(queries, vectors, 5, block=400), queries, vectors, 5)


@pytest.mark.parametrize("block", [100, 700])
def test_where_all_vectors_are_equal_the_first_are_found(block):
    _, ids = search(np.ones((2, 3), np.float32), np.ones((700, 3), np.float32), 4, block=block)
    np.testing.assert_array_equal(ids, [[0, 1, 2, 3]] * 2)


def test_of_equal_scores_the_smallest_id_is_found_though_its_group_has_the_smaller_maximum():
    vectors = np.zeros((3 * retrieval.GROUP, 1), np.float32)
    first, best, equal = 5, 2 * retrieval.GROUP + 1, 2 * retrieval.GROUP + 2
    vectors[[first, best, equal]] = [[3], [9], [3]]
    found, ids = search(np.ones((1, 1), np.float32), vectors, 2)
    np.testing.assert_array_equal(found, [[9, 3]])
    np.testing.assert_array_equal(ids, [[best, first]])


@cases
@given(seeds)
def test_duplicates_in_different_blocks_are_all_found(seed):
    draw = np.random.default_rng(seed)
    vectors = integers(draw, 600, 3, limit=2)
    copies = draw.choice(600, 6, replace=False)
    vectors[copies] = 9.0
    _, ids = search(np.ones((1, 3), np.float32), vectors, 6, block=200)
    np.testing.assert_array_equal(ids[0], np.sort(copies))


def test_an_empty_index_holds_nothing():
    scores, ids = search(np.ones((2, 3), np.float32), np.ones((0, 3), np.float32), 4)
    assert np.all(np.isneginf(scores))
    np.testing.assert_array_equal(ids, np.full((2, 4), -1))


def test_bfloat16_vectors_are_scored_in_float32():
    draw = np.random.default_rng(0)
    queries, vectors = (draw.standard_normal(shape).astype(jnp.bfloat16) for shape in [(2, 8), (100, 8)])
    scores, ids = search(queries, vectors, 3)
    expected = queries.astype(np.float64) @ vectors.astype(np.float64).T
    assert scores.dtype == jnp.float32
    np.testing.assert_array_equal(ids, np.argsort(-expected, axis=1)[:, :3])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :3], rtol=1e-5)


def subjaxprs(value) -> Iterator[jax.extend.core.Jaxpr]:
    for each in jax.tree.leaves(value, is_leaf=lambda leaf: hasattr(leaf, "jaxpr") or hasattr(leaf, "eqns")):
        if hasattr(each, "jaxpr") or hasattr(each, "eqns"):
            yield getattr(each, "jaxpr", each)


def intermediates(jaxpr: jax.extend.core.Jaxpr) -> Iterator[tuple[int, ...]]:
    """The shapes of everything computed, also inside loops and calls."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.shape for variable in equation.outvars)
        for inner in subjaxprs(equation.params):
            yield from intermediates(inner)


def test_nothing_of_the_indexs_size_is_computed():
    count, block = 10_007, 256
    found = jax.make_jaxpr(partial(retrieval.exact_top_k, k=3, block=block))(jnp.ones((2, 5)), jnp.ones((count, 5)))
    shapes = list(intermediates(found.jaxpr))
    assert (2, block) in shapes, "the walk sees the inside of the loop"
    assert max(max(shape, default=1) for shape in shapes) <= block


def test_the_walk_would_see_an_array_of_the_indexs_size():
    found = jax.make_jaxpr(jax.jit(lambda q, v: jax.lax.top_k(q @ v.T, 3)))(jnp.ones((2, 5)), jnp.ones((777, 5)))
    assert (2, 777) in set(intermediates(found.jaxpr))


def test_working_memory_does_not_grow_with_the_index():
    def bytes_for(count):
        shapes = jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((count, 16), jnp.float32)
        return search.lower(*shapes, 3, block=1_024).compile().memory_analysis().temp_size_in_bytes

    few, many = 4_096, 65_536
    block_numbers = (many - few) // 1_024 * 4  # an int32 for each block
    assert bytes_for(many) - bytes_for(few) <= block_numbers


@jax.jit
def scores_and_gradients(queries, vectors, weights):
    def weighted(queries, vectors):
        scores = retrieval.scores(queries, vectors)
        return jnp.sum(weights * scores), scores

    (_, scores), gradients = jax.value_and_grad(weighted, (0, 1), has_aux=True)(queries, vectors)
    return scores, gradients


@cases
@given(seeds)
def test_scores_are_inner_products_that_only_the_question_learns_from(seed):
    draw = np.random.default_rng(seed)
    B, K, D = 2, 3, 4
    queries, vectors, weights = integers(draw, B, D), integers(draw, B, K, D), integers(draw, B, K)
    scores, (by_queries, by_vectors) = scores_and_gradients(queries, vectors, weights)
    np.testing.assert_array_equal(scores, [[queries[b] @ vectors[b, k] for k in range(K)] for b in range(B)])
    np.testing.assert_array_equal(by_queries, [sum(weights[b, k] * vectors[b, k] for k in range(K)) for b in range(B)])
    assert not np.any(by_vectors)


def knowledge(draw: np.random.Generator, count: int) -> Knowledge:
    ids = draw.integers(3, 60_000, (count, 6)).astype(np.uint16)
    return Knowledge(integers(draw, count, 4), Tokens(ids, draw.integers(1, 7, count).astype(np.int32)))


@cases
@given(seeds)
def test_retrieval_returns_the_best_passages_with_their_tokens(seed):
    draw = np.random.default_rng(seed)
    known, queries = knowledge(draw, 40), integers(draw, 2, 4)
    found, passages = retrieve(queries, known, 3)
    scores, ids = naive.top_k(queries, known.passage_vectors, 3)
    np.testing.assert_array_equal(found.rows, ids)
    np.testing.assert_array_equal(found.scores, scores)
    assert np.all(found.valid)
    np.testing.assert_array_equal(passages.ids, known.passage_tokens.ids[np.array(ids)])
    np.testing.assert_array_equal(passages.lengths, known.passage_tokens.lengths[np.array(ids)])


def test_passages_that_the_index_does_not_have_are_not_valid():
    draw = np.random.default_rng(0)
    found, passages = retrieve(integers(draw, 2, 4), knowledge(draw, 3), 5)
    np.testing.assert_array_equal(found.valid, [[True, True, True, False, False]] * 2)
    np.testing.assert_array_equal(found.rows[:, 3:], np.full((2, 2), -1))
    assert np.all(np.isfinite(found.scores))
    assert passages.ids.shape == (2, 5, 6)


def test_gather_marks_missing_passages_and_puts_the_first_one_in_their_place():
    draw = np.random.default_rng(1)
    known, queries = knowledge(draw, 9), integers(draw, 2, 4)
    ids = np.array([[4, -1, 2], [-1, 8, -1]], np.int32)
    found, passages = jax.device_get(jax.jit(retrieval.gather)(queries, known, ids))
    np.testing.assert_array_equal(found.rows, ids)
    np.testing.assert_array_equal(found.valid, ids >= 0)
    for b, k in np.ndindex(ids.shape):
        row = max(ids[b, k], 0)
        assert found.scores[b, k] == queries[b] @ known.passage_vectors[row]
        np.testing.assert_array_equal(passages.ids[b, k], known.passage_tokens.ids[row])
        assert passages.lengths[b, k] == known.passage_tokens.lengths[row]


def test_a_retrieved_score_teaches_the_question_its_passages_vector():
    draw = np.random.default_rng(2)
    known, queries = knowledge(draw, 30), integers(draw, 3, 4)

    def best(queries):
        found, _ = _retrieve(queries, known, 2)
        return jnp.sum(found.scores[:, 0]), found.rows

    known = jax.tree.map(jnp.asarray, known)
    gradient, ids = jax.jit(jax.grad(best, has_aux=True))(queries)
    np.testing.assert_array_equal(gradient, known.passage_vectors[ids[:, 0]])


def without(queries, vectors, k, gone):
    """Sorting, with some rows left out for each query."""
    found = [naive.top_k(queries[b : b + 1], vectors, len(vectors)) for b in range(len(queries))]
    kept = [
        [(s, i) for s, i in zip(scores[0], ids[0], strict=True) if i not in gone[b]][:k]
        for b, (scores, ids) in enumerate(found)
    ]
    filled = [each + [(-np.inf, -1)] * (k - len(each)) for each in kept]
    return [[s for s, _ in each] for each in filled], [[i for _, i in each] for each in filled]


masked = jax.jit(retrieval.exact_top_k, static_argnums=2, static_argnames="block")


@pytest.mark.parametrize(("count", "k", "block"), first(2, [(301, 2, 300), (9, 7, 4), (640, 3, 320)]))
@hypotheses.costly
@given(seed=seeds)
def test_dead_and_excluded_rows_are_as_if_they_were_not_there(count, k, block, seed):
    draw = np.random.default_rng(seed)
    queries, vectors = integers(draw, 2, 4), integers(draw, count, 4)
    alive = draw.random(count) < 0.7
    _, best = naive.top_k(queries, vectors, min(4, count))
    excluded = np.concatenate([np.array(best, np.int32)[:, :3], np.full((2, 1), -1, np.int32)], axis=1)
    gone = [{*np.flatnonzero(~alive).tolist(), *excluded[b].tolist()} for b in range(2)]
    scores, ids = masked(queries, vectors, k, alive=alive, excluded=excluded, block=block)
    expected = without(queries, vectors, k, gone)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, np.array(expected[0], np.float32))


def test_what_another_search_found_is_read_with_its_own_scores_or_with_the_inner_products():
    draw = np.random.default_rng(3)
    known, queries = knowledge(draw, 9), integers(draw, 2, 4)
    rows, scores = np.array([[4, 2], [8, -1]], np.int32), np.array([[7.5, 7.0], [3.0, -np.inf]], np.float32)
    take = jax.jit(retrieval.gather_results)
    own, passages = take(queries, known, SearchResults(rows, scores))
    recomputed, same = take(queries, known, SearchResults(rows, None))
    np.testing.assert_array_equal(own.scores, scores)
    np.testing.assert_array_equal(own.valid, recomputed.valid)
    assert recomputed.scores[0, 1] == queries[0] @ known.passage_vectors[2]
    np.testing.assert_array_equal(passages.ids, same.ids)
    known_lengths = known.passage_tokens.lengths
    expected = [[known_lengths[4], known_lengths[2]], [known_lengths[8], 0]]
    np.testing.assert_array_equal(passages.lengths, expected, "a missing passage has no tokens")
