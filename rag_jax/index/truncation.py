"""What is not read of passages that are longer than a tower or a generator reads."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rag_jax.errors import warn


class Truncation(NamedTuple):
    """Passages that are cut, and the tokens of them that are lost."""

    passages: int = 0
    tokens: int = 0

    @classmethod
    def from_counts(cls, lost: Iterable[int]) -> "Truncation":
        """From how many tokens of each passage are lost."""
        cut = [tokens for tokens in lost if tokens]
        return cls(len(cut), sum(cut))

    @classmethod
    def total(cls, each: Iterable[Iterable[int]]) -> "Truncation":
        """The sum of several counts."""
        return cls(*map(sum, zip(*each, (0, 0), strict=True)))

    @property
    def array(self) -> np.ndarray:
        """As a part of a store keeps it."""
        return np.asarray(self, np.int64)

    def summary(self, max_length: int) -> str:
        """For people, behind the name of who reads."""
        longer = {0: "no passage is", 1: "1 passage is"}.get(self.passages, f"{self.passages:,} passages are")
        lost = f", {self.tokens:,} tokens are not read" if self.tokens else ""
        return f"{max_length} tokens of a passage; {longer} longer{lost}"

    def warn(self, reader: str, max_length: int) -> None:
        """Where nothing is built that could keep the count."""
        if self.passages:
            warn(f"the {reader} reads {self.summary(max_length)}")


NO_TRUNCATION = Truncation()
