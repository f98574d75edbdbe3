"""Questions as arrays: every example once an epoch, few shapes, and an order that a seed decides."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from rag_jax.data.batches import Examples, ExampleTokenizer, Pair, batches_by_bucket, bucket, collate, collate_questions
from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import GeneratorTokenizer, train_generator_tokenizer
from rag_jax.data.tower_inputs import QuestionTokenizer
from rag_jax.errors import InputError

BUCKETS = ((16, 24), (32, 40), (64, 72))
TEXTS = ["how many people live in the town of old", "what is it", "where"]


@pytest.fixture(scope="module")
def vocabulary() -> GeneratorTokenizer:
    return train_generator_tokenizer(TEXTS * 3, 300)


def example_tokenizer(vocabulary: GeneratorTokenizer, max_question: int = 16, **options: Any) -> ExampleTokenizer:
    return ExampleTokenizer(QuestionTokenizer(vocabulary.tokenizer), vocabulary, max_question, 8, BUCKETS, **options)


def make(vocabulary: GeneratorTokenizer, count: int, seed: int = 0) -> Examples:
    chance = np.random.default_rng(seed)
    pairs: list[Pair] = []
    for number in range(count):
        words = "old town " * int(chance.integers(1, 12))
        pairs.append((Question(str(number), words, (str(number),), (f"p{number % 5}",)), str(number)))
    rows = {f"p{i}": i for i in range(5)}
    return example_tokenizer(vocabulary, 128)(pairs, rows)


@given(question=st.integers(1, 500), prompt=st.integers(1, 500))
def test_a_bucket_holds_both_lengths_and_is_the_lowest_that_does(question: int, prompt: int) -> None:
    found = bucket(question, prompt, BUCKETS)
    assert question <= found[0]
    assert prompt <= found[1]
    assert all(question > q or prompt > p for q, p in BUCKETS if (q, p) < found)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 3))
def test_every_example_is_in_one_batch(vocabulary: GeneratorTokenizer, count: int, size: int, seed: int) -> None:
    examples = make(vocabulary, count, seed)
    seen = []
    for numbers, num_new in batches_by_bucket(examples.questions, size):
        batch = collate(examples, numbers, vocabulary)
        assert batch.question.ids.shape[0] == size
        for row, number in enumerate(numbers):
            target = batch.targets[row][batch.target_mask[row]].tolist()
            assert target == examples.target_tokens[number]
            assert batch.decoder_inputs[row, : len(target)].tolist() == [vocabulary.bos, *target[:-1]]
            prompt = batch.prompt.ids[row, : batch.prompt.lengths[row]].tolist()
            assert prompt == examples.questions.prompt_tokens[number]
        assert set(numbers[num_new:]) <= set(numbers[:num_new])
        seen += numbers[:num_new].tolist()
    assert sorted(seen) == list(range(count))


def test_skipped_questions_are_in_no_batch(vocabulary: GeneratorTokenizer) -> None:
    questions = make(vocabulary, 9).questions
    seen = [number for numbers, size in batches_by_bucket(questions, 2, skip=[0, 4]) for number in numbers[:size]]
    assert sorted(seen) == [1, 2, 3, 5, 6, 7, 8]


def test_questions_without_targets_are_those_of_the_examples(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question("a", "what", ("1",)), "1"), (Question("b", "where", ("2",)), "2")]
    tokenizer = replace(example_tokenizer(vocabulary), max_target=1)  # too short for any target
    questions = tokenizer.questions([question for question, _ in pairs])
    examples = example_tokenizer(vocabulary)(pairs, {})
    inputs, batch = collate_questions(questions, np.arange(2), vocabulary), collate(examples, np.arange(2), vocabulary)
    for tokens, expected in ((inputs.question, batch.question), (inputs.prompt, batch.prompt)):
        np.testing.assert_array_equal(tokens.ids, expected.ids)
        np.testing.assert_array_equal(tokens.lengths, expected.lengths)


def test_gold_passages_become_rows(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question("a", "what", ("1",), ("p2", "elsewhere", "p0")), "1"), (Question("b", "where", ("2",)), "2")]
    examples = example_tokenizer(vocabulary)(pairs, {"p0": 0, "p2": 2})
    assert examples.positives.tolist() == [[2, 0], [-1, -1]]


def test_passages_found_beforehand_become_rows_best_first(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question("a", "what", ("1",), (), ("p4", "p0", "p2")), "1"), (Question("b", "where", ("2",)), "2")]
    examples = example_tokenizer(vocabulary, num_docs=2)(pairs, {"p0": 0, "p4": 4})
    assert examples.fixed.tolist() == [[4, 0], [-1, -1]]
    some = example_tokenizer(vocabulary, num_docs=2)(pairs, {"p0": 0, "p2": 2})
    assert some.fixed.tolist() == [[0, 2], [-1, -1]], "the best two that the index holds"
    assert example_tokenizer(vocabulary)(pairs, {}).fixed.shape == (2, 0)


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
        example_tokenizer(vocabulary)(pairs, {})


def test_pairs_with_short_targets_are_kept(vocabulary: GeneratorTokenizer) -> None:
    pairs = [(Question(str(n), "what", ("9" * n,)), "9" * n) for n in range(1, 9)]
    kept = replace(example_tokenizer(vocabulary), max_target=6).short_targets(pairs)
    assert [answer for _, answer in kept] == ["9", "99", "999", "9999"]  # a space and an end stand around the digits


def test_all_special_tokens_at_the_end_of_a_long_question_stay(vocabulary: GeneratorTokenizer) -> None:
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer.to_str())
    end = ("</s>", tokenizer.token_to_id("</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s> </s>", special_tokens=[end])
    usual = example_tokenizer(vocabulary, 6, truncate_questions=True)
    examples = replace(usual, question_tokenizer=QuestionTokenizer(tokenizer))
    (row,) = examples.questions([Question("a", "old " * 9, ("1",))]).question_tokens
    assert [token == end[1] for token in row] == [False] * 4 + [True] * 2


@given(st.integers(1, 40), st.integers(2, 20))
def test_long_questions_are_cut_before_their_last_token_and_counted(
    vocabulary: GeneratorTokenizer, words: int, most: int
) -> None:
    questions = [Question(str(n), text, ("1",)) for n, text in enumerate(["old " * words, "old"])]
    whole = example_tokenizer(vocabulary, 1_000).questions(questions)
    truncated = example_tokenizer(vocabulary, most, truncate_questions=True).questions(questions)
    for rows, whole_rows in (
        (truncated.question_tokens, whole.question_tokens),
        (truncated.prompt_tokens, whole.prompt_tokens),
    ):
        for row, ids in zip(rows, whole_rows, strict=True):
            assert row == (ids if len(ids) <= most else [*ids[: most - 1], ids[-1]])
    longest = [max(map(len, each)) for each in zip(whole.question_tokens, whole.prompt_tokens, strict=True)]
    assert truncated.num_truncated == sum(length > most for length in longest)
    assert whole.num_truncated == 0


@given(st.integers(1, 20), st.integers(2, 20), st.integers(2, 20))
def test_questions_that_the_generator_has_no_room_for_are_cut_and_counted(
    vocabulary: GeneratorTokenizer, words: int, most: int, room: int
) -> None:
    """Behind a long header there may be less room than questions may have tokens."""
    questions = [Question(str(n), text, ("1",)) for n, text in enumerate(["old " * words, "old"])]
    whole = example_tokenizer(vocabulary, 1_000).questions(questions)
    truncated = example_tokenizer(vocabulary, most, truncate_questions=True, max_prompt=room).questions(questions)
    assert [len(row) for row in truncated.question_tokens] == [min(most, len(ids)) for ids in whole.question_tokens]
    assert [len(row) for row in truncated.prompt_tokens] == [min(most, room, len(ids)) for ids in whole.prompt_tokens]
    pairs = zip(whole.question_tokens, whole.prompt_tokens, strict=True)
    assert truncated.num_truncated == sum(len(asked) > most or len(read) > min(most, room) for asked, read in pairs)
