"""Questions as arrays: every example once an epoch, few shapes, and an order that a seed decides."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.data.batches import Examples, bucket, collate, fitting, in_order, order, tokenize
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import Vocabulary, train_vocabulary
from rag_jax.errors import InputError
from rag_jax.types import Batch

LADDER = ((16, 24), (32, 40), (64, 72))
TEXTS = ["how many people live in the town of old", "what is it", "where"]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return train_vocabulary(TEXTS * 3, 300)


def batches(examples: Examples, vocabulary: Vocabulary, seed: int = 0, skip: int = 0) -> Iterator[Batch]:
    """Shuffled batches of four, without end."""
    return (collate(examples, chosen, vocabulary) for chosen in order(examples, 4, seed, skip))


def make(vocabulary: Vocabulary, count: int, seed: int = 0) -> Examples:
    chance = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        words = "old town " * int(chance.integers(1, 12))
        pairs.append((Question(str(number), words, (str(number),), (f"p{number % 5}",)), str(number)))
    rows = {f"p{i}": i for i in range(5)}
    return tokenize(pairs, vocabulary.tokenizer, vocabulary, rows, max_question=128, max_target=8, ladder=LADDER)


@given(question=st.integers(1, 500), prompt=st.integers(1, 500))
def test_a_bucket_holds_both_lengths_and_is_the_lowest_that_does(question: int, prompt: int) -> None:
    found = bucket(question, prompt, LADDER)
    assert question <= found[0]
    assert prompt <= found[1]
    assert all(question > q or prompt > p for q, p in LADDER if (q, p) < found)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 3))
def test_in_order_visits_every_example_once(vocabulary: Vocabulary, count: int, size: int, seed: int) -> None:
    examples = make(vocabulary, count, seed)
    seen = []
    for batch, chosen in in_order(examples, vocabulary, size):
        assert batch.question.ids.shape[0] == size
        for row, number in enumerate(chosen):
            kept = batch.targets[row][batch.target_mask[row]].tolist()
            assert kept == examples.targets[number]
            assert batch.decoder_inputs[row, : len(kept)].tolist() == [vocabulary.bos, *kept[:-1]]
            assert batch.prompt.ids[row, : batch.prompt.lengths[row]].tolist() == examples.prompts[number]
        seen += chosen.tolist()
    assert sorted(seen) == list(range(count))


def test_an_epoch_of_training_holds_every_example_once_but_for_what_waits(vocabulary: Vocabulary) -> None:
    examples = make(vocabulary, 48)
    rungs = len(set(map(tuple, examples.buckets.tolist())))
    seen = [
        row for batch in islice(batches(examples, vocabulary, seed=1), 3 * 12) for row in answers(batch, vocabulary)
    ]
    counts = np.bincount(np.asarray(seen), minlength=48)
    assert counts.min() >= 2  # at most one batch of each bucket still waits
    assert counts.max() <= 4
    assert len(seen) >= 3 * 48 - rungs * 4


def answers(batch, vocabulary: Vocabulary) -> list[int]:
    return [int(vocabulary.text(row[mask])) for row, mask in zip(batch.targets, batch.target_mask, strict=True)]


def test_the_order_is_the_seed_s_and_skipping_is_going_on(vocabulary: Vocabulary) -> None:
    examples = make(vocabulary, 30)

    def order(seed: int, skip: int, count: int) -> list[list[int]]:
        return [answers(batch, vocabulary) for batch in islice(batches(examples, vocabulary, seed, skip), count)]

    assert order(1, 0, 12) == order(1, 0, 12)
    assert order(1, 0, 12)[5:] == order(1, 5, 7)
    assert order(1, 0, 12) != order(2, 0, 12)


def test_shapes_are_as_many_as_buckets(vocabulary: Vocabulary) -> None:
    examples = make(vocabulary, 60)
    seen = list(islice(batches(examples, vocabulary), 60))
    shapes = {(batch.question.ids.shape, batch.prompt.ids.shape) for batch in seen}
    assert shapes == {((4, q), (4, p)) for q, p in set(map(tuple, examples.buckets.tolist()))}


def test_gold_passages_become_rows(vocabulary: Vocabulary) -> None:
    pairs = [(Question("a", "what", ("1",), ("p2", "elsewhere", "p0")), "1"), (Question("b", "where", ("2",)), "2")]
    examples = tokenize(
        pairs, vocabulary.tokenizer, vocabulary, {"p0": 0, "p2": 2}, max_question=16, max_target=8, ladder=LADDER
    )
    assert examples.positives.tolist() == [[2, 0], [-1, -1]]


@pytest.mark.parametrize(
    ("question", "answer", "what"),
    [
        ("old " * 40, "1", "question 'q' has .* max_question = 16"),
        ("old", "9" * 30, "question 'q' has 32 .* max_target = 8"),
    ],
)
def test_what_is_too_long_is_named(vocabulary: Vocabulary, question: str, answer: str, what: str) -> None:
    pairs = [(Question("q", question, (answer,)), answer)]
    with pytest.raises(InputError, match=what):
        tokenize(pairs, vocabulary.tokenizer, vocabulary, {}, max_question=16, max_target=8, ladder=LADDER)


def test_no_examples_is_an_error(vocabulary: Vocabulary) -> None:
    empty = Examples([], [], [], [], np.zeros((0, 1), np.int32), np.zeros((0, 2), np.int32))
    with pytest.raises(InputError, match="no examples"):
        order(empty, 4, 0)


def test_fitting_keeps_the_pairs_whose_target_is_short_enough(vocabulary: Vocabulary) -> None:
    pairs = [(Question(str(n), "what", ("9" * n,)), "9" * n) for n in range(1, 9)]
    kept = fitting(pairs, vocabulary, 6)
    assert [answer for _, answer in kept] == ["9", "99", "999", "9999"]  # a space and an end stand around the digits
