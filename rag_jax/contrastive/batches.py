"""Batches as arrays: passages packed, or in groups of similar length that are each padded by itself.

Passages vary more in length than questions do: padded to the longest, half of a batch is padding. Packed
(`rag_jax.core.packing`), only attention sees it. Where they are encoded in chunks they are sorted by length instead,
and cut into a few groups, of which less is padding. Lengths are chosen once, from the texts themselves, so that nearly
all batches have the same shapes: a new shape is a new compilation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from rag_jax.contrastive.examples import Examples
from rag_jax.data.tokenizers import pad
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import Store
from rag_jax.parallel import devices
from rag_jax.types import ContrastiveBatch, PackedInputs, Tokens, host

STEP = 8  # lengths are rounded up to a multiple of it
FITTING = 0.9  # of the packed batches have the usual size
SAMPLED = 2_048  # passages whose lengths are looked at
BATCHES = 256  # random batches of them, of which the groups' longest passages are taken


class Packs(NamedTuple):
    """The packs of a batch's passages."""

    number: int  # the devices that a batch is spread over
    length: int  # tokens of a passage that there is usually room for, in the mean


@dataclass(frozen=True)
class Collator:
    """Makes batches of what `draws` yields."""

    examples: Examples
    store: Store
    encoder: TextEncoder  # whose tokenizer passages are read by
    lengths: tuple[int, ...]  # that the groups are padded to, ascending
    question_length: int  # that questions are padded to
    max_question: int
    packs: Packs | None = None  # of each group; None: groups are not packed

    def __call__(
        self,
        drawn: Int[np.ndarray, "B drawn"],
        candidates: Bool[np.ndarray, "B M"],
        log_q: Float[np.ndarray, " M"] | None,
    ) -> ContrastiveBatch:
        """The batch; `candidates` and `log_q` are those of its passages, in the order of `passage_rows`."""
        questions = [self.examples.question_tokens[number] for number in drawn[:, 0]]
        passages, num_packs = self._passage_tokens(passage_rows(drawn)), 1 if self.packs is None else self.packs.number
        groups, place = grouped(passages, self.lengths, self.encoder.max_length, num_packs)
        length = padded_length(max(map(len, questions)), self.question_length, self.max_question)
        if self.packs is not None:
            groups = tuple(packed(group, self.packs) for group in groups)
        weights = None if log_q is None else host(log_q)
        return ContrastiveBatch(pad(questions, length, 0), groups, host(place), host(candidates), weights)

    def _passage_tokens(self, rows: Int[np.ndarray, " M"]) -> list[list[int]]:
        """The tokens of each passage; those of the empty text for a missing one."""
        unique, inverse = np.unique(rows, return_inverse=True)
        there = [self.store.passages[row] for row in unique.tolist() if row >= 0]
        tokens = self.encoder.tokens(there).ids
        if unique[0] < 0:
            tokens = [self.encoder.tokenizer.encode("").ids, *tokens]
        return [tokens[i] for i in inverse.tolist()]


def passage_rows(drawn: Int[np.ndarray, "B drawn"]) -> Int[np.ndarray, " M"]:
    """The rows of a batch's passages: the gold ones of all questions, then their hard negatives."""
    return np.concatenate([drawn[:, 1], drawn[:, 2:].reshape(-1)])


def grouped(
    tokens: Sequence[Sequence[int]], lengths: Sequence[int], longest: int, num_packs: int = 1
) -> tuple[tuple[Tokens, ...], Int[np.ndarray, " M"]]:
    """Passages sorted by length and cut into `len(lengths)` groups of equal size, and the place of each in them.

    Each group is padded to the `padded_length` of its longest passage, and dealt to its packs in turn, forwards and
    backwards, so that all are about as full.
    """
    dealt = np.argsort([len(ids) for ids in tokens], kind="stable").reshape(len(lengths), -1, num_packs)
    dealt[:, 1::2] = dealt[:, 1::2, ::-1]
    order = dealt.swapaxes(1, 2).reshape(-1)
    place = np.empty(len(tokens), np.int32)
    place[order] = np.arange(len(tokens), dtype=np.int32)
    groups = []
    for members, length in zip(np.split(order, len(lengths)), lengths, strict=True):
        rows = [list(tokens[i]) for i in members]
        groups.append(pad(rows, padded_length(max(map(len, rows)), length, longest), 0))
    return tuple(groups), place


def packed(rows: Tokens, packs: Packs) -> PackedInputs:
    """`rag_jax.core.packing.pack` on the host, with the usual room, or where more is needed, a multiple of `STEP`."""
    count, longest = rows.ids.shape
    mask = np.arange(longest)[None, :] < np.asarray(rows.lengths)[:, None]
    by_pack = mask.reshape(packs.number, -1)
    num_tokens = by_pack.sum(axis=1, dtype=np.int32)
    rows_of_pack = count // packs.number
    size = rows_of_pack * padded_length(-(-int(num_tokens.max()) // rows_of_pack), packs.length, longest)
    source = np.full((packs.number, size), by_pack.shape[1] - 1, np.int32)
    for slots, tokens in zip(source, by_pack, strict=True):
        slots[: tokens.sum()] = np.flatnonzero(tokens)
    slot = (np.cumsum(by_pack, axis=1, dtype=np.int32) - 1).reshape(mask.shape)
    return PackedInputs(rows, host(source), host(slot), host(num_tokens))


def padded_length(needed: int, usual: int, longest: int) -> int:
    """The usual length, or where more is needed, the next multiple of `STEP`, at most `longest`."""
    return usual if needed <= usual else min(_rounded(needed, STEP), longest)


def group_lengths(lengths: Int[np.ndarray, " passages"], size: int, groups: int, longest: int) -> tuple[int, ...]:
    """Lengths of the groups of a batch of `size` texts that nearly all batches fit: those of many random ones.

    Args:
        lengths: tokens of passages, a sample of those that are trained on.
    """
    sampled = _sampled(lengths, size)
    ends = np.linspace(0, size, groups + 1).astype(int)[1:] - 1
    return tuple(min(_rounded(int(sampled[:, end].max()), STEP), longest) for end in ends)


def pack_length(lengths: Int[np.ndarray, " passages"], size: int, num_packs: int) -> int:
    """Tokens of a passage, in the mean, that the fullest pack of `FITTING` of all batches of `size` has room for."""
    dealt = _sampled(lengths, size).reshape(BATCHES, -1, num_packs)
    dealt[:, 1::2] = dealt[:, 1::2, ::-1]  # as `grouped` deals them
    fullest = dealt.mean(axis=1).max(axis=1)
    return math.ceil(np.quantile(fullest, FITTING))


def sampled_lengths(examples: Examples, store: Store, encoder: TextEncoder) -> Int[np.ndarray, " passages"]:
    """The lengths in tokens of some passages that are trained on."""
    rows = np.unique([row for own in (*examples.gold, *examples.negatives) for row in own])
    chosen = np.random.default_rng(0).permutation(rows)[:SAMPLED]
    return np.asarray([len(ids) for ids in encoder.tokens([store.passages[row] for row in chosen.tolist()]).ids])


def shard(batch: ContrastiveBatch, mesh: Mesh | None) -> ContrastiveBatch:
    """The batch on the devices of a mesh, every array split by its first axis, which the devices divide."""
    return jax.tree.map(lambda leaf: devices.shard_batch(mesh, len(leaf), lambda own: leaf[own]), batch)


def _sampled(lengths: Int[np.ndarray, " passages"], size: int) -> Int[np.ndarray, "batches size"]:
    """The lengths of random batches, each sorted as `grouped` sorts it."""
    return np.sort(np.random.default_rng(0).choice(lengths, (BATCHES, size)), axis=1)


def _rounded(length: int, step: int) -> int:
    return -(-length // step) * step
