"""Candidates become the K best that count, as a plain loop finds them."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from rag_jax.errors import InputError
from rag_jax.index.engines.engine import num_candidates, select_top_k

N = 6


@st.composite
def searches(draw):
    batch, count, barred = draw(st.integers(0, 3)), draw(st.integers(0, 8)), draw(st.integers(0, 3))
    rows = draw(arrays(np.int64, (batch, count), elements=st.integers(-1, N - 1)))
    excluded = draw(st.none() | arrays(np.int32, (batch, barred), elements=st.integers(-1, N)))
    alive = draw(st.none() | arrays(np.bool_, N))
    scores = np.sort(draw(arrays(np.float32, (batch, count), elements=st.floats(-9, 9, width=32))), axis=1)[:, ::-1]
    return rows, scores, draw(st.integers(1, 10)), excluded, alive


@given(searches())
def test_the_first_k_that_count_are_those_of_a_loop(search) -> None:
    rows, scores, k, excluded, alive = search
    hits = select_top_k(rows, scores, k, excluded, alive)
    assert hits.rows.shape == hits.scores.shape == (len(rows), k)
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)
    for question in range(len(rows)):
        expected = [
            (row, score)
            for row, score in zip(rows[question].tolist(), scores[question].tolist(), strict=True)
            if row >= 0
            and (alive is None or alive[row])
            and (excluded is None or row not in excluded[question].tolist())
        ]
        expected = (expected + [(-1, -np.inf)] * k)[:k]
        assert list(zip(hits.rows[question].tolist(), hits.scores[question].tolist(), strict=True)) == expected


def test_nothing_excluded_is_minus_one() -> None:
    rows, scores = np.asarray([[4, 2, -1]]), np.asarray([[3.0, 2.0, -np.inf]])
    hits = select_top_k(rows, scores, 2, np.asarray([[-1, -1]]))
    assert hits.rows.tolist() == [[4, 2]]


def test_a_recall_goes_with_what_was_found() -> None:
    assert select_top_k(np.zeros((1, 1), int), np.zeros((1, 1)), 1, recall=0.5).recall == 0.5


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_than_one_cannot_be_asked_for(k: int) -> None:
    with pytest.raises(InputError, match=f"^cannot retrieve {k} passages; ask for 1 or more$"):
        num_candidates(k, None)


def test_as_many_more_are_asked_for_as_may_be_dropped() -> None:
    assert num_candidates(5, None) == 5
    assert num_candidates(5, np.full((2, 3), -1), removed=4) == 12
