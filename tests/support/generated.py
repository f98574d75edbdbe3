"""What transformers' `generate` answers, and our decoding told in its words: to be equal token for token.

A batch of B questions is decoded at once. Every returned answer is compared, not only the best one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

import naive
import oracle
from oracle import torch
from rag_jax.core.decode import beam, logits_processors
from rag_jax.core.decode.decoding import no_prefix
from rag_jax.core.decode.language_model import per_passage
from rag_jax.core.decode.search import GenerationLimits, LogitsProcessor, Search
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import Generator, Params

Told = Mapping[str, Any]  # the arguments of `generate`


class Answers(NamedTuple):
    """Each question's answers, best first, and their scores; none where transformers tells none."""

    tokens: list[list[list[int]]]
    scores: list[list[float]]


# transformers.


def by_question(rows: torch.Tensor, batch: int, start: int, eos: int) -> list[list[list[int]]]:
    """Rows of transformers as each question's answers, which begin at `start`, up to their ends."""
    each = rows.reshape(batch, -1, rows.shape[1]).tolist()
    return [[naive.until_end(row[start:], eos) for row in rows] for rows in each]


def their_beams(
    model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], told: Told, batch: int, start: int = 1
) -> Answers:
    """What `generate` returns for a batch; `start`: of answers in its rows. Of greedy search it tells no scores."""
    found = model.generate(**inputs, **told, do_sample=False, return_dict_in_generate=True, output_scores=True)
    scores = found.sequences_scores.reshape(batch, -1).tolist() if told["num_beams"] > 1 else []
    return Answers(by_question(found.sequences, batch, start, told["eos_token_id"]), scores)


# Ours.


def our_rules(told: Told, length: int, eos: int) -> tuple[LogitsProcessor, ...]:
    """transformers' constraints as ours, in its order; `length`: of an answer, without the start token.

    Its `min_length` counts the start token, and allows the end token when so many stand before it: the same number as
    ours. Its ban on repetition looks at the start token too, which makes no difference where that is the end token.
    """
    make: dict[str, Callable[[Any], LogitsProcessor]] = {
        "no_repeat_ngram_size": logits_processors.no_repeat_ngram,
        "bad_words_ids": logits_processors.bad_words,
        "min_length": partial(logits_processors.min_length, eos=eos),
        "forced_bos_token_id": logits_processors.forced_bos,
        "forced_eos_token_id": partial(logits_processors.forced_eos, length),
    }
    return tuple(make[key](told[key]) for key in make if told.get(key) is not None)


def our_search(told: Told, length: int, eos: int) -> Search:
    """The same search of ours."""
    arguments = {key: told[key] for key in ("num_beams", "early_stopping", "length_penalty")}
    return partial(beam.search, **arguments, logits_processors=our_rules(told, length, eos))


def decode_alone(generator: Generator, told: Told, limits: GenerationLimits, params: Params, encoded: Any):
    """Decode a generator without retrieval: ids, mask, which answers exist, and their scores."""
    search = our_search(told, limits.max_length, limits.eos)
    inputs = EncodedInputs(generator, params, encoded)
    batch = jax.tree.leaves(encoded)[0].shape[0]
    found = search(per_passage(inputs, no_prefix(batch), limits), limits)
    return found.tokens.ids, found.tokens.mask, found.exists, found.scores


def our_answers(ids: np.ndarray, mask: np.ndarray, exists: np.ndarray, scores: np.ndarray) -> Answers:
    """Decoded arrays as each question's answers that exist, up to their ends."""
    there = [np.flatnonzero(row) for row in exists]
    tokens = [[ids[b, c][mask[b, c]].tolist() for c in each] for b, each in enumerate(there)]
    return Answers(tokens, [scores[b][exists[b]].tolist() for b in range(len(exists))])


def assert_same(ours: Answers, theirs: Answers) -> None:
    """The same tokens, in the same order, equally scored."""
    assert ours.tokens == theirs.tokens
    if theirs.scores:
        assert oracle.relative(np.concatenate(ours.scores), np.concatenate(theirs.scores)) < 1e-5
