"""What a generator reads of a passage, as tokens: made once, kept with the store, put together inside the program."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import Vocabulary, fingerprint, pad
from rag_jax.index.truncation import Truncated


class PassageTokens(NamedTuple):
    """Passages as a generator reads them."""

    ids: Int[np.ndarray, "N P"]
    lengths: Int[np.ndarray, " N"]
    truncated: Truncated

    @property
    def part(self) -> dict[str, np.ndarray]:
        """The arrays that a store keeps of them."""
        return {"ids": self.ids, "lengths": self.lengths, "truncated": self.truncated.array}


@dataclass(frozen=True)
class Reads:
    """A generator's vocabulary, which words `<s> title / text`, and how many tokens of it are read."""

    vocabulary: Vocabulary
    max_length: int

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Everything that the tokens depend on."""
        return {
            "tokenizer": fingerprint(self.vocabulary.tokenizer),
            "max_length": self.max_length,
            "template": self.vocabulary.passage_template,
        }

    @cached_property
    def key(self) -> str:
        """A short name of `facts`."""
        return hashlib.sha256(repr(sorted(self.facts.items())).encode()).hexdigest()[:16]

    @property
    def kind(self) -> str:
        """The folder of a store that holds these tokens."""
        return f"tokens-{self.key}"

    def tokens(self, passages: Sequence[Passage]) -> PassageTokens:
        """Tokens, padded and in as few bytes as they can be stored; long passages are cut."""
        whole = self.vocabulary.passages([(passage.title, passage.text) for passage in passages])
        rows = [ids[: self.max_length] for ids in whole]
        cut = Truncated.counted(len(ids) - len(row) for ids, row in zip(whole, rows, strict=True))
        dtype = np.uint16 if self.vocabulary.size <= 2**16 else np.uint32
        width = min(self.max_length, -(-max(map(len, rows), default=1) // 8) * 8)
        tokens = pad(rows, width, self.vocabulary.pad, dtype)
        return PassageTokens(np.asarray(tokens.ids), np.asarray(tokens.lengths), cut)
