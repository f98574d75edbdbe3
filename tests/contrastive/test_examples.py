"""What a batch consists of, epoch by epoch."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from rag_jax.contrastive.examples import Examples, draws
from rag_jax.data.question import Question


@pytest.fixture
def examples() -> Examples:
    """Six questions; the first has two gold passages, the last no hard negatives."""
    questions = [Question(str(number), f"q{number}", ("a",)) for number in range(6)]
    gold = [[0, 100], [1], [2], [3], [4], [5]]
    negatives = [[10, 11, 12], [20, 21], [30], [40, 41], [50, 51, 52], []]
    return Examples(questions, [[1, 2]] * 6, gold, negatives)


def test_other_passages_of_a_gold_document_are_right_and_not_drawn(examples: Examples) -> None:
    assert examples.right == examples.gold
    split = replace(examples, pieces=[[], [101, 102], [], [], [], []])
    assert split.right[1] == [1, 101, 102]
    drawn = np.concatenate([epoch(split, seed=0, number=number) for number in range(4)])
    assert set(drawn[drawn[:, 0] == 1, 1].tolist()) == {1}


def epoch(examples: Examples, seed: int, number: int = 0) -> np.ndarray:
    drawn = draws(examples, 3, 2, seed)
    return np.concatenate(list(islice(drawn, 2 * number, 2 * number + 2)))


def test_an_epoch_has_every_question_once_with_its_own_passages(examples: Examples) -> None:
    for number in range(3):
        drawn = epoch(examples, seed=0, number=number)
        assert sorted(drawn[:, 0].tolist()) == list(range(6))
        for question, gold, *negatives in drawn.tolist():
            assert gold in examples.gold[question]
            kept = [row for row in negatives if row >= 0]
            assert set(kept) <= set(examples.negatives[question])
            assert len(set(kept)) == len(kept) == min(2, len(examples.negatives[question]))


def test_gold_passages_and_negatives_are_drawn_anew(examples: Examples) -> None:
    drawn = np.concatenate([epoch(examples, seed=0, number=number) for number in range(12)])
    first = drawn[drawn[:, 0] == 0]
    assert set(first[:, 1].tolist()) == {0, 100}
    assert set(first[:, 2:].reshape(-1).tolist()) == {10, 11, 12}


def test_the_order_follows_from_the_seed(examples: Examples) -> None:
    assert np.array_equal(epoch(examples, seed=1), epoch(examples, seed=1))
    assert not np.array_equal(epoch(examples, seed=1), epoch(examples, seed=2))


def test_it_is_resumed_where_it_was(examples: Examples) -> None:
    whole = list(islice(draws(examples, 4, 2, 0), 5))
    begun = draws(examples, 4, 2, 0)
    for _ in range(2):
        next(begun)
    resumed = draws(examples, 4, 2, 0)
    resumed.set_state(begun.get_state())
    for one, other in zip(whole[2:], islice(resumed, 3), strict=True):
        np.testing.assert_array_equal(one, other)
