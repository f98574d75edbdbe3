"""The order of training: every example once an epoch, one bucket a batch, and a place that can be kept."""

import json
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypotheses
from rag_jax.data.batches import Examples, TokenizedQuestions
from rag_jax.data.stream import example_stream
from rag_jax.errors import InputError

cases = hypotheses.costly


def examples(count: int, rungs: int = 3, per_question: int = 1) -> Examples:
    """`count` examples in `rungs` buckets, `per_question` of them for each question."""
    buckets = np.asarray([[8 * (1 + n % rungs), 9 * (1 + n % rungs)] for n in range(count)], np.int32).reshape(-1, 2)
    rows, empty = np.zeros((count, 1), np.int32), [[]] * count
    ids = [str(n // per_question) for n in range(count)]
    return Examples(TokenizedQuestions(ids, [""] * count, empty, empty, buckets), empty, rows, rows, 8)


def drawn(held: Examples, count: int, seed: int = 0, size: int = 4, **options) -> list[list[int]]:
    return [each.tolist() for each in islice(example_stream(held, size, seed, **options), count)]


@cases
@given(rungs=st.integers(1, 5), size=st.integers(1, 6), seed=st.integers(0, 9))
def test_epochs_hold_every_example_once_but_for_what_waits(rungs: int, size: int, seed: int) -> None:
    held = examples(30, rungs)
    epochs = 4
    seen = drawn(held, epochs * 30 // size, seed, size)
    for batch in seen:
        assert len({tuple(held.questions.buckets[each].tolist()) for each in batch}) == 1
    counts = np.bincount(np.concatenate(seen), minlength=30)
    waiting = -(-rungs * size // 30) + 1
    assert epochs - waiting <= counts.min() <= counts.max() <= epochs + waiting


def test_each_epoch_is_shuffled_anew_by_the_seed() -> None:
    one = drawn(examples(20, 1), 10, size=4)
    epochs = [list(chain(*one[:5])), list(chain(*one[5:]))]
    assert [sorted(each) for each in epochs] == [list(range(20))] * 2
    assert epochs[0] != epochs[1]
    assert one == drawn(examples(20, 1), 10, size=4)
    assert one != drawn(examples(20, 1), 10, size=4, seed=1)


@cases
@given(stop=st.integers(0, 40), seed=st.integers(0, 3), sampled=st.booleans())
def test_a_stream_goes_on_from_its_place_as_if_it_had_not_stopped(stop: int, seed: int, sampled: bool) -> None:
    held = examples(26, 3, per_question=2)
    whole = drawn(held, 50, seed, sampled=sampled)
    first = example_stream(held, 4, seed, sampled)
    before = [next(first).tolist() for _ in range(stop)]
    second = example_stream(held, 4, seed, sampled)
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert before + [next(second).tolist() for _ in range(50 - stop)] == whole


def test_one_answer_of_each_question_is_drawn_anew_in_each_epoch() -> None:
    held = examples(60, 1, per_question=3)
    epochs = np.concatenate(drawn(held, 40, size=20, sampled=True)).reshape(40, 20)
    for epoch in epochs:
        assert sorted(epoch // 3) == list(range(20)), "each question once"
    counts = np.bincount(epochs.reshape(-1), minlength=60)
    assert counts.min() > 2, "every answer has its turn"
    assert len({tuple(sorted(epoch)) for epoch in epochs}) > 1


def test_no_examples_is_an_error() -> None:
    with pytest.raises(InputError, match="no examples to train on; give a question file"):
        example_stream(examples(0), 4, 0)
