"""An index over several devices: the results of one device, and an exchange that does not grow with it."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import hypotheses
from rag_jax.core import retrieval
from rag_jax.core.sharding import sharded
from rag_jax.core.vectors import quantize_int8
from rag_jax.types import Knowledge, Tokens
from suites import only

MESH = Mesh(np.asarray(jax.devices()[:2]), ("index",))
INDEX = sharded(MESH, "index")
cases = hypotheses.costly


def knowledge(seed: int, count: int, kind: str = "float32") -> Knowledge:
    """Small whole numbers, many inner products equal, a fifth of the rows dead."""
    draw = np.random.default_rng(seed)
    vectors = jnp.asarray(draw.integers(-3, 4, (count, 4)).astype(np.float32))
    stored = quantize_int8(vectors) if kind == "int8" else vectors.astype(kind)
    ids = draw.integers(3, 60_000, (count, 6)).astype(np.uint16)
    tokens = Tokens(jnp.asarray(ids), jnp.asarray(draw.integers(1, 7, count).astype(np.int32)))
    return Knowledge(stored, tokens, jnp.asarray(draw.random(count) < 0.8))


def spread(known: Knowledge) -> Knowledge:
    return jax.device_put(known, NamedSharding(MESH, PartitionSpec("index")))


@partial(jax.jit, static_argnums=(0, 3))
def retrieve(index, queries, known, k, excluded):
    found = index.nearest(queries, known, k, excluded)
    return found, index.gather(queries, known, found.rows)


@pytest.mark.parametrize(
    ("count", "kind"),
    only([(50, "float32"), (80, "int8")], [(50, "float32"), (6, "float32"), (200, "bfloat16"), (80, "int8")]),
)
@cases
@given(seed=st.integers(0, 2**32 - 1))
def test_two_devices_find_and_read_what_one_does(count, kind, seed):
    known, draw = knowledge(seed, count, kind), np.random.default_rng(seed)
    queries = draw.integers(-3, 4, (3, 4)).astype(np.float32)
    excluded = draw.integers(-1, count, (3, 2)).astype(np.int32)
    one = jax.device_get(retrieve(retrieval.LOCAL, queries, known, 7, excluded))
    two = jax.device_get(retrieve(INDEX, queries, spread(known), 7, excluded))
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_search_over_two_devices_teaches_the_question_as_one_does():
    known, queries = knowledge(0, 40), np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)

    def best(index, queries, known):
        retrieved, _ = index.gather(queries, known, index.nearest(queries, known, 2).rows)
        return jnp.sum(jax.nn.logsumexp(retrieved.scores, axis=1))

    gradient = jax.jit(jax.grad(best, 1), static_argnums=0)
    one, two = gradient(retrieval.LOCAL, queries, known), gradient(INDEX, queries, spread(known))
    np.testing.assert_allclose(one, two, rtol=1e-6)


EXCHANGES = re.compile(r"= (.*?) (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(-start)?\(")
BYTES = {"pred": 1, "s8": 1, "u16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}


def exchanged(count: int) -> int:
    """The bytes of everything that the compiled program exchanges between devices."""
    shapes = jax.eval_shape(partial(knowledge, 0, 8))
    placed = NamedSharding(MESH, PartitionSpec("index"))

    def sized(leaf):
        return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype, sharding=placed)

    like = jax.tree.map(sized, shapes)
    queries = jax.ShapeDtypeStruct((3, 4), jnp.float32, sharding=NamedSharding(MESH, PartitionSpec()))
    program = retrieve.lower(INDEX, queries, like, 5, None).compile().as_text()
    found = EXCHANGES.findall(program)
    assert {name for _, name, _ in found} == {"all-gather", "all-reduce"}, "the k best, and the chosen passages"
    arrays = [array for shape, _, _ in found for array in re.findall(r"(\w+)\[([\d,]*)\]", shape)]
    return sum(BYTES[kind] * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in arrays)


def test_what_is_exchanged_does_not_grow_with_the_index():
    B, K, D, P, shards = 3, 5, 4, 6, 2
    expected = shards * B * K * (4 + 4) + B * K * 4 * (D + P + 1)
    assert exchanged(64) == exchanged(4096) == expected
