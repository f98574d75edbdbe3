"""One interface for every engine: what is asked, what is found, and how candidates become the K best that count."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from rag_jax.errors import InputError


class Queries(NamedTuple):
    """What is searched for; an engine takes what it needs."""

    texts: Sequence[str]
    vectors: Float[np.ndarray, "B D"] | None  # q(x); None where nobody made them


class EngineResults(NamedTuple):
    """What was found, best first."""

    rows: Int32[np.ndarray, "B K"]  # -1 where fewer than K were found
    scores: Float32[np.ndarray, "B K"]  # -inf for those
    recall: float | None  # the engine's recall@K as measured; 1: exact; None: not measured, or of another kind


class Engine(Protocol):
    """A search over the rows of a store."""

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question; those of `excluded` (-1: none) are not among them."""
        ...


def select_top_k(
    rows: Int[np.ndarray, "B C"],
    scores: Float[np.ndarray, "B C"],
    k: int,
    excluded: Int[np.ndarray, "B E"] | None = None,
    alive: Bool[np.ndarray, " N"] | None = None,
    recall: float | None = None,
) -> EngineResults:
    """The first k candidates that count: rows that exist, are alive, and are not excluded; their order stays."""
    counts = rows >= 0
    if alive is not None:
        counts &= alive[np.maximum(rows, 0)]
    if excluded is not None:
        counts &= ~(rows[:, :, None] == excluded[:, None, :]).any(axis=2)
    order = np.argsort(~counts, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(counts, order, axis=1)
    missing = ((0, 0), (0, k - kept.shape[1]))
    found = np.where(kept, np.take_along_axis(rows, order, axis=1), -1)
    told = np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf)
    return EngineResults(
        np.pad(found, missing, constant_values=-1).astype(np.int32),
        np.pad(told, missing, constant_values=-np.inf).astype(np.float32),
        recall,
    )


def num_candidates(k: int, excluded: Int[np.ndarray, "B E"] | None, dead: int = 0) -> int:
    """How many to ask for, lest the excluded and the `dead` ones take the places of others."""
    if k < 1:
        raise InputError(f"cannot retrieve {k} passages; ask for 1 or more")
    return k + dead + (0 if excluded is None else excluded.shape[1])
