"""A search engine of your own: random hyperplanes (Charikar 2002) choose candidates, inner products rank them.

python -m examples.own_search_engine

To name it in a config (`retriever.engine`), add a line to `ENGINES` in rag_jax/index/engines/registry.py.
"""

from dataclasses import dataclass

import numpy as np

from rag_jax.index.engines.engine import EngineResults, Queries, num_candidates, select_top_k
from rag_jax.index.engines.recall import recall


@dataclass(frozen=True)
class Exact:
    """The oracle: all inner products."""

    vectors: np.ndarray  # [N, D]

    def search(self, queries: Queries, k: int, excluded=None) -> EngineResults:
        return ranked(queries.vectors @ self.vectors.T, k, excluded)


@dataclass(frozen=True)
class Hyperplanes:
    """Only the passages whose signs differ from the query's in few places are compared."""

    vectors: np.ndarray
    planes: np.ndarray  # [D, bits]
    radius: int

    def search(self, queries: Queries, k: int, excluded=None) -> EngineResults:
        signs, own = self.vectors @ self.planes > 0, queries.vectors @ self.planes > 0
        distance = (own[:, None] != signs[None]).sum(axis=2)
        scores = np.where(distance <= self.radius, queries.vectors @ self.vectors.T, -np.inf)
        return ranked(scores, k, excluded)


def ranked(scores: np.ndarray, k: int, excluded) -> EngineResults:
    """The k best rows of each query; -1 where fewer were compared."""
    rows = np.argsort(-scores, axis=1)[:, : num_candidates(k, excluded)]
    values = np.take_along_axis(scores, rows, axis=1)
    return select_top_k(np.where(np.isneginf(values), -1, rows), values, k, excluded)


def main() -> dict[str, float]:
    rng = np.random.default_rng(0)
    vectors, asked = rng.normal(size=(2_000, 32)), rng.normal(size=(64, 32))
    queries, found = Queries([""] * len(asked), asked), {}
    for radius in (8, 10, 12):
        engine = Hyperplanes(vectors, rng.normal(size=(32, 32)), radius)
        found = recall(engine, Exact(vectors), queries, ks=(1, 10))
        print(f"radius {radius} of 32:", {name: round(value, 2) for name, value in found.items()})
    return found


if __name__ == "__main__":
    main()
