"""Questions and targets as arrays: tokenised once, grouped by length, padded to a few shapes.

A batch holds questions of one bucket, a pair of lengths that all of them are padded to. Each bucket is one compilation.
"""

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import GeneratorTokenizer, pad, truncate
from rag_jax.data.tower_inputs import QuestionTokenizer
from rag_jax.errors import InputError
from rag_jax.types import Batch, InferenceBatch, host

Pair = tuple[Question, str]  # a question and its target
LengthBuckets = Sequence[tuple[int, int]]
"""Ascending (Q, L): the lengths of a question for the question encoder and for the generator."""


@dataclass(frozen=True)
class TokenizedQuestions:
    """Questions as both networks read them."""

    ids: list[str]
    texts: list[str]  # for engines that search words
    question_tokens: list[list[int]]  # in the question encoder's vocabulary
    prompt_tokens: list[list[int]]  # ` // question </s>`, in the generator's
    buckets: Int[np.ndarray, "questions 2"]  # Q and L that each is padded to
    num_truncated: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Examples:
    """Tokenised questions with one target each."""

    questions: TokenizedQuestions
    target_tokens: list[list[int]]  # ` answer </s>`
    positives: Int[np.ndarray, "examples G"]  # index rows of the gold passages, padded with -1
    fixed: Int[np.ndarray, "examples K"]  # index rows that the question file lists, best first, padded with -1
    max_target: int  # T at most

    def __len__(self) -> int:
        return len(self.questions)


@dataclass(frozen=True)
class ExampleTokenizer:
    """How questions and their targets become token ids.

    The question encoder's own `max_length` truncates its tokens in any case. A question longer than `max_question` in
    either vocabulary, or than `max_prompt` in the generator's, is truncated too, or is an error. Long targets are an
    error.
    """

    question_tokenizer: QuestionTokenizer
    generator_tokenizer: GeneratorTokenizer
    max_question: int  # tokens, in either vocabulary
    max_target: int
    length_buckets: LengthBuckets
    num_docs: int = 0  # listed passages of a question that are read
    question_from_tower: bool = False  # the generator reads the decoded tokens of the question encoder
    truncate_questions: bool = False
    max_prompt: int | None = None  # tokens of a question for which the generator's input has room; None: max_question

    def __call__(self, pairs: Sequence[Pair], rows: Mapping[str, int]) -> Examples:
        """Tokenise (question, target) pairs; `rows` maps passage ids to rows of the index.

        Raises `InputError` for a question or a target that is too long.
        """
        questions = [question for question, _ in pairs]
        tokenized = self.questions(questions)
        targets = self.generator_tokenizer.targets([answer for _, answer in pairs])
        for (question, answer), target in zip(pairs, targets, strict=True):
            if len(target) > self.max_target:
                what = f"answer {answer[:40]!r} of question {question.id!r} has {len(target)} tokens"
                raise InputError(f"{what}, more than max_target = {self.max_target}; shorten it or raise max_target")
        positives = _index_rows([question.positive_ids for question in questions], rows)
        listed = [[i for i in question.passage_ids if i in rows][: self.num_docs] for question in questions]
        fixed = _index_rows(listed, rows, self.num_docs)
        return Examples(tokenized, targets, positives, fixed, self.max_target)

    def questions(self, questions: Sequence[Question]) -> TokenizedQuestions:
        """Tokenise questions without targets. Raises `InputError` for one that is too long, by its id."""
        texts = [question.question for question in questions]
        encoder_tokens, num_lost = self.question_tokenizer(texts)
        prompts = self.generator_tokenizer.prompts(
            self.question_tokenizer.decode_tokens(texts) if self.question_from_tower else texts
        )
        lengths = [max(map(len, both)) for both in zip(encoder_tokens, prompts, strict=True)]
        truncated = [
            length > self.max_question or len(prompt) > self.longest_prompt or lost > 0
            for length, prompt, lost in zip(lengths, prompts, num_lost, strict=True)
        ]
        if self.truncate_questions:
            end = self.question_tokenizer.num_end_tokens
            encoder_tokens = [truncate(ids, self.max_question, end) for ids in encoder_tokens]
            prompts = [self.generator_tokenizer.truncate(ids, self.longest_prompt) for ids in prompts]
        else:
            self._check_questions(questions, lengths)
            self._check_room(questions, prompts)
        buckets = [
            bucket(len(ids), len(prompt), self.length_buckets)
            for ids, prompt in zip(encoder_tokens, prompts, strict=True)
        ]
        shapes = np.asarray(buckets, np.int32).reshape(-1, 2)
        return TokenizedQuestions(
            [question.id for question in questions], texts, encoder_tokens, prompts, shapes, sum(truncated)
        )

    def fits(self, text: str) -> bool:
        """Whether a question of this text would be read as a whole."""
        (tower,), (lost,) = self.question_tokenizer([text])
        (read,) = self.question_tokenizer.decode_tokens([text]) if self.question_from_tower else [text]
        (prompt,) = self.generator_tokenizer.prompts([read])
        return not lost and len(tower) <= self.max_question and len(prompt) <= self.longest_prompt

    def short_targets(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs whose target has at most `max_target` tokens."""
        targets = self.generator_tokenizer.targets([answer for _, answer in pairs])
        return [pair for pair, target in zip(pairs, targets, strict=True) if len(target) <= self.max_target]

    @property
    def longest_prompt(self) -> int:
        """The maximum tokens of a question in the generator's vocabulary."""
        return self.max_question if self.max_prompt is None else min(self.max_question, self.max_prompt)

    def _check_room(self, questions: Sequence[Question], prompts: Sequence[Sequence[int]]) -> None:
        for question, prompt in zip(questions, prompts, strict=True):
            if len(prompt) > self.longest_prompt:
                room = f"the generator's input has room for {self.longest_prompt} behind its header"
                remedy = "shorten the system prompt or the question, or raise generator.max_input"
                raise InputError(f"question {question.id!r} has {len(prompt)} tokens, {room}; {remedy}")

    def _check_questions(self, questions: Sequence[Question], lengths: Sequence[int]) -> None:
        for question, length in zip(questions, lengths, strict=True):
            if length > self.max_question:
                what = f"question {question.id!r} ({textwrap.shorten(question.question, 60, placeholder=' …')})"
                problem = f"{what} has {length} tokens, more than max_question = {self.max_question}"
                raise InputError(f"{problem}; shorten it, or set long_questions to cut")


def bucket(question: int, prompt: int, buckets: LengthBuckets) -> tuple[int, int]:
    """The first bucket that holds both lengths, else the smallest multiple of the last that does."""
    q, p = buckets[-1]
    multiple = max(-(-question // q), -(-prompt // p))
    return next(((a, b) for a, b in buckets if question <= a and prompt <= b), (q * multiple, p * multiple))


def batches_by_bucket(
    questions: TokenizedQuestions, batch_size: int, skip: Collection[int] = ()
) -> Iterator[tuple[Int[np.ndarray, " B"], int]]:
    """Yield the numbers of the questions of each batch, and how many of them are new.

    Every question is in one batch, except those to `skip`. The last batch of a bucket repeats its questions until it
    is full.
    """
    wanted = np.ones(len(questions), bool)
    wanted[list(skip)] = False
    for shape in np.unique(questions.buckets[wanted], axis=0):
        members = np.flatnonzero((questions.buckets == shape).all(axis=1) & wanted)
        for start in range(0, len(members), batch_size):
            numbers = members[start : start + batch_size]
            yield np.resize(numbers, batch_size), len(numbers)


def collate_questions(
    questions: TokenizedQuestions, numbers: Int[np.ndarray, " B"], tokenizer: GeneratorTokenizer
) -> InferenceBatch:
    """Questions of one bucket as a batch without targets."""
    question_length, prompt_length = (int(length) for length in questions.buckets[numbers[0]])
    return InferenceBatch(
        question=pad([questions.question_tokens[i] for i in numbers], question_length, 0),
        prompt=pad([questions.prompt_tokens[i] for i in numbers], prompt_length, tokenizer.pad),
    )


def collate(examples: Examples, numbers: Int[np.ndarray, " B"], tokenizer: GeneratorTokenizer) -> Batch:
    """Examples of one bucket as a batch; targets are padded to the length of the longest of all examples."""
    targets = [examples.target_tokens[i] for i in numbers]
    size = min(-(-max(map(len, examples.target_tokens)) // 4) * 4, examples.max_target)
    padded = pad(targets, size, tokenizer.pad)
    return Batch(
        *collate_questions(examples.questions, numbers, tokenizer),
        decoder_inputs=pad([[tokenizer.decoder_start, *target[:-1]] for target in targets], size, tokenizer.pad).ids,
        targets=padded.ids,
        target_mask=host(np.arange(size)[None, :] < np.asarray(padded.lengths)[:, None]),
    )


def _index_rows(
    passage_ids: Sequence[Sequence[str]], rows: Mapping[str, int], width: int = 1
) -> Int[np.ndarray, "examples G"]:
    """Index rows of passage ids, in `width` columns or as many as are needed, padded with -1."""
    known = [[rows[i] for i in ids if i in rows] for ids in passage_ids]
    return np.asarray(pad(known, max(width, *map(len, known), 0), -1).ids)
