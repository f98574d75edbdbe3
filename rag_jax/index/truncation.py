"""Counts of the passages and tokens that a tower's or a generator's maximum length truncates."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rag_jax.errors import warn


class Truncation(NamedTuple):
    """The number of truncated passages, and of the tokens that they lose."""

    passages: int = 0
    tokens: int = 0

    @classmethod
    def from_counts(cls, lost: Iterable[int]) -> "Truncation":
        """From the number of lost tokens of each passage."""
        cut = [tokens for tokens in lost if tokens]
        return cls(len(cut), sum(cut))

    @classmethod
    def total(cls, each: Iterable[Iterable[int]]) -> "Truncation":
        """The sum of several counts."""
        return cls(*map(sum, zip(*each, (0, 0), strict=True)))

    @property
    def array(self) -> np.ndarray:
        """The counts as a store keeps them."""
        return np.asarray(self, np.int64)

    def summary(self, max_length: int) -> str:
        """A phrase that follows "the tower reads"."""
        longer = {0: "no passage is", 1: "1 passage is"}.get(self.passages, f"{self.passages:,} passages are")
        lost = f", {self.tokens:,} tokens are not read" if self.tokens else ""
        return f"{max_length} tokens of a passage; {longer} longer{lost}"

    def warn(self, reader: str, max_length: int) -> None:
        """Print a warning if passages are truncated; for passages in memory, whose counts no store keeps."""
        if self.passages:
            warn(f"the {reader} reads {self.summary(max_length)}")


NO_TRUNCATION = Truncation()
