"""Rows without their padding: what is laid into lines comes back, values and gradients, as a loop would do it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
from rag_jax.core import packing
from rag_jax.types import PackedInputs, Tokens

S, WIDTH = 5, 3


def packed(lengths: list[int], lines: int, size: int) -> PackedInputs:
    ids = np.arange(1, len(lengths) * S + 1, dtype=np.int32).reshape(-1, S)
    return packing.pack(Tokens(ids, np.asarray(lengths, np.int32)), lines, size)  # pyright: ignore[reportArgumentType]


def naive(rows: np.ndarray, lengths: list[int], lines: int, size: int) -> np.ndarray:
    found = np.zeros((lines, size, *rows.shape[2:]), rows.dtype)
    for line, each in enumerate(np.split(np.arange(len(lengths)), lines)):
        held = np.concatenate([rows[row, : lengths[row]] for row in each])
        found[line, : len(held)] = held
    return found


@hypotheses.costly
@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_rows_go_into_lines_and_back(lines: int, each: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, S), min_size=lines * each, max_size=lines * each))
    size = data.draw(st.integers(max(1, *(sum(lengths[i * each : (i + 1) * each]) for i in range(lines))), each * S))
    form = packed(lengths, lines, size)
    rows = np.random.default_rng(0).normal(size=(len(lengths), S, WIDTH)).astype(np.float32)
    found = packing.to_packs(form, jnp.asarray(rows))
    np.testing.assert_array_equal(found, naive(rows, lengths, lines, size))
    mask = np.arange(S)[None, :] < np.asarray(lengths)[:, None]
    np.testing.assert_array_equal(packing.to_rows(form, found), np.where(mask[:, :, None], rows, 0))
    place = np.broadcast_to(np.arange(S, dtype=np.int32), (len(lengths), S))
    filled = np.asarray(packing.to_packs(form, jnp.asarray(mask)))
    np.testing.assert_array_equal(
        np.asarray(packing.row_positions(form))[filled], naive(place, lengths, lines, size)[filled]
    )


@pytest.mark.extended
@hypotheses.costly
@given(st.lists(st.integers(0, S), min_size=4, max_size=4), st.integers(0, 3), st.sampled_from([1, 2, 4]))
def test_a_target_is_appended_to_every_row(lengths: list[int], target: int, lines: int) -> None:
    form = packed(lengths, lines, 4 // lines * S)
    ids = np.arange(101, 101 + 4 * target, dtype=np.int32).reshape(4, target)
    behind = [
        [*row[:length], *new] for row, length, new in zip(form.inputs.ids.tolist(), lengths, ids.tolist(), strict=True)
    ]
    for inputs in (form, form.inputs):
        longer = packing.append(inputs, jnp.asarray(ids))
        rows = packing.unpacked(longer)
        found = [row[:length] for row, length in zip(rows.ids.tolist(), rows.lengths.tolist(), strict=True)]
        assert found == behind
    packs = packing.append(form, jnp.asarray(ids))
    assert isinstance(packs, PackedInputs)
    held = np.asarray(packing.to_packs(packs, packs.inputs.ids))
    assert [i for line in held.tolist() for i in line if i] == [i for row in behind for i in row]
    assert int(packs.num_tokens.sum()) == sum(map(len, behind))


@pytest.mark.parametrize("there", [packing.to_packs, packing.to_rows])
def test_the_gradient_is_that_of_the_copy(there) -> None:
    """Against finite sums: each output is a copy of one input, so that the Jacobian is a table of ones."""
    form = packed([2, 5, 0, 3], 2, 8)
    shape = (4, S) if there is packing.to_packs else (2, 8)
    given = jnp.asarray(np.random.default_rng(1).normal(size=shape).astype(np.float32))
    found = jax.jacrev(lambda values: there(form, values).reshape(-1))(given).reshape(-1, given.size)
    ones = jnp.eye(given.size).reshape(given.size, *shape)
    expected = jnp.stack([there(form, one).reshape(-1) for one in ones], axis=1)
    np.testing.assert_array_equal(found, expected)


def test_without_packing_rows_are_lines() -> None:
    rows = jnp.ones((2, S))
    assert packing.to_packs(None, rows) is rows
    assert packing.to_rows(None, rows) is rows


def test_the_gradient_is_gathered_not_added_up() -> None:
    """A scatter would run element by element on a CPU, and in no order on a GPU."""
    form = packed([2, 5, 0, 3], 1, 12)
    program = jax.make_jaxpr(jax.grad(lambda rows: jnp.sum(jnp.sin(packing.to_packs(form, rows)))))(jnp.ones((4, S)))
    assert "scatter" not in str(program)


def test_without_lengths_to_pack_at_any_number_of_rows_is_read() -> None:
    """One question with three passages on two devices."""
    inputs = Tokens(jnp.ones((1, 3, S), jnp.int32), jnp.full((1, 3), S))
    for lengths in ((), (S,), (S + 1, 2 * S)):
        (found,), shortest = packing.pack_at_lengths(inputs, 2, lengths)
        assert found is inputs
        assert shortest == 0
