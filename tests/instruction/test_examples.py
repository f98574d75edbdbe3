"""The mixture: every file has its share of the stream and goes through epochs of its own; the stream is resumed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.data.chats import Example
from rag_jax.instruction.examples import File, Mixture, draws


def mixture(weights: tuple[float, ...], *files: list[int]) -> Mixture:
    """Files of items with so many variants each."""

    def example(name: str) -> Example:
        return Example(name, "", np.zeros(2, np.int32), np.ones(1, np.int32))

    found = [
        File(Path(str(number)), "", [[example(f"{number} {item}")] * variants for item, variants in enumerate(sizes)])
        for number, sizes in enumerate(files)
    ]
    return Mixture(found, weights)


def drawn(mixed: Mixture, count: int, seed: int = 0) -> list[tuple[int, int]]:
    """The file and the item of each of the first examples."""
    names = [mixed.examples[number].id for number in next(draws(mixed, count, seed))]
    return [(int(file), int(item)) for file, item in map(str.split, names)]


@settings(deadline=None, max_examples=10)
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.5]), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_every_file_has_the_share_of_its_weight(weights: list[float], seed: int) -> None:
    mixed = mixture(tuple(weights), *[[1] * size for size in (700, 300, 400)][: len(weights)])
    files = [file for file, _ in drawn(mixed, 700, seed)]
    shares = [files.count(file) / 700 for file in range(len(weights))]
    np.testing.assert_allclose(shares, np.asarray(weights) / sum(weights), atol=0.01)


def test_an_epoch_has_every_item_once_in_another_order() -> None:
    mixed = mixture((1.0, 1.0), [1, 3, 2, 1, 1, 1], [1] * 4)
    items = [item for file, item in drawn(mixed, 48) if file == 0]
    epochs = [items[start : start + 6] for start in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_variants_are_drawn_evenly() -> None:
    mixed = mixture((1.0,), [4])
    numbers = next(draws(mixed, 2_000, 0))
    np.testing.assert_allclose(np.bincount(numbers) / 2_000, 0.25, atol=0.05)


def test_the_order_is_that_of_the_seed() -> None:
    mixed = mixture((1.0, 2.0), [2] * 9, [1] * 9)
    assert drawn(mixed, 30, seed=3) == drawn(mixed, 30, seed=3) != drawn(mixed, 30, seed=4)


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_stream_is_resumed(done: int) -> None:
    mixed = mixture((1.0, 2.0), [2] * 5, [1] * 9)
    whole = draws(mixed, 4, 0)
    for _ in range(done):
        next(whole)
    state, again = whole.get_state(), draws(mixed, 4, 0)
    again.set_state(state)
    for _ in range(8):
        np.testing.assert_array_equal(next(again), next(whole))
