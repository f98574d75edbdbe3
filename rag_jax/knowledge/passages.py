"""Passages, the unit of retrieval: read whole from a corpus, and cut from longer texts.

The kinds of corpora, and how to cut and to skip while reading, are those of `rag_jax.knowledge.corpus`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rag_jax.knowledge.corpus import Cut, read_corpus
from rag_jax.knowledge.corpus.passage import Passage as Passage


def read_passages(path: str | Path) -> Iterator[Passage]:
    """Yields the passages of a corpus as they stand, in order; raises `InputError` at the first bad row."""
    return read_corpus(path)


def split_passages(passages: Iterable[Passage], size: int = 100) -> Iterator[Passage]:
    """Cuts every passage of more than `size` words, without overlap (see `Cut`)."""
    cut = Cut(size)
    for passage in passages:
        yield from cut.pieces(passage)
