"""Passages, the unit of retrieval: read whole from a corpus, and cut from longer texts.

The kinds of corpora, and how to cut and to skip while reading, are those of `rag_jax.knowledge.corpus`.
"""

from collections.abc import Iterator
from pathlib import Path

from rag_jax.knowledge.corpus import Cut, read_corpus
from rag_jax.knowledge.corpus.passage import Passage as Passage


def read_passages(path: str | Path, words: int | None = None) -> Iterator[Passage]:
    """Yields the passages of a corpus in order, as they stand, or those of more than so many `words` cut (see `Cut`).

    Raises `InputError` at the first bad row.
    """
    return read_corpus(path, None if words is None else Cut(words))
