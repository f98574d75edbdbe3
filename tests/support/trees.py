"""Decoder tokens in trees of answers: every row has a tree of its own."""

import numpy as np

from rag_jax.types import DecoderPositions


def some_trees(rng: np.random.Generator, rows: int, length: int) -> np.ndarray:
    """The parent `[rows, length]` of each token, among those before it; -1: it begins an answer."""
    parents = np.array([[rng.integers(-1, t) if t else -1 for t in range(length)] for _ in range(rows)])
    assert len({tuple(row) for row in parents}) == rows
    assert all(len(set(row)) < length for row in parents)  # there are siblings
    return parents


def path(parents: np.ndarray, t: int) -> list[int]:
    """A token and those before it in its answer, first things first."""
    return [] if t < 0 else [*path(parents, parents[t]), t]


def placed(parents: np.ndarray, slots: int | None = None) -> DecoderPositions:
    """Where the tokens stand, in a cache with so many slots; None: one for each."""
    position = np.zeros(parents.shape, np.int32)
    visible = np.zeros((*parents.shape, slots or parents.shape[1]), bool)
    for row, t in np.ndindex(*parents.shape):
        seen = path(parents[row], t)
        position[row, t], visible[row, t, seen] = len(seen) - 1, True
    return DecoderPositions(position, visible)
