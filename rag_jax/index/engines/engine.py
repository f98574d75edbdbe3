"""The interface of search engines: queries, results, and the selection of the top k among candidates."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from rag_jax.errors import InputError


class Queries(NamedTuple):
    """Questions as text and as vectors; an engine uses what it needs."""

    texts: Sequence[str]
    vectors: Float[np.ndarray, "B D"] | None  # q(x); None for engines that do not need them

    @property
    def required_vectors(self) -> Float[np.ndarray, "B D"]:
        """q(x). Raises `InputError` for questions without vectors."""
        if self.vectors is None:
            raise InputError("a dense search needs the questions' vectors; name the question tower")
        return self.vectors


class EngineResults(NamedTuple):
    """The rows found, best first."""

    rows: Int32[np.ndarray, "B K"]  # -1 where fewer than K were found
    scores: Float32[np.ndarray, "B K"]  # -inf for those
    recall: float | None  # the engine's measured recall@K; 1: exact; None: unknown or not applicable


class Engine(Protocol):
    """A search over the rows of a store."""

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question, without those in `excluded` (-1: none)."""
        ...


def select_top_k(
    rows: Int[np.ndarray, "B C"],
    scores: Float[np.ndarray, "B C"],
    k: int,
    excluded: Int[np.ndarray, "B E"] | None = None,
    alive: Bool[np.ndarray, " N"] | None = None,
    recall: float | None = None,
) -> EngineResults:
    """The first k candidates that are valid (not -1), alive and not excluded, in their order."""
    valid = rows >= 0
    if alive is not None:
        valid &= alive[np.maximum(rows, 0)]
    if excluded is not None:
        valid &= ~(rows[:, :, None] == excluded[:, None, :]).any(axis=2)
    order = np.argsort(~valid, axis=1, kind="stable")[:, :k]
    selected = np.take_along_axis(valid, order, axis=1)
    padding = ((0, 0), (0, k - selected.shape[1]))
    top_rows = np.where(selected, np.take_along_axis(rows, order, axis=1), -1)
    top_scores = np.where(selected, np.take_along_axis(scores, order, axis=1), -np.inf)
    return EngineResults(
        np.pad(top_rows, padding, constant_values=-1).astype(np.int32),
        np.pad(top_scores, padding, constant_values=-np.inf).astype(np.float32),
        recall,
    )


def num_candidates(k: int, excluded: Int[np.ndarray, "B E"] | None, removed: int = 0) -> int:
    """The number of candidates that leaves k after the excluded and the `removed` rows are dropped."""
    if k < 1:
        raise InputError(f"cannot retrieve {k} passages; ask for 1 or more")
    return k + removed + (0 if excluded is None else excluded.shape[1])
