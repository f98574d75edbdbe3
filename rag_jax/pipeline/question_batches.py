"""The questions of one call in batches: tokenised once, grouped by length, results put back in order."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Int, Shaped

from rag_jax.data.batches import Examples, in_order, tokenize
from rag_jax.data.questions import Question
from rag_jax.errors import InputError, warn
from rag_jax.pipeline import user_inputs
from rag_jax.pipeline.components import Components
from rag_jax.types import Batch, InferenceBatch

T = TypeVar("T")
PLACEHOLDER = "-"  # the target of a question that is asked without one


class QuestionBatch(NamedTuple):
    """Questions that are computed together; the last batch of a length is filled up with repetitions."""

    with_targets: Batch
    texts: list[str]
    numbers: Int[np.ndarray, " B"]  # of the questions in the call, repetitions included
    size: int  # the questions without repetitions

    @property
    def inputs(self) -> InferenceBatch:
        """The questions alone."""
        return InferenceBatch(self.with_targets.question, self.with_targets.prompt)

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
    components: Components,
    questions: Sequence[str],
    batch_size: int,
    *,
    skip: Collection[int] = (),
    answers: Sequence[str] | None = None,
) -> Iterator[QuestionBatch]:
    """Batches of questions of similar length, in any order.

    Args:
        questions: not empty ones, see `user_inputs.questions`.
        batch_size: at most so many questions at once; fewer where there are fewer questions.
        skip: numbers of questions to leave out.
        answers: a target for each question, for likelihoods.

    Raises `InputError` for a batch size below 1, and for a question or an answer that is too long.
    """
    user_inputs.count(batch_size, "batch_size")
    if not questions:
        return
    named = [Question(str(number), question, ()) for number, question in enumerate(questions, 1)]
    examples = tokenize_questions(components, named, answers)
    if examples.cut:
        warn(f"{examples.cut} of {len(questions)} questions are cut to {components.question_length} tokens")
    size = min(batch_size, power_of_two(len(questions)))
    for inputs, numbers in in_order(examples, components.generator_tokenizer, size, skip):
        every = np.resize(numbers, len(inputs.question.ids))
        yield QuestionBatch(inputs, [questions[int(number)] for number in every], every, len(numbers))


def tokenize_questions(
    components: Components, questions: Sequence[Question], answers: Sequence[str] | None = None
) -> Examples:
    """Questions as both networks read them. Raises `InputError` for one that is too long, by its id."""
    config = components.config
    targets = [PLACEHOLDER] * len(questions) if answers is None else answers
    return tokenize(
        list(zip(questions, targets, strict=True)),
        components.bi_encoder.question_tokenizer,
        components.generator_tokenizer,
        {},
        max_question=config.retriever.max_question,
        max_target=config.generator.max_target,
        ladder=components.length_buckets,
        from_tower=config.generator.question_from_tower,
        cut=config.data.long_questions == "cut",
    )


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
