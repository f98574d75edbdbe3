"""Batches as arrays, from drawn questions, gold passages and hard negatives."""

from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from rag_jax.contrastive.examples import Examples
from rag_jax.contrastive.layout import Layout
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import Store
from rag_jax.parallel import devices
from rag_jax.types import ContrastiveBatch, host

SAMPLED = 2_048  # passages whose lengths are looked at


@dataclass(frozen=True)
class Collator:
    """Makes batches of what `draws` yields."""

    examples: Examples
    store: Store
    encoder: TextEncoder  # whose tokenizer passages are read by
    layout: Layout

    def __call__(
        self,
        drawn: Int[np.ndarray, "B drawn"],
        candidates: Bool[np.ndarray, "B M"],
        log_q: Float[np.ndarray, " M"] | None,
    ) -> ContrastiveBatch:
        """The batch; `candidates` and `log_q` are those of its passages, in the order of `passage_rows`."""
        asked = [self.examples.question_tokens[number] for number in drawn[:, 0]]
        questions, passages, place = self.layout(asked, self._passage_tokens(passage_rows(drawn)))
        weights = None if log_q is None else host(log_q)
        return ContrastiveBatch(questions, passages, host(place), host(candidates), weights)

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


def sampled_lengths(examples: Examples, store: Store, encoder: TextEncoder) -> Int[np.ndarray, " passages"]:
    """The lengths in tokens of some passages that are trained on."""
    rows = np.unique([row for own in (*examples.gold, *examples.negatives) for row in own])
    chosen = np.random.default_rng(0).permutation(rows)[:SAMPLED]
    return np.asarray([len(ids) for ids in encoder.tokens([store.passages[row] for row in chosen.tolist()]).ids])


def shard(batch: ContrastiveBatch, mesh: Mesh | None) -> ContrastiveBatch:
    """The batch on the devices of a mesh, every array split by its first axis, which the devices divide."""
    return jax.tree.map(lambda leaf: devices.shard_batch(mesh, len(leaf), lambda own: leaf[own]), batch)
