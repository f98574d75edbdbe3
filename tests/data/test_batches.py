"""Questions as arrays: every example once an epoch, few shapes, and an order that a seed decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.data.batches import Examples, bucket, in_order, short_enough, tokenize
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import GeneratorTokenizer, train_generator_tokenizer
from rag_jax.data.tower_inputs import QuestionTokenizer
from rag_jax.errors import InputError

LADDER = ((16, 24), (32, 40), (64, 72))
TEXTS = ["how many people live in the town of old", "what is it", "where"]


@pytest.fixture(scope="module")
def vocabulary() -> GeneratorTokenizer:
    return train_generator_tokenizer(TEXTS * 3, 300)


def asked(vocabulary: GeneratorTokenizer) -> QuestionTokenizer:
    return QuestionTokenizer(vocabulary.tokenizer)


def make(vocabulary: GeneratorTokenizer, count: int, seed: int = 0) -> Examples:
    chance = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        words = "old town " * int(chance.integers(1, 12))
        pairs.append((Question(str(number), words, (str(number),), (f"p{number % 5}",)), str(number)))
    rows = {f"p{i}": i for i in range(5)}
    return tokenize(pairs, asked(vocabulary), vocabulary, rows, max_question=128, max_target=8, ladder=LADDER)


@given(question=st.integers(1, 500), prompt=st.integers(1, 500))
def test_a_bucket_holds_both_lengths_and_is_the_lowest_that_does(question: int, prompt: int) -> None:
    found = bucket(question, prompt, LADDER)
    assert question <= found[0]
    assert prompt <= found[1]
    assert all(question > q or prompt > p for q, p in LADDER if (q, p) < found)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 3))
def test_in_order_visits_every_example_once(vocabulary: GeneratorTokenizer, count: int, size: int, seed: int) -> None:
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


def test_gold_passages_become_rows(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question("a", "what", ("1",), ("p2", "elsewhere", "p0")), "1"), (Question("b", "where", ("2",)), "2")]
    examples = tokenize(
        pairs,
        QuestionTokenizer(vocabulary.tokenizer),
        vocabulary,
        {"p0": 0, "p2": 2},
        max_question=16,
        max_target=8,
        ladder=LADDER,
    )
    assert examples.positives.tolist() == [[2, 0], [-1, -1]]


def test_passages_found_beforehand_become_rows_best_first(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question("a", "what", ("1",), (), ("p4", "p0", "p2")), "1"), (Question("b", "where", ("2",)), "2")]
    fixed = {"max_question": 16, "max_target": 8, "ladder": LADDER}
    examples = tokenize(pairs, asked(vocabulary), vocabulary, {"p0": 0, "p4": 4}, num_docs=2, **fixed)
    assert examples.fixed.tolist() == [[4, 0], [-1, -1]]
    assert tokenize(pairs, asked(vocabulary), vocabulary, {}, **fixed).fixed.shape == (2, 0)


@pytest.mark.parametrize(
    ("question", "answer", "what"),
    [
        ("old " * 40, "1", r"question 'q' \(old old .*\) has \d+ tokens, more than max_question = 16"),
        ("old", "9" * 30, "question 'q' has 32 tokens, more than max_target = 8"),
    ],
)
def test_what_is_too_long_is_named(vocabulary: GeneratorTokenizer, question: str, answer: str, what: str) -> None:
    pairs = [(Question("q", question, (answer,)), answer)]
    with pytest.raises(InputError, match=what):
        tokenize(pairs, asked(vocabulary), vocabulary, {}, max_question=16, max_target=8, ladder=LADDER)


def test_fitting_keeps_the_pairs_whose_target_is_short_enough(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question(str(n), "what", ("9" * n,)), "9" * n) for n in range(1, 9)]
    kept = short_enough(pairs, vocabulary, 6)
    assert [answer for _, answer in kept] == ["9", "99", "999", "9999"]  # a space and an end stand around the digits


@given(st.integers(1, 40), st.integers(2, 20))
def test_long_questions_are_cut_before_their_last_token_and_counted(
    vocabulary: GeneratorTokenizer, words: int, most: int
) -> None:
    texts = ["old " * words, "old"]
    pairs = [(Question(str(n), text, ("1",)), "1") for n, text in enumerate(texts)]
    fixed = {"max_target": 8, "ladder": LADDER}
    whole = tokenize(pairs, asked(vocabulary), vocabulary, {}, max_question=1_000, **fixed)
    cut = tokenize(pairs, asked(vocabulary), vocabulary, {}, max_question=most, cut=True, **fixed)
    for read, all_of_it in ((cut.questions, whole.questions), (cut.prompts, whole.prompts)):
        for some, every in zip(read, all_of_it, strict=True):
            assert some == (every if len(every) <= most else [*every[: most - 1], every[-1]])
    longest = [max(map(len, each)) for each in zip(whole.questions, whole.prompts, strict=True)]
    assert cut.cut == sum(length > most for length in longest)
    assert whole.cut == 0
