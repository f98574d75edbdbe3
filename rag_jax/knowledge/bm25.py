"""BM25, the lexical baseline that a trained retriever has to beat: words in common, weighted by how rare they are.

A thin layer over `bm25s` with the settings of the open-domain literature: k1 0.9 and b 0.4 (Anserini's; Yang et al.
2017), the title in front of the text, English stop words out, Snowball's English stemmer (PyStemmer).
"""

import logging
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage

K1 = 0.9
B = 0.4


class BM25:
    """A searchable store of passages; it keeps the words' statistics, not the passages.

    Raises `InputError` if `bm25s` or `PyStemmer` is not installed, and if the passages hold no word to search for.
    """

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._bm25s, self._stemmer = _import_packages()
        tokens = self._tokenize(f"{passage.title} {passage.text}" for passage in passages)
        if not tokens.vocab:
            raise InputError("the corpus holds no word that BM25 can search for; give it English text")
        self._index = self._bm25s.BM25(k1=K1, b=B)
        self._index.index(tokens, create_empty_token=False, show_progress=False)
        self._size = len(tokens.ids)

    def search(self, queries: Sequence[str], k: int) -> tuple[Float32[np.ndarray, "B K"], Int[np.ndarray, "B K"]]:
        """Returns the scores of the k best passages and their positions in the corpus, best first.

        Passages that share no word with the query score 0. Equal scores are in the order of the corpus.
        """
        if not 1 <= k <= self._size:
            raise InputError(f"cannot retrieve {k} of {self._size} passages; ask for 1 to {self._size}")
        scores, positions = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        for row, query in enumerate(queries):
            scores[row], positions[row] = _top_k(self._score(query), k)
        return scores, positions

    def _score(self, query: str) -> Float32[np.ndarray, " N"]:
        (words,) = self._tokenize([query], return_ids=False)
        return self._index.get_scores(words) if words else np.zeros(self._size, np.float32)

    def _tokenize(self, texts: Iterable[str], return_ids: bool = True) -> Any:
        return self._bm25s.tokenize(
            texts, stopwords="en", stemmer=self._stemmer, return_ids=return_ids, show_progress=False
        )


def _import_packages() -> tuple[ModuleType, Any]:
    """Returns the module `bm25s` and a stemmer; here, and not above, so that only a search by BM25 needs the extra."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise InputError(f"BM25 needs the package {error.name}; run: pip install rag-jax") from error
    # bm25s lets every debug message of its own through, into whatever log the program keeps.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s, Stemmer.Stemmer("english")


def _top_k(scores: Float32[np.ndarray, " N"], k: int) -> tuple[Float32[np.ndarray, " K"], Int[np.ndarray, " K"]]:
    """The k best and their positions. bm25s has a top-k too, but leaves the order of equal scores open."""
    threshold = np.partition(scores, -k)[-k]
    candidates = np.flatnonzero(scores >= threshold)
    best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
    return scores[best], best
