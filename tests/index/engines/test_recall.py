"""What the recall of an engine counts."""

from dataclasses import dataclass

import numpy as np
import pytest

from rag_jax.index.columns import SegmentedArray
from rag_jax.index.engines.engine import EngineResults, Queries, select_top_k
from rag_jax.index.engines.recall import recall, sample_queries

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(30, 4)).astype(np.float32)
ASKED = Queries([""] * 6, RNG.normal(size=(6, 4)).astype(np.float32))


@dataclass(frozen=True)
class Scored:
    """An engine whose scores are given: exact for them."""

    scores: np.ndarray  # [B, N]

    def search(self, asked, k, excluded=None) -> EngineResults:
        order = np.argsort(-self.scores, axis=1, kind="stable")
        return select_top_k(order, np.take_along_axis(self.scores, order, axis=1), k, excluded)


PRODUCTS = ASKED.vectors @ VECTORS.T
EXACT = Scored(PRODUCTS)


@pytest.mark.parametrize("k", [1, 4, 7, 30])
def test_recall_is_the_share_of_the_exact_rows(k: int) -> None:
    noisy = Scored(PRODUCTS + RNG.normal(size=PRODUCTS.shape))
    found, right = noisy.search(ASKED, k).rows.tolist(), EXACT.search(ASKED, k).rows.tolist()
    shares = [len(set(a) & set(b)) / k for a, b in zip(found, right, strict=True)]
    assert recall(noisy, EXACT, ASKED, (k,)) == {f"recall@{k}": pytest.approx(np.mean(shares))}


def test_an_exact_engine_finds_all() -> None:
    assert recall(EXACT, EXACT, ASKED) == {f"recall@{k}": 1.0 for k in (1, 5, 10, 20)}, "there are no 100 rows"


def test_an_engine_that_finds_nothing_has_none() -> None:
    nothing = Scored(np.where(np.arange(30) < 30, -np.inf, PRODUCTS))
    wrong = Scored(-PRODUCTS)
    assert recall(wrong, EXACT, ASKED, (1, 5)) == {"recall@1": 0.0, "recall@5": 0.0}
    empty = select_top_k(np.full((6, 5), -1), nothing.scores[:, :5], 5)
    assert recall(Given(empty), EXACT, ASKED, (5,)) == {"recall@5": 0.0}


@dataclass(frozen=True)
class Given:
    """An engine that finds what it is told to."""

    hits: EngineResults

    def search(self, asked, k, excluded=None) -> EngineResults:
        return EngineResults(self.hits.rows[:, :k], self.hits.scores[:, :k], None)


def test_rows_as_good_as_the_last_count_whichever_are_found() -> None:
    scores = np.asarray([[5.0, 3, 3, 3, 3, 3, 3, 1]], np.float32)
    late = np.asarray([[5.0, 0, 0, 0, 0, 0, 3, 1]], np.float32)
    asked = Queries([""], None)
    assert recall(Scored(late), Scored(scores), asked, (2,)) == {"recall@2": 1.0}
    assert recall(Scored(late), Scored(scores), asked, (3,)) == {"recall@3": pytest.approx(2 / 3)}


def test_scores_that_differ_by_rounding_are_equal_but_no_others() -> None:
    asked, engine = Queries([""], None), Scored(np.asarray([[0.0, 1]]))
    assert recall(engine, Scored(np.asarray([[1.0, np.nextafter(np.float32(1), np.float32(0))]])), asked, (1,)) == {
        "recall@1": 1.0
    }
    assert recall(engine, Scored(np.asarray([[1.0, 0.999]])), asked, (1,)) == {"recall@1": 0.0}


def test_each_k_is_asked_for_by_itself() -> None:
    depths = []

    class Watched(Scored):
        def search(self, asked, k, excluded=None) -> EngineResults:
            depths.append(k)
            return super().search(asked, k, excluded)

    recall(Watched(PRODUCTS), EXACT, ASKED, (1, 5))
    assert depths == [1, 5]


def test_what_is_excluded_is_so_for_both() -> None:
    """A query that is a row of the index finds itself even where the engine knows nothing else."""
    queries, rows = sample_queries(VECTORS, 10, seed=3)
    products = queries @ VECTORS.T
    knows_itself = Scored(np.where(np.arange(30) == rows, 9e9, -products))
    best_of_all = Scored(np.where(np.arange(30) == rows, 9e9, products))
    asked = Queries([""] * 10, queries)
    assert recall(knows_itself, best_of_all, asked, (1,)) == {"recall@1": 1.0}
    assert recall(knows_itself, best_of_all, asked, (1,), rows) == {"recall@1": 0.0}


def test_no_questions_give_no_recall() -> None:
    assert recall(EXACT, EXACT, Queries([], None)) == {}


def test_queries_are_vectors_of_the_index_with_their_rows() -> None:
    alive = np.arange(30) % 3 > 0
    pieces = SegmentedArray([VECTORS[:11].astype(np.float16).astype(np.float32), VECTORS[11:]])
    for vectors in (VECTORS, pieces):
        queries, rows = sample_queries(vectors, 12, 0, alive)
        assert (queries.shape, rows.shape, queries.dtype) == ((12, 4), (12, 1), np.float32)
        np.testing.assert_array_equal(queries, vectors[rows[:, 0]])
        assert len(set(rows[:, 0].tolist())) == 12
        assert alive[rows].all()
    assert not np.array_equal(sample_queries(VECTORS, 12, 0)[1], sample_queries(VECTORS, 12, 1)[1])
    np.testing.assert_array_equal(sample_queries(VECTORS, 99, 0)[1][:, 0], np.arange(30))
