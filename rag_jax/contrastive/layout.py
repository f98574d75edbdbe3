"""Where the tokens of a batch go: texts of similar length in one group, and the texts of a group packed.

See `rag_jax.data.length_groups`. Texts that are encoded in chunks are not packed. Sizes are chosen once, from the texts
themselves, so that nearly all batches have the same: a new size is a new compilation.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.data.length_groups import dealt, fullest, grouped, packed
from rag_jax.data.tokenizers import pad
from rag_jax.types import PackedInputs, Tokens

STEP = 8  # unusual lengths are rounded up to a multiple of it
BATCHES = 256  # random batches, of whose sizes the usual ones are taken
FITTING = 0.99  # of the groups have the usual size

Texts = list[list[int]]  # tokens of each


class Size(NamedTuple):
    """The usual size of a group of texts."""

    longest: int  # tokens that each is padded to
    mean: int  # tokens of each that a pack has room for, in the mean


class Layout(NamedTuple):
    """The usual sizes of a batch."""

    question: Size
    passages: tuple[Size, ...]  # of each group, ascending
    max_question: int
    max_passage: int
    num_packs: int | None  # of each group: the devices that a batch is spread over; None: groups are not packed

    def __call__(
        self, questions: Texts, passages: Texts
    ) -> tuple[Tokens | PackedInputs, tuple[Tokens | PackedInputs, ...], Int[np.ndarray, " M"]]:
        """The questions in their order, the groups of passages, and the place of each passage in them."""
        groups, place = grouped(passages, len(self.passages), self.num_packs or 1)
        asked = self._padded(questions, self.question, self.max_question)
        sized = zip(groups, self.passages, strict=True)
        return asked, tuple(self._padded(group, size, self.max_passage) for group, size in sized), place

    def _padded(self, texts: Texts, size: Size, longest: int) -> Tokens | PackedInputs:
        rows = pad(texts, padded_length(max(map(len, texts)), size.longest, longest), 0)
        if self.num_packs is None:
            return rows
        needed = fullest(np.asarray(rows.lengths), self.num_packs)
        return packed(rows, self.num_packs, padded_length(needed, size.mean, rows.ids.shape[1]))


def usual_layout(
    config: ContrastiveConfig, questions: Int[np.ndarray, " questions"], passages: Int[np.ndarray, " passages"]
) -> Layout:
    """The layout that nearly all batches fit.

    Args:
        questions: tokens of questions, a sample of those that are trained on.
        passages: tokens of passages, likewise.
    """
    c, r, size = config.contrastive, config.retriever, config.batch_size
    num_packs = config.mesh.data * config.mesh.fsdp if c.chunk is None else None
    (question,) = usual_sizes(questions, size, 1, num_packs or 1, r.max_question)
    groups = usual_sizes(passages, size * (1 + c.hard_negatives), c.length_groups, num_packs or 1, r.max_passage)
    return Layout(question, groups, r.max_question, r.max_passage, num_packs)


def usual_sizes(
    lengths: Int[np.ndarray, " texts"], size: int, groups: int, num_packs: int, longest: int
) -> tuple[Size, ...]:
    """The size of each group of a batch of `size` texts: that of nearly all of many random batches."""
    sampled = np.sort(np.random.default_rng(0).choice(lengths, (BATCHES, size)), axis=1)
    in_packs = dealt(sampled.reshape(BATCHES * groups, -1), num_packs).reshape(BATCHES, groups, num_packs, -1)
    means = np.quantile(in_packs.mean(axis=3).max(axis=2), FITTING, axis=0)
    ends = [min(_rounded(int(end)), longest) for end in in_packs.max(axis=(0, 2, 3))]
    return tuple(Size(end, math.ceil(mean)) for end, mean in zip(ends, means.tolist(), strict=True))


def padded_length(needed: int, usual: int, longest: int) -> int:
    """The usual length, or where more is needed, the next multiple of `STEP`, at most `longest`."""
    return usual if needed <= usual else min(_rounded(needed), longest)


def _rounded(length: int) -> int:
    return -(-length // STEP) * STEP
