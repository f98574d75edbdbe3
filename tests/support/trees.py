"""Decoder tokens in trees of answers: every row has a tree of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_jax.types import DecoderPositions, Generator, Params


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


def assert_branches_are_lines(
    network: Generator,
    params: Params,
    ids: Any,
    encoded: Any,
    rng: np.random.Generator,
    chunks: Sequence[int],
    spare: int,
) -> tuple[Any, DecoderPositions]:
    """Each token of a random tree, read in chunks, has the state that it has at the end of its own branch in a line.

    Returns the cache, which has `spare` slots more than tokens, and where the tokens were placed.
    """
    import oracle  # needs torch, which the placement of tokens does not

    rows, length = ids.shape
    parents = some_trees(rng, rows, length)
    whole = placed(parents, length + spare)
    cache, parts, done = network.empty_cache(rows, length + spare), [], 0
    for size in chunks:
        now = slice(done, done + size)
        place = DecoderPositions(whole.position[:, now], whole.visible[:, now])
        part, cache = network.decode(params, ids[:, now], encoded, cache, place)
        parts.append(part)
        done += size
    found = np.concatenate(parts, axis=1)
    for t in range(length):
        paths = [path(row, t) for row in parents]
        filled = np.array([each + [t] * (length - len(each)) for each in paths])  # what follows is not looked at
        line, _ = network.decode(params, np.take_along_axis(np.asarray(ids), filled, axis=1), encoded)
        for row, each in enumerate(paths):
            assert oracle.relative(found[row, t], line[row, len(each) - 1]) < 1e-5
    return cache, whole
