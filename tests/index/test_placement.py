"""A store on the device: the same passages, in any precision and on any number of devices, in shapes that last."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType

from rag_jax.core.vectors import take
from rag_jax.index.placement import SIZES_PER_OCTAVE, TRANSFER_ROWS, Placement, padded_rows
from rag_jax.index.store import Store, from_vectors
from stores import MORE, PASSAGES, encoder, reads


def store() -> Store:
    """Two pieces of different token widths, with a row that holds no passage any more."""
    one, two = (from_vectors(each, encoder().encode_passages(each), reads()) for each in (PASSAGES, MORE))
    return one.concatenate(two).remove_rows([3])


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_what_is_loaded_is_what_is_stored(shards: int, precision) -> None:
    held = store()
    mesh = None if shards == 1 else jax.make_mesh((shards,), ("index",), axis_types=(AxisType.Auto,))
    known = Placement(mesh, precision).knowledge(held)
    rows = np.arange(held.size)
    vectors = np.asarray(take(known.passage_vectors, jnp.asarray(rows)), np.float32)
    tolerance = {"float32": 0.0, "bfloat16": 2.0**-8, "int8": 1 / 127}[precision]
    np.testing.assert_allclose(
        vectors, held.passage_vectors.whole, rtol=0, atol=tolerance * np.abs(held.passage_vectors.whole).max()
    )
    np.testing.assert_array_equal(np.asarray(known.passage_tokens.ids)[rows], held.passage_tokens.whole)
    np.testing.assert_array_equal(np.asarray(known.passage_tokens.lengths)[rows], held.passage_lengths.whole)
    alive = np.asarray(known.alive)
    np.testing.assert_array_equal(alive[rows], held.alive)
    assert not alive[held.size :].any()
    assert len(known.passage_tokens.ids.sharding.device_set) == shards


@given(st.integers(1, 30_000_000), st.integers(1, 64))
def test_sizes_are_rounded_up_by_little_and_evenly(size: int, shards: int) -> None:
    rows = padded_rows(size, shards)
    assert rows >= size
    assert rows % shards == 0
    assert rows - size < size / SIZES_PER_OCTAVE + shards


@pytest.mark.parametrize("size", [256, 257, 1_000, 20_369, 34_003, 21_015_324])
def test_the_usual_meshes_pad_to_the_same_rows(size: int) -> None:
    """So that vectors in a checkpoint are restored on another mesh."""
    assert len({padded_rows(size, shards) for shards in (1, 2, 4, 8)}) == 1


def test_a_store_that_grows_a_little_keeps_its_shapes() -> None:
    sizes = {padded_rows(size) for size in range(40_000, 40_900)}
    assert len(sizes) <= 2
    first, other = (Placement().knowledge(each) for each in (store(), store().remove_rows([5])))
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each) for each in (first, other)]
    assert shapes[0] == shapes[1], "a removed row is a mask"


@pytest.mark.extended
def test_more_rows_than_travel_together_arrive() -> None:
    vectors = np.arange(2 * (TRANSFER_ROWS + 9), dtype=np.float32).reshape(-1, 2)
    passages = [PASSAGES[0]._replace(id=str(row)) for row in range(len(vectors))]
    known = Placement().search_arrays(from_vectors(passages, vectors, reads()))
    np.testing.assert_array_equal(np.asarray(known.passage_vectors)[: len(vectors)], vectors)
