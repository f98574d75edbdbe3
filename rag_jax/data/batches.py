"""Questions as arrays: tokenised once, grouped by length, padded to a few shapes.

Every batch is padded to its bucket, one step of a ladder of lengths, and each bucket is one compilation.
"""

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from rag_jax.data.questions import Question
from rag_jax.data.tokenizers import GeneratorTokenizer, pad
from rag_jax.data.tower_inputs import QuestionTokenizer
from rag_jax.errors import InputError
from rag_jax.types import Batch, host

Ladder = Sequence[tuple[int, int]]
"""Ascending (Q, L): the lengths that questions are padded to in the tower's and in the generator's vocabulary."""


@dataclass(frozen=True)
class Examples:
    """Tokenised questions with one target each."""

    ids: list[str]  # of the questions
    texts: list[str]  # the questions, as engines that search words read them
    questions: list[list[int]]  # in the tower's vocabulary
    prompts: list[list[int]]  # ` // question </s>` in the generator's
    targets: list[list[int]]  # ` answer </s>`
    positives: Int[np.ndarray, "examples G"]  # rows of the index that hold the answer, padded with -1
    fixed: Int[np.ndarray, "examples K"]  # rows to be read, best first, found beforehand; -1 where there are fewer
    buckets: Int[np.ndarray, "examples 2"]  # Q and L that each question is padded to
    max_target: int  # T at most
    cut: int = 0  # questions that are not read to their end

    def __len__(self) -> int:
        return len(self.questions)


def tokenize(
    pairs: Sequence[tuple[Question, str]],
    tower: QuestionTokenizer,
    vocabulary: GeneratorTokenizer,
    rows: Mapping[str, int],
    *,
    max_question: int,
    max_target: int,
    num_docs: int = 0,
    ladder: Ladder,
    from_tower: bool = False,
    cut: bool = False,
) -> Examples:
    """Tokenise (question, answer) pairs; `rows` tells which row of the index a passage id has, `num_docs` how many of
    the passages found beforehand are read, `ladder` the shapes that questions are padded to. The generator reads the
    question as it is, or decoded `from_tower`'s tokens.

    Questions must fit whole, in either vocabulary, unless long ones are to be `cut` at their end, and what the tower
    reads of them is cut where its own convention does; targets must fit. Raises `InputError` for one that does not.
    """
    texts = [question.question for question, _ in pairs]
    questions, lost = tower(texts)
    prompts = vocabulary.prompts(tower.decode_tokens(texts) if from_tower else texts)
    long = [max(map(len, each)) > max_question for each in zip(questions, prompts, strict=True)]
    if cut:
        questions, prompts = ([shortened(ids, max_question) for ids in rows] for rows in (questions, prompts))
    targets = vocabulary.targets([answer for _, answer in pairs])
    for (question, answer), asked, prompt, target in zip(pairs, questions, prompts, targets, strict=True):
        longest = max(len(asked), len(prompt))
        if longest > max_question:
            what = f"question {question.id!r} ({textwrap.shorten(question.question, 60, placeholder=' …')})"
            told = f"{what} has {longest} tokens, more than max_question = {max_question}"
            raise InputError(f"{told}; shorten it, or set long_questions to cut")
        if len(target) > max_target:
            told = f"answer {answer[:40]!r} of question {question.id!r} has {len(target)} tokens"
            raise InputError(f"{told}, more than max_target = {max_target}; shorten it or raise max_target")
    buckets = [bucket(len(q), len(prompt), ladder) for q, prompt in zip(questions, prompts, strict=True)]
    positives = _rows([question.positive_ids for question, _ in pairs], rows)
    fixed = _rows([question.passage_ids[:num_docs] for question, _ in pairs], rows, num_docs)
    ids = [question.id for question, _ in pairs]
    shapes = np.asarray(buckets, np.int32)
    count = sum(one or other > 0 for one, other in zip(long, lost, strict=True))
    return Examples(ids, texts, questions, prompts, targets, positives, fixed, shapes, max_target, count)


def shortened(ids: list[int], longest: int) -> list[int]:
    """Token ids cut before their last one, which ends a text, to `longest` of them."""
    return ids if len(ids) <= longest else [*ids[: longest - 1], ids[-1]]


def short_enough(
    pairs: Sequence[tuple[Question, str]], vocabulary: GeneratorTokenizer, max_target: int
) -> list[tuple[Question, str]]:
    """The pairs whose target has `max_target` tokens at most."""
    targets = vocabulary.targets([answer for _, answer in pairs])
    return [pair for pair, target in zip(pairs, targets, strict=True) if len(target) <= max_target]


def in_order(
    examples: Examples, vocabulary: GeneratorTokenizer, batch_size: int, skip: Collection[int] = ()
) -> Iterator[tuple[Batch, Int[np.ndarray, " b"]]]:
    """Every example once, but for the numbers to `skip`, by bucket: `(batch, examples' numbers)`; the last batch of a
    bucket is filled up with repetitions, so that it has as many numbers as it has new examples."""
    wanted = np.ones(len(examples), bool)
    wanted[list(skip)] = False
    for shape in np.unique(examples.buckets[wanted], axis=0):
        members = np.flatnonzero((examples.buckets == shape).all(axis=1) & wanted)
        for start in range(0, len(members), batch_size):
            chosen = members[start : start + batch_size]
            yield collate(examples, np.resize(chosen, batch_size), vocabulary), chosen


def bucket(question: int, prompt: int, ladder: Ladder) -> tuple[int, int]:
    """The first pair of the ladder that holds both lengths; where none does, a multiple of the last."""
    q, p = ladder[-1]
    times = max(-(-question // q), -(-prompt // p))
    return next(((a, b) for a, b in ladder if question <= a and prompt <= b), (q * times, p * times))


def collate(examples: Examples, chosen: Int[np.ndarray, " B"], vocabulary: GeneratorTokenizer) -> Batch:
    """The chosen examples of one bucket as a batch; targets are padded to what the longest of all examples needs."""
    question_length, prompt_length = (int(length) for length in examples.buckets[chosen[0]])
    targets = [examples.targets[i] for i in chosen]
    size = min(-(-max(map(len, examples.targets)) // 4) * 4, examples.max_target)
    padded = pad(targets, size, vocabulary.pad)
    return Batch(
        question=pad([examples.questions[i] for i in chosen], question_length, 0),
        prompt=pad([examples.prompts[i] for i in chosen], prompt_length, vocabulary.pad),
        decoder_inputs=pad([[vocabulary.decoder_start, *target[:-1]] for target in targets], size, vocabulary.pad).ids,
        targets=padded.ids,
        target_mask=host(np.arange(size)[None, :] < np.asarray(padded.lengths)[:, None]),
    )


def _rows(named: Sequence[Sequence[str]], rows: Mapping[str, int], width: int = 1) -> Int[np.ndarray, "examples G"]:
    """Rows of the index by passage ids, in `width` columns or as many as are needed, padded with -1."""
    found = [[rows[i] for i in ids if i in rows] for ids in named]
    return np.asarray(pad(found, max(width, *map(len, found), 0), -1).ids)
