"""A search block by block, over vectors that stay on the disk: what it finds is what the device finds."""

from dataclasses import replace

import numpy as np
import pytest

from rag_jax.errors import InputError
from rag_jax.index.columns import SegmentedArray
from rag_jax.index.engines import blockwise
from rag_jax.index.engines.blockwise import BlockwiseIndex
from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Queries
from rag_jax.index.placement import Placement
from rag_jax.index.store import Store, without_vectors
from stores import PASSAGES

RNG = np.random.default_rng(0)
N, D, B, ROWS = len(PASSAGES), 3, 4, 7  # the blocks cross the segments, and the last one is shorter
WHOLE = RNG.integers(-2, 3, (N, D)).astype(np.float32)  # in whole numbers, so that many scores are equal
ASKED = Queries([""] * B, RNG.integers(-2, 3, (B, D)).astype(np.float32))
EXCLUDED = np.concatenate([RNG.integers(0, N, (B, 9)), np.full((B, 2), -1)], axis=1)


def store(removed: frozenset[int], dtype: type[np.floating]) -> Store:
    """All passages in two segments."""
    vectors = WHOLE.astype(dtype)
    return replace(
        without_vectors(PASSAGES), passage_vectors=SegmentedArray([vectors[:19], vectors[19:]]), removed=removed
    )


@pytest.mark.parametrize("k", [1, ROWS - 1, 3 * ROWS, N])
@pytest.mark.parametrize("excluded", [None, EXCLUDED], ids=["all", "without some"])
@pytest.mark.parametrize("removed", [frozenset(), frozenset({0, 8, 9, 48}), frozenset(range(14, 21))], ids=len)
def test_blocks_find_what_the_device_finds(k: int, excluded, removed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "ROWS", ROWS)
    held = store(removed, np.float32)
    found = BlockwiseIndex.of(held).search(ASKED, k, excluded)
    expected = DeviceIndex.of(held, Placement()).search(ASKED, k, excluded)
    assert len(np.unique(expected.scores)) < expected.scores.size, "some scores are equal"
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert (found.rows.dtype, found.scores.dtype, found.recall) == (np.int32, np.float32, 1.0)


def test_the_best_rows_are_those_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "ROWS", ROWS)
    found = BlockwiseIndex.of(store(frozenset({3}), np.float16)).search(ASKED, 5)
    for query, rows, scores in zip(ASKED.vectors.tolist(), found.rows.tolist(), found.scores.tolist(), strict=True):
        products = [sum(q * v for q, v in zip(query, vector, strict=True)) for vector in WHOLE.tolist()]
        ranked = sorted((row for row in range(N) if row != 3), key=lambda row: (-products[row], row))
        assert rows == ranked[:5]
        assert scores == [products[row] for row in ranked[:5]]


def test_a_block_at_a_time_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "ROWS", ROWS)
    sizes, real = [], blockwise._nearest

    def watched(k: int):
        return lambda queries, block, *, alive: sizes.append(block.shape) or real(k)(queries, block, alive=alive)

    monkeypatch.setattr(blockwise, "_nearest", watched)
    BlockwiseIndex.of(store(frozenset(), np.float32)).search(ASKED, 2)
    assert sizes == [(ROWS, D)] * (N // ROWS) + [(N % ROWS, D)]


def test_questions_need_vectors_and_a_passage_to_find() -> None:
    index = BlockwiseIndex.of(store(frozenset(), np.float32))
    with pytest.raises(InputError, match="a dense search needs the questions' vectors; name the question tower"):
        index.search(Queries(["what"], None), 1)
    with pytest.raises(InputError, match="cannot retrieve 0 passages; ask for 1 or more"):
        index.search(ASKED, 0)
