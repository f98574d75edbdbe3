"""The passage tower with its tokenizer: text to vector, sorted by length to reduce padding."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import fingerprint, pad
from rag_jax.data.tower_inputs import TITLE_AND_TEXT, TowerTokens, tokenize_passages, tokenize_texts
from rag_jax.index.passage_tokenizer import AT_ONCE
from rag_jax.index.truncation import Truncation
from rag_jax.models.architecture import TowerConfig, mathematics
from rag_jax.types import Params, Tower

BATCH_TOKENS = 1_024  # tokens in one batch, padding included: the activations of more do not fit a CPU's caches
PADDED_LENGTHS = (8, *range(16, 193, 16), 224, 256, 384, 512)  # each is one compilation
ProgressCallback = Callable[[int], None]


def no_progress(count: int) -> None:
    """Ignore progress."""


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """The passage tower with its tokenizer."""

    tower: Tower = field(repr=False)
    params: Params = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    max_length: int
    template: str = TITLE_AND_TEXT  # of a passage, see `rag_jax.data.tower_inputs`
    norm: float | None = None  # that the tower normalises its vectors to
    source: str = ""  # where the tower was loaded from, recorded in the manifest
    cut_to: int | None = None  # width that vectors are cut to (Matryoshka); None: they are whole
    question_source: str | None = None  # the same of the questions' tower, where it is known to be another one
    question_fingerprint: str | None = None  # of that tower
    config: TowerConfig | None = field(default=None, repr=False)  # of the tower, for training it; None: unknown
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)  # of the checkpoint, saved with it again

    def tokens(self, passages: Sequence[Passage]) -> TowerTokens:
        """Tokenise passages for the tower."""
        pairs = [(passage.title, passage.text) for passage in passages]
        return tokenize_passages(self.tokenizer, pairs, self.template, self.max_length)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the tower's weights and tokenizer; vectors of different fingerprints are not comparable."""
        digest = hashlib.sha256(fingerprint(self.tokenizer).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return digest.hexdigest()[:16]

    @property
    def spec(self) -> dict[str, Any]:
        """Everything that the vectors depend on; an index holds vectors of one spec only."""
        read = {"max_length": self.max_length, "template": self.template}
        cut = {} if self.cut_to is None else {"cut_to": self.cut_to}
        network = {} if self.config is None else {"network": _network(self.config)}
        return {"fingerprint": self.fingerprint, **read, "norm": self.norm, **cut, **network}

    @property
    def origin(self) -> dict[str, str]:
        """Where the towers were loaded from, for the manifest; vectors do not depend on it."""
        of_questions = {"question_source": self.question_source, "question_fingerprint": self.question_fingerprint}
        return {"source": self.source} | {name: each for name, each in of_questions.items() if each is not None}

    def encode_passages(
        self, passages: Sequence[Passage], on_progress: ProgressCallback = no_progress
    ) -> Float[np.ndarray, "passages D"]:
        """The vectors `d(z)` of passages."""
        return self.encode_and_count_truncation(passages, on_progress)[0]

    def encode_and_count_truncation(
        self, passages: Sequence[Passage], on_progress: ProgressCallback = no_progress
    ) -> tuple[Float[np.ndarray, "passages D"], Truncation]:
        """The vectors `d(z)` of passages, and how much of their text was truncated."""
        blocks = [passages[start : start + AT_ONCE] for start in range(0, len(passages), AT_ONCE)] or [passages]
        vectors, cuts = zip(*(self._encode_block(block, on_progress) for block in blocks), strict=True)
        return vectors[0] if len(vectors) == 1 else np.concatenate(vectors), Truncation.total(cuts)

    def _encode_block(
        self, passages: Sequence[Passage], on_progress: ProgressCallback
    ) -> tuple[Float[np.ndarray, "passages D"], Truncation]:
        rows = self.tokens(passages)
        return self.encode(rows.ids, on_progress), Truncation.from_counts(rows.num_truncated)

    def __call__(
        self, texts: Sequence[str], on_progress: ProgressCallback = no_progress
    ) -> Float[np.ndarray, "texts D"]:
        """The vectors of plain texts, truncated to `max_length`."""
        return self.encode(tokenize_texts(self.tokenizer, texts, self.max_length).ids, on_progress)

    def encode(self, rows: list[list[int]], on_progress: ProgressCallback = no_progress) -> Float[np.ndarray, "rows D"]:
        """The vectors of token rows, in their order; `on_progress` receives the size of each batch."""
        lengths = np.asarray([self._padded_length(len(row)) for row in rows])
        encode, vectors = jax.jit(self.tower), np.zeros((0, 0), np.float32)
        for length in sorted(set(lengths)):
            members, size = np.flatnonzero(lengths == length), max(1, BATCH_TOKENS // length)
            for start in range(0, len(members), size):
                chosen = members[start : start + size]
                batch = pad([rows[i] for i in np.resize(chosen, size)], length, 0)
                found = np.asarray(encode(self.params, batch))
                if not vectors.size:
                    vectors = np.zeros((len(rows), found.shape[1]), found.dtype)
                vectors[chosen] = found[: len(chosen)]
                on_progress(len(chosen))
        return vectors

    def _padded_length(self, length: int) -> int:
        """At most `max_length`: a tower may have no more positions."""
        return max(length, min(self.max_length, next((step for step in PADDED_LENGTHS if length <= step), length)))


def _network(config: TowerConfig) -> dict[str, str]:
    """What a tower computes beyond its weights, as its pooling, but for what the spec names itself."""
    return {name: each for name, each in mathematics(config).items() if name not in SAID_ELSEWHERE}


SAID_ELSEWHERE = ("vector_norm", "truncated_width", "max_positions")
