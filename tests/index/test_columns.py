"""Rows in pieces are the rows of the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.corpus.passage import Passage
from rag_jax.index.columns import PassageTable, SegmentedArray, as_table
from stores import MORE, PASSAGES

cases = settings(max_examples=50, deadline=None)


def pieces(sizes: list[int], widths: list[int], seed: int) -> tuple[SegmentedArray, np.ndarray]:
    """Pieces of these sizes, and the array that they are pieces of, padded with 9."""
    draw = np.random.default_rng(seed)
    parts = [draw.integers(0, 9, (n, width)).astype(np.uint16) for n, width in zip(sizes, widths, strict=True)]
    whole = [np.pad(part, ((0, 0), (0, max(widths) - part.shape[1])), constant_values=9) for part in parts]
    return SegmentedArray(parts, 9), np.concatenate(whole)


@cases
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=1, max_size=4), st.data())
def test_rows_blocks_and_ranges_are_those_of_the_whole(shapes, data):
    if not sum(size for size, _ in shapes):
        shapes = [*shapes, (2, 1)]
    rows, whole = pieces([size for size, _ in shapes], [width for _, width in shapes], 0)
    assert rows.shape == whole.shape
    assert len(rows) == len(whole)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)))
    np.testing.assert_array_equal(rows[chosen], whole[chosen])
    start, stop = sorted(data.draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    np.testing.assert_array_equal(rows.between(start, stop), whole[start:stop])
    np.testing.assert_array_equal(rows.whole, whole)
    np.testing.assert_array_equal(np.concatenate(list(rows.blocks(3))), whole)


def test_one_piece_is_not_copied():
    array = np.zeros((4, 2))
    assert np.shares_memory(SegmentedArray([array]).whole, array)
    assert np.shares_memory(SegmentedArray([array]).between(1, 3), array)


def test_texts_of_several_tables_are_one_sequence():
    texts = PassageTable([as_table(PASSAGES), as_table(MORE)])
    assert len(texts) == 55
    assert list(texts) == PASSAGES + MORE
    assert texts == PASSAGES + MORE
    assert texts != PASSAGES
    assert texts[3] == PASSAGES[3]
    assert texts[-1] == MORE[-1]
    assert texts[48:52] == (PASSAGES + MORE)[48:52]
    with pytest.raises(IndexError):
        texts[55]


def test_an_id_is_found_in_the_row_that_lives():
    texts = PassageTable([as_table([Passage("a", "", "x"), Passage("b", "", "x")]), as_table([Passage("a", "", "y")])])
    assert texts.find(["b", "a", "c"]).tolist() == [1, 0, -1]
    assert texts.find(["b", "a", "c"], np.array([False, True, True])).tolist() == [1, 2, -1]
    assert texts.find(["a"], np.array([False, False, False])).tolist() == [-1]
