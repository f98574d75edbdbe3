"""Groups of texts of similar length, and their packs."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.core import packing
from rag_jax.data.length_groups import fullest, grouped, packed
from rag_jax.data.tokenizers import pad


def rows_of(lengths: list[int]) -> list[list[int]]:
    """Token rows of these lengths, each of its own token."""
    return [[number + 1] * length for number, length in enumerate(lengths)]


@given(st.lists(st.integers(1, 40), min_size=12, max_size=12))
def test_groups_are_equal_in_size_and_ascend(lengths: list[int]) -> None:
    groups, _ = grouped(rows_of(lengths), 3, 1)
    assert [len(group) for group in groups] == [4, 4, 4]
    assert (np.diff([len(ids) for group in groups for ids in group]) >= 0).all()


def test_packs_are_about_as_full() -> None:
    ((*members,),), _ = grouped(rows_of(list(range(1, 17))), 1, 4)
    assert [sum(map(len, members[at : at + 4])) for at in range(0, 16, 4)] == [34] * 4  # of 136 in all


@settings(deadline=None, max_examples=settings().max_examples // 8)  # each size is a compilation
@given(st.lists(st.integers(1, 12), min_size=8, max_size=8), st.sampled_from([1, 2, 4]), st.integers(1, 12))
def test_rows_are_packed_as_the_core_packs_them(lengths: list[int], num_packs: int, usual: int) -> None:
    rows = pad(rows_of(lengths), 12, 0)
    found = packed(rows, num_packs, max(usual, fullest(np.asarray(rows.lengths), num_packs)))
    expected = packing.pack(jax.tree.map(jnp.asarray, rows), num_packs, found.source.shape[1])
    assert np.array_equal(found.num_tokens, expected.num_tokens)
    held = np.arange(found.source.shape[1])[None, :] < np.asarray(found.num_tokens)[:, None]
    assert np.array_equal(np.asarray(found.source)[held], np.asarray(expected.source)[held])
    mask = np.asarray(rows.mask)
    assert np.array_equal(np.asarray(found.slot)[mask], np.asarray(expected.slot)[mask])
    states = np.asarray(rows.ids)[:, :, None].astype(np.float32)
    on_device = jax.tree.map(jnp.asarray, found)
    again = packing.to_rows(on_device, packing.to_packs(on_device, jnp.asarray(states)))
    np.testing.assert_array_equal(again, np.where(mask[:, :, None], states, 0))
