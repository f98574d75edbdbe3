"""Reciprocal rank fusion against a loop."""

from dataclasses import dataclass

import numpy as np
import pytest

from rag_jax.errors import InputError
from rag_jax.index.engines.engine import EngineResults, Queries, select_top_k
from rag_jax.index.engines.hybrid import Hybrid

ASKED = Queries(["a", "b", "c"], None)


@dataclass(frozen=True)
class Listed:
    """An engine that finds listed rows, whatever it is asked."""

    rows: list[list[int]]

    def search(self, asked, k, excluded=None) -> EngineResults:
        width = max(map(len, self.rows), default=0)
        rows = np.asarray([row + [-1] * (width - len(row)) for row in self.rows]).reshape(len(self.rows), width)
        return select_top_k(rows, np.zeros(rows.shape), k, excluded)


def shuffled(seed: int, count: int = 30) -> Listed:
    rng = np.random.default_rng(seed)
    return Listed([rng.permutation(40)[: rng.integers(0, count)].tolist() for _ in ASKED.texts])


def naive(engines: list[Listed], k: int, constant: float, depth: int, barred: list[int]) -> list[list[tuple]]:
    """Per question the best (row, score)."""
    fused = []
    for question in range(len(ASKED.texts)):
        scores: dict[int, float] = {}
        for engine in engines:
            found = [row for row in engine.rows[question] if row != barred[question]][:depth]
            for rank, row in enumerate(found, start=1):
                scores[row] = scores.get(row, 0.0) + 1 / (constant + rank)
        ranked = sorted(scores.items(), key=lambda item: (-round(item[1], 12), item[0]))
        fused.append((ranked + [(-1, -np.inf)] * k)[:k])
    return fused


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("k", "depth", "constant"), [(5, 100, 60), (10, 10, 60), (3, 4, 1), (45, 50, 10)])
def test_engines_are_fused_as_in_a_loop(seed: int, k: int, depth: int, constant: float) -> None:
    engines = [shuffled(10 * seed + number) for number in range(3)]
    barred = [7, -1, 39]
    hits = Hybrid(engines, constant, depth).search(ASKED, k, np.asarray(barred)[:, None])
    for rows, scores, expected in zip(
        hits.rows.tolist(), hits.scores.tolist(), naive(engines, k, constant, depth, barred), strict=True
    ):
        assert rows == [row for row, _ in expected]
        np.testing.assert_allclose(scores, [score for _, score in expected], rtol=1e-6)
    assert hits.recall is None


def test_equal_scores_are_in_the_order_of_the_rows_whichever_engines_gave_the_ranks() -> None:
    engines = [Listed([each]) for each in ([9, 4, 2], [4, 2, 9], [2, 9, 4])]
    hits = Hybrid(engines).search(Queries(["?"], None), 3)
    assert hits.rows.tolist() == [[2, 4, 9]]
    assert len(set(hits.scores[0].tolist())) == 1


def test_one_engine_keeps_its_order() -> None:
    assert Hybrid([Listed([[5, 3, 8]])]).search(Queries(["?"], None), 4).rows.tolist() == [[5, 3, 8, -1]]


def test_more_than_the_depth_can_be_asked_for() -> None:
    engines = [Listed([list(range(20))]), Listed([list(range(20))])]
    assert Hybrid(engines, depth=5).search(Queries(["?"], None), 12).rows.tolist() == [list(range(12))]


def test_fewer_than_one_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match="cannot retrieve 0 passages"):
        Hybrid([shuffled(0)]).search(ASKED, 0)


def test_nothing_asked_nothing_found() -> None:
    assert Hybrid([Listed([])]).search(Queries([], None), 2).rows.shape == (0, 2)
