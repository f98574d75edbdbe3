"""Batches as arrays, from drawn questions, gold passages and hard negatives."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive.examples import Examples, draws
from rag_jax.contrastive.layout import Layout, usual_layout
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import Store
from rag_jax.types import ContrastiveBatch, host

DRAWN = 2_048  # questions whose lengths are looked at, and those of their passages


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
        read = passage_tokens(passage_rows(drawn), self.store, self.encoder)
        questions, passages, place = self.layout(asked, read)
        weights = None if log_q is None else host(log_q)
        return ContrastiveBatch(questions, passages, host(place), host(candidates), weights, self._teacher(drawn))

    def _teacher(self, drawn: Int[np.ndarray, "B drawn"]) -> Float[Array, "B own"] | None:
        known = self.examples.teacher
        if known is None:
            return None
        found = [[known[number].get(row, np.nan) for row in rows] for number, *rows in drawn.tolist()]
        return host(np.asarray(found, np.float32))


def passage_tokens(rows: Int[np.ndarray, " M"], store: Store, encoder: TextEncoder) -> list[list[int]]:
    """The tokens of each passage; those of the empty text for a missing one."""
    unique, inverse = np.unique(rows, return_inverse=True)
    there = [store.passages[row] for row in unique.tolist() if row >= 0]
    tokens = encoder.tokens(there).ids
    if unique[0] < 0:
        tokens = [encoder.tokenizer.encode("").ids, *tokens]
    return [tokens[i] for i in inverse.tolist()]


def passage_rows(drawn: Int[np.ndarray, "B drawn"]) -> Int[np.ndarray, " M"]:
    """The rows of a batch's passages: the gold ones of all questions, then their hard negatives."""
    return np.concatenate([drawn[:, 1], drawn[:, 2:].reshape(-1)])


def collator(config: ContrastiveConfig, examples: Examples, store: Store, encoder: TextEncoder) -> Collator:
    """The collator of a run. Its layout is that of the questions and passages which the run draws first.

    Drawn, because a passage is in as many batches as it is gold or negative for questions.
    """
    drawn = next(draws(examples, DRAWN, config.contrastive.hard_negatives, config.seed))
    questions = [len(examples.question_tokens[number]) for number in drawn[:, 0]]
    passages = list(map(len, passage_tokens(passage_rows(drawn), store, encoder)))
    layout = usual_layout(config, np.asarray(questions), np.asarray(passages))
    return Collator(examples, store, encoder, layout)
