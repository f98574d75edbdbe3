"""The generator's tokens of a passage: computed once, stored, and joined with the question inside the program."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from rag_jax.corpus.passage import Passage
from rag_jax.data.templates import going_on
from rag_jax.data.tokenizers import GeneratorTokenizer, fingerprint, pad
from rag_jax.index.truncation import NO_TRUNCATION, Truncation

AT_ONCE = 65_536  # passages: a tokenizer's own result takes about 12 KB of memory for each


class PassageTokens(NamedTuple):
    """Tokenised passages."""

    ids: Int[np.ndarray, "N P"]
    lengths: Int[np.ndarray, " N"]
    truncated: Truncation = NO_TRUNCATION  # of tokens from a store: its manifest counts them

    @property
    def part(self) -> dict[str, np.ndarray]:
        """The arrays of a store's part."""
        return {"ids": self.ids, "lengths": self.lengths, "truncated": self.truncated.array}


@dataclass(frozen=True)
class PassageTokenizer:
    """Tokenises passages as `<s> title / text` for a generator, truncated to `max_length`."""

    tokenizer: GeneratorTokenizer
    max_length: int

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Everything that the tokens depend on."""
        return {
            "tokenizer": fingerprint(self.tokenizer.tokenizer),
            "max_length": self.max_length,
            "template": self.tokenizer.passage_template,
            **({} if self.tokenizer.bos is not None else {"bos": None}),  # a passage of a decoder-only prompt has none
            **({"goes_on": True} if self._goes_on else {}),
        }

    @cached_property
    def key(self) -> str:
        """A short name of `spec`."""
        return hashlib.sha256(repr(sorted(self.spec.items())).encode()).hexdigest()[:16]

    @property
    def _goes_on(self) -> bool:
        """Whether a passage behind other text has other tokens than one that begins it."""
        tokenizer = self.tokenizer.tokenizer
        return self.tokenizer.is_passage_behind_text and going_on(tokenizer) is not tokenizer

    @property
    def folder(self) -> str:
        """The name of the folder in a store that holds these tokens."""
        return f"tokens-{self.key}"

    @property
    def row_bytes(self) -> int:
        """The bytes of the longest passage's tokens."""
        return self.max_length * np.dtype(token_type(self.tokenizer.size)).itemsize

    def tokenize(self, passages: Sequence[Passage]) -> PassageTokens:
        """Tokenise passages into padded arrays of the smallest integer type; long passages are truncated."""
        dtype, rows, left_out = token_type(self.tokenizer.size), list[np.ndarray](), list[int]()
        for start in range(0, len(passages), AT_ONCE):
            some = passages[start : start + AT_ONCE]
            whole = self.tokenizer.passages([(passage.title, passage.text) for passage in some])
            rows += (np.asarray(ids[: self.max_length], dtype) for ids in whole)
            left_out += (max(0, len(ids) - self.max_length) for ids in whole)
        width = min(self.max_length, -(-max(map(len, rows), default=1) // 8) * 8)
        tokens = pad(rows, width, self.tokenizer.pad, dtype)
        return PassageTokens(np.asarray(tokens.ids), np.asarray(tokens.lengths), Truncation.from_counts(left_out))


def token_type(vocabulary: int) -> type[np.unsignedinteger]:
    """The smallest integer type of a vocabulary's tokens."""
    return np.uint16 if vocabulary <= 2**16 else np.uint32
