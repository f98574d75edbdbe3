"""The questions of one call in batches: tokenised once, grouped by length, results put back in order."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Int, Shaped

from rag_jax.data.batches import TokenizedQuestions, batches_by_bucket, collate, collate_questions
from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.pipeline import user_inputs
from rag_jax.pipeline.components import Components
from rag_jax.types import Batch, InferenceBatch

T = TypeVar("T")


class QuestionBatch(NamedTuple):
    """Questions that are computed together; the last batch of a length is filled up with repetitions."""

    inputs: InferenceBatch
    texts: list[str]
    numbers: Int[np.ndarray, " B"]  # of the questions in the call, repetitions included
    size: int  # the questions without repetitions

    def first(self, results: Shaped[np.ndarray, "B ..."]) -> Shaped[np.ndarray, "b ..."]:
        """The results without those of repetitions."""
        return results[: self.size]

    def check_log_probs(self, is_nan: Bool[np.ndarray, " B"]) -> None:
        """Raise `InputError` for the first question whose answer has no log-probability."""
        if self.first(is_nan).any():
            remedy = "look for NaN or infinity in the model's weights and the index's vectors"
            number = self.numbers[int(np.argmax(is_nan))] + 1
            raise InputError(f"question {number}: no answer has a log-probability; {remedy}")


def question_batches(
    components: Components, questions: Sequence[str], batch_size: int, *, skip: Collection[int] = ()
) -> Iterator[QuestionBatch]:
    """Batches of questions of similar length, in any order within each `AT_ONCE` of them.

    Args:
        questions: not empty ones, see `user_inputs.questions`.
        batch_size: at most so many questions at once; fewer where there are fewer questions.
        skip: numbers of questions to leave out.

    Raises `InputError` for a batch size below 1, and for a question that is too long.
    """
    user_inputs.count(batch_size, "batch_size")
    size = min(batch_size, power_of_two(len(questions)))
    for start in range(0, len(questions), AT_ONCE):
        some = questions[start : start + AT_ONCE]
        done = [number for number in range(len(some)) if start + number in skip]
        if len(done) < len(some):
            tokenized = components.example_tokenizer.questions(_numbered(some, start))
            yield from _batches(components, tokenized, size, done, start)


def target_batches(
    components: Components, questions: Sequence[str], answers: Sequence[str], batch_size: int
) -> Iterator[tuple[QuestionBatch, Batch]]:
    """Batches as `question_batches` makes them, each also with the answers as targets.

    Raises `InputError` as there, and for an answer that is too long.
    """
    user_inputs.count(batch_size, "batch_size")
    if not questions:
        return
    pairs = list(zip(_numbered(questions), answers, strict=True))
    examples = components.example_tokenizer(pairs, {})
    for batch in _batches(components, examples.questions, min(batch_size, power_of_two(len(pairs)))):
        yield batch, collate(examples, batch.numbers, components.generator_tokenizer)


def _numbered(questions: Sequence[str], before: int = 0) -> list[Question]:
    return [Question(str(number), question, ()) for number, question in enumerate(questions, before + 1)]


def _batches(
    components: Components, questions: TokenizedQuestions, size: int, skip: Collection[int] = (), before: int = 0
) -> Iterator[QuestionBatch]:
    """Batches of `size` of these questions; `before` is the number of the first in the call."""
    if questions.num_truncated:
        limit = components.question_length
        warn(f"{questions.num_truncated} of {len(questions)} questions are cut to {limit} tokens")
    for numbers, count in batches_by_bucket(questions, size, skip):
        inputs = collate_questions(questions, numbers, components.generator_tokenizer)
        texts = [questions.texts[number] for number in numbers]
        yield QuestionBatch(inputs, texts, numbers + before, count)


def in_question_order(results: Iterable[tuple[QuestionBatch, T]]) -> T:
    """The results of all batches, arrays with questions leading, on the host and in the order of the questions."""
    numbers, arrays = [], []
    for batch, result in results:
        numbers.append(batch.first(batch.numbers))
        arrays.append(jax.tree.map(lambda rows, batch=batch: batch.first(np.asarray(rows)), result))
    order = np.argsort(np.concatenate(numbers))
    return jax.tree.map(lambda *rows: np.concatenate(rows)[order], *arrays)


def power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`, so that few sizes are compiled."""
    return 1 << max(0, count - 1).bit_length()


AT_ONCE = 16_384  # questions that are tokenised at once: their tokens take 3 KB each, and any number can be asked
