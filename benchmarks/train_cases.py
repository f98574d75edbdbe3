"""What is trained: networks, and batches of fixed shapes or of real text's lengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_jax.corpus import read_passages
from rag_jax.data.questions import Question, read_questions
from rag_jax.data.tower_inputs import tokenize_texts
from rag_jax.errors import InputError
from rag_jax.hub.loading import load_tower

PAD, START, END = 1, 0, 2  # BART's
REFERENCE_LENGTH = 300  # what the reference pads its inputs to
LENGTHS = (112, 128, 144, 160)  # tokens an input on average that this library packs them to
RATE, DECAY, CLIP = 3e-5, 1e-3, 0.1

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shapes:
    """B questions, K passages each, and the most tokens there can be of each kind."""

    questions: int = 4
    docs: int = 5
    question: int = 32  # Q
    prompt: int = 32  # L
    passage: int = 96  # P; S is P + L
    target: int = 16  # T


def fixed(shapes: Shapes, width: int, count: int) -> list[Arrays]:
    """Batches of random tokens that fill their shapes; both sides pad to the same."""
    draw = np.random.default_rng(0)
    rows = shapes.questions * shapes.docs

    def words(*shape: int) -> list[list[int]]:
        return draw.integers(1_000, 30_000, shape).tolist()

    def batch() -> Arrays:
        asked, prompts = words(shapes.questions, shapes.question), words(shapes.questions, shapes.prompt)
        targets = [[START, *each] for each in words(shapes.questions, shapes.target - 1)]
        return arrays(shapes, width, asked, prompts, words(rows, shapes.passage), targets, shapes.target, draw)

    return [batch() for _ in range(count)]


def real(corpus: Path, questions: Path, tower: str, shapes: Shapes, width: int, count: int) -> list[Arrays]:
    """Batches of real questions with the passages that BM25 finds for them, in the tokens of a tower's vocabulary."""
    from rag_jax.index.engines.bm25 import BM25  # other sizes are random, also where a store's packages are missing
    from rag_jax.index.engines.engine import Queries

    tokenizer, passages = load_tower(tower).tokenizer, list(read_passages(corpus))
    if tokenizer is None:
        raise InputError(f"{tower}: holds no tokenizer; save one with it (tokenizer.json)")
    draw, asked = np.random.default_rng(0), read_questions(questions)
    chosen: list[Question] = [asked[i] for i in draw.permutation(len(asked))[: count * shapes.questions]]
    found = BM25.build(passages).search(Queries([each.question for each in chosen], None), shapes.docs).rows
    found = np.maximum(found, 0)  # where too few share a word with the question, any passage is as long

    def tokens(texts: Sequence[str], limit: int) -> list[list[int]]:
        return [list(row) for row in tokenize_texts(tokenizer, texts, limit).ids]

    def batch(first: int) -> Arrays:
        some = chosen[first : first + shapes.questions]
        read = [f"{passages[row].title} / {passages[row].text}" for row in found[first : first + shapes.questions].flat]
        questions = tokens([each.question for each in some], shapes.question)
        targets = [[START, *each[1:]] for each in tokens([each.answers[0] for each in some], shapes.target)]
        longest = max(map(len, targets))
        return arrays(shapes, width, questions, questions, tokens(read, shapes.passage), targets, longest, draw)

    return [batch(first) for first in range(0, len(chosen), shapes.questions)]


def arrays(
    shapes: Shapes,
    width: int,
    questions: list[list[int]],
    prompts: list[list[int]],
    passages: list[list[int]],
    labels: list[list[int]],
    longest: int,
    draw: np.random.Generator,
) -> Arrays:
    """One batch for both sides: apart, as this library takes it, and joined, as the reference does."""
    joined = [passage + prompts[row // shapes.docs] for row, passage in enumerate(passages)]
    full = shapes.passage + shapes.prompt
    contexts = padded(joined, full if min(map(len, joined)) == full else REFERENCE_LENGTH)
    return {
        "question": padded(questions, shapes.question),
        "question_lengths": lengths(questions),
        "prompt": padded(prompts, shapes.prompt),
        "prompt_lengths": lengths(prompts),
        "passages": padded(passages, shapes.passage),
        "passage_lengths": lengths(passages),
        "labels": padded(labels, shapes.target),
        "label_lengths": lengths(labels),
        "longest_label": np.asarray(longest),
        "contexts": contexts,
        "context_lengths": lengths(joined),
        "vectors": draw.normal(0, 0.05, (shapes.questions * shapes.docs, width)).astype(np.float32),
    }


def padded(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    return np.asarray([[*row, *[PAD] * (length - len(row))] for row in rows], np.int32)


def lengths(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.asarray([len(row) for row in rows], np.int32)
