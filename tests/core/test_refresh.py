"""The index of a passage tower that learns: which rows a step encodes, where it writes them, and what scores learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import hypotheses
from handmade import B, D, K, V, bag_of_words, close, normal, tokens
from rag_jax.core import refresh, retrieval
from rag_jax.core.refresh import Refresh, RefreshedIndex
from rag_jax.core.sharding import sharded
from rag_jax.core.vectors import quantize_int8
from rag_jax.types import Knowledge, Tokens
from suites import first, only

MESH = Mesh(np.asarray(jax.devices()[:2]), ("index",))
KINDS = ("float32", "bfloat16", "int8")


def towers(every=None, mesh=None, **options) -> Refresh:
    return Refresh(bag_of_words, bag_of_words, every, mesh=mesh, **options)


def params(seed: int = 0) -> np.ndarray:
    return normal(np.random.default_rng(seed), V, D)


def read(count: int) -> Tokens:
    return tokens(np.random.default_rng(1), count, 5)


def stored(vectors: jax.Array, kind: str):
    return quantize_int8(vectors) if kind == "int8" else vectors.astype(kind)


def encoded(tower: np.ndarray, passages: Tokens) -> np.ndarray:
    """d(z) of every row, in loops."""
    return np.stack(
        [
            np.mean([tower[word] for word in ids[:length]], axis=0, dtype=np.float64)
            for ids, length in zip(passages.ids, passages.lengths, strict=True)
        ]
    ).astype(np.float32)


def is_due(row: int, step: int, every: int | None, at_once: bool) -> bool:
    if every is None:
        return False
    return step % every == 0 and step > 0 if at_once else row % every == step % every


@partial(jax.jit, static_argnums=0)
def due(how, *inputs):
    return refresh.refresh_due(how, *inputs)


def spread(tree):
    return jax.device_put(tree, NamedSharding(MESH, PartitionSpec("index")))


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("every", only([3], [None, 1, 3, 5, 20]))
def test_a_row_is_encoded_when_it_is_due_by_the_tower_of_that_step(monkeypatch, every, at_once):
    monkeypatch.setattr(refresh, "BLOCK_TOKENS", 15)  # three rows
    count, how = 14, towers(every, at_once=at_once)
    passages, index = read(count), refresh.new_index(jnp.zeros((count, D)))
    vectors, encoded_at = np.zeros((count, D), np.float32), np.zeros(count, np.int32)
    program = jax.jit(partial(refresh.refresh_due, how))  # traced with the small blocks
    for step in range(12):
        index = program(params(step), passages, index, jnp.int32(step))
        for row in range(count):
            if is_due(row, step, every, at_once):
                vectors[row], encoded_at[row] = encoded(params(step), passages)[row], step
        close(index.vectors, vectors)
        np.testing.assert_array_equal(index.encoded_at, encoded_at)


@pytest.mark.parametrize("kind", only(["int8"], KINDS))
@pytest.mark.parametrize("at_once", first(1, [False, True]))
def test_two_devices_encode_the_rows_that_one_does(kind, at_once):
    passages = read(22)
    one = two = refresh.new_index(stored(jnp.zeros((22, D)), kind))
    passages_of_two, two = spread((passages, two))
    for step in (2, 3, 4):  # the second device's rows begin with row 11, which three does not divide
        one = due(towers(3, at_once=at_once), params(step), passages, one, jnp.int32(step))
        how = towers(3, MESH, at_once=at_once)
        two = due(how, params(step), passages_of_two, two, jnp.int32(step))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(two))
        assert {leaf.sharding.spec for leaf in jax.tree.leaves(two)} == {PartitionSpec("index")}


@pytest.mark.parametrize("kind", only(["int8"], KINDS))
def test_vectors_are_stored_as_they_were(kind):
    passages = read(9)
    index = refresh.new_index(stored(jnp.zeros((9, D)), kind))
    after = due(towers(1), params(), passages, index, jnp.int32(1))
    expected = stored(jnp.asarray(encoded(params(), passages)), kind)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-2), after.vectors, expected)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(index)]


def test_a_row_of_padding_has_a_finite_vector():
    passages = read(4)._replace(lengths=np.zeros(4, np.int32))
    index = due(towers(1), params(), passages, refresh.new_index(jnp.zeros((4, D))), jnp.int32(0))
    assert np.isfinite(index.vectors).all()


@pytest.mark.parametrize("mesh", only([MESH], [None, MESH]))
@pytest.mark.parametrize("at_once", first(1, [False, True]))
def test_rows_are_written_in_place(at_once, mesh):
    """The memory of a step beside its arguments holds no second array of all vectors."""
    count, width, every = 4_096, 64, 256

    def encode(params, tokens, key=None):
        return jnp.tile(params, (1, width // D))[tokens.ids[:, 0]]

    how = Refresh(encode, encode, every, at_once, mesh=mesh)
    placed = None if mesh is None else NamedSharding(mesh, PartitionSpec("index"))

    def shape(*sizes, dtype=jnp.float32, sharding=placed):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    passages = Tokens(shape(count, 512, dtype=jnp.uint16), shape(count, dtype=jnp.int32))
    index = RefreshedIndex(shape(count, width), shape(count, dtype=jnp.int32))
    program = jax.jit(partial(refresh.refresh_due, how), donate_argnums=2, out_shardings=placed)
    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    given = shape(V, D, sharding=whole), passages, index, shape(dtype=jnp.int32, sharding=whole)
    memory = program.lower(*given).compile().memory_analysis()
    vectors = count * width * 4 // (1 if mesh is None else mesh.size)
    assert memory.alias_size_in_bytes >= vectors
    assert memory.temp_size_in_bytes < vectors / 2


_staleness = jax.jit(refresh.staleness)


@hypotheses.costly
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=4, max_size=4))
def test_staleness_is_the_age_of_rows_that_are_alive(rows):
    ages, alive = np.array([age for age, _ in rows], np.int32), np.array([is_alive for _, is_alive in rows])
    index = RefreshedIndex(np.zeros((4, D), np.float32), 30 - ages)
    for counted, mask in ((ages[alive], alive), (ages, None)):
        oldest, mean = _staleness(index, np.int32(30), mask)
        if len(counted):
            assert (int(oldest), float(mean)) == (max(counted), pytest.approx(np.mean(counted)))


@pytest.mark.parametrize("every", [1, 4])
def test_the_oldest_row_lags_a_round_behind(every):
    passages, index, seen = read(8), refresh.new_index(jnp.zeros((8, D))), []
    for step in range(3 * every):
        index = due(towers(every), params(), passages, index, jnp.int32(step))
        seen.append([float(each) for each in refresh.staleness(index, jnp.int32(step), None)])
    assert seen[-1] == [every - 1, (every - 1) / 2]
    assert max(oldest for oldest, _ in seen) == every - 1


def known(count: int = 12) -> Knowledge:
    """Passages whose stored vectors have nothing to do with what the tower makes of them now."""
    draw = np.random.default_rng(5)
    return Knowledge(normal(draw, count, D), tokens(draw, count, 6), None, read(count))


QUERIES = normal(np.random.default_rng(6), B, D)


@partial(jax.jit, static_argnums=(0, 1))
def retrieved(how, index, tower, queries, knowledge, candidates):
    rows = refresh.rank(how, index, tower, queries, knowledge, candidates, K)
    return refresh.retrieve(how, index, tower, queries, knowledge, rows)


gathered = jax.jit(refresh.retrieve, static_argnums=(0, 1))


def ranked(scores: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The K best rows by their scores, of some; -1 for a missing one."""
    best = []
    for of, rows in zip(scores, among, strict=True):
        rows = sorted((row for row in rows if row >= 0), key=lambda row: -of[row])[:K]
        best.append(rows + [-1] * (K - len(rows)))
    return np.array(best)


CANDIDATES = np.array([[3, 1, 7, 0, 9, 11], [2, 5, -1, -1, -1, -1], [4, 6, 8, 10, 1, -1]], np.int32)


@pytest.mark.parametrize("mesh", only([MESH], [None, MESH]))
def test_the_best_candidates_by_fresh_vectors_are_read(mesh):
    knowledge, index = known(), retrieval.LOCAL if mesh is None else sharded(MESH, "index")
    fresh = QUERIES @ encoded(params(), knowledge.tower_tokens).T
    expected = ranked(fresh, CANDIDATES)
    placed = knowledge if mesh is None else spread(knowledge)
    found, passages = retrieved(towers(mesh=mesh, num_candidates=6), index, params(), QUERIES, placed, CANDIDATES)
    np.testing.assert_array_equal(found.rows, expected)
    np.testing.assert_array_equal(found.valid, expected >= 0)
    exists = expected >= 0
    close(np.asarray(found.scores)[exists], np.take_along_axis(fresh, expected, axis=1)[exists])
    np.testing.assert_array_equal(np.asarray(passages.ids)[exists], knowledge.passage_tokens.ids[expected[exists]])
    assert not exists.all()
    assert not np.any(np.asarray(passages.lengths)[~exists]), "a missing passage has no tokens"


def test_passages_stay_in_the_order_of_the_search():
    found, _ = gathered(towers(), retrieval.LOCAL, params(), QUERIES, known(), CANDIDATES[:, :K])
    np.testing.assert_array_equal(found.rows, CANDIDATES[:, :K])


def test_scores_teach_both_towers():
    """With a loss sum_bk w_bk s_bk: q_b gets sum_k w_bk d(z_k), and each of a passage's words w_bk q_b / length."""
    knowledge, weights = known(), normal(np.random.default_rng(7), B, K)

    def loss(tower, queries, knowledge, chosen):
        found, _ = refresh.retrieve(towers(), retrieval.LOCAL, tower, queries, knowledge, chosen)
        return jnp.sum(jnp.where(found.valid, weights * found.scores, 0.0)), found.rows

    gradient = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (tower_gradient, query_gradient), rows = gradient(params(), QUERIES, knowledge, CANDIDATES[:, :K])
    of_words, of_queries, vectors = np.zeros((V, D)), np.zeros((B, D)), encoded(params(), knowledge.tower_tokens)
    for (b, k), row in np.ndenumerate(rows):
        if row >= 0:
            of_queries[b] += weights[b, k] * vectors[row]
            length = knowledge.tower_tokens.lengths[row]
            for word in knowledge.tower_tokens.ids[row, :length]:
                of_words[word] += weights[b, k] * QUERIES[b] / length
    close(query_gradient, of_queries)
    close(tower_gradient, of_words)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="2 candidates for 3 passages"):
        retrieved(towers(), retrieval.LOCAL, params(), QUERIES, known(), CANDIDATES[:, :2])
    blind = known()._replace(tower_tokens=None)
    for function, rows in ((retrieved, CANDIDATES), (gathered, CANDIDATES[:, :K])):
        with pytest.raises(ValueError, match="holds no tokens for the passage tower"):
            function(towers(), retrieval.LOCAL, params(), QUERIES, blind, rows)
