"""BM25, the lexical baseline for trained retrievers.

The parameters are those of the open-domain literature: k1 0.9 and b 0.4 (Anserini's; Yang et al. 2017), over title and
text. bm25s tokenises and drops English stop words, Snowball's English stemmer (PyStemmer) stems. The score that a word
contributes to each passage is computed when the index is built; a search sums the posting lists of its words.

Words are normalised as for exact match: Unicode composition and case do not matter.
"""

import logging
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int, Int32, Int64

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import part_files
from rag_jax.index.engines.engine import EngineResults, Queries, num_candidates, select_top_k

K1 = 0.9
B = 0.4
AT_ONCE = 4_096  # passages counted at once; memory holds no more texts


class PostingLists(NamedTuple):
    """The passages that contain word w, in `starts[w] : starts[w + 1]`."""

    starts: Int64[np.ndarray, " W+1"]
    rows: Int32[np.ndarray, " L"]  # unique and ascending for each word
    scores: Float32[np.ndarray, " L"]  # contribution of each occurrence of the word in a query


@dataclass(frozen=True)
class BM25:
    """A BM25 index; it holds the statistics of words, not the passages."""

    words: pa.Array  # by their numbers
    lists: PostingLists
    size: int  # N
    alive: Bool[np.ndarray, " N"] | None = None  # rows that may be found; None: all

    @classmethod
    def build(cls, passages: Iterable[Passage], alive: Bool[np.ndarray, " N"] | None = None) -> "BM25":
        """Index passages in one pass. Building takes about 20 bytes per distinct word of each passage.

        Rows that are not `alive` count for nothing, as if their passages had never been there. Raises `InputError` if
        `bm25s` or `PyStemmer` is not installed, and if the passages contain no searchable word.
        """
        numbers: dict[str, int] = {}
        counts, dead = [_Counts(*np.zeros((4, 0), np.int32))], set() if alive is None else {*np.flatnonzero(~alive)}
        texts = ("" if row in dead else f"{each.title} {each.text}" for row, each in enumerate(passages))
        while block := list(islice(texts, AT_ONCE)):
            counts.append(_count(block, numbers, first=sum(len(each.lengths) for each in counts)))
        if not numbers:
            raise InputError("the corpus holds no word that BM25 can search for; give it English text")
        joined = _Counts(*map(np.concatenate, zip(*counts, strict=True)))
        lists = _lists(joined, len(numbers), len(joined.lengths) - len(dead))
        return cls(pa.array(list(numbers), pa.string()), lists, len(joined.lengths), alive)

    def save(self, folder: Path) -> None:
        """Write the index as a part of a store. Raises `InputError` if it cannot be written."""
        arrays = self.lists._asdict() | {"size": np.asarray([self.size]), "format": np.asarray([FORMAT])}
        part_files.write_part(folder, arrays, pa.table([self.words], schema=WORDS))

    @classmethod
    def open(cls, folder: Path, rows: int) -> "BM25":
        """Memory-map a saved index. Raises `InputError` if it is damaged or has another number of rows."""
        arrays, table = part_files.read_arrays(folder), part_files.read_table(folder, WORDS).table
        try:
            lists = PostingLists(*(np.asarray(arrays[name]) for name in PostingLists._fields))
            size, words = int(arrays["size"][0]), table.column("word").combine_chunks()
            is_old = "format" not in arrays or int(arrays["format"][0]) != FORMAT
        except (KeyError, IndexError):
            raise InputError(f"{folder}: holds no BM25 index; {REMEDY}") from None
        if is_old:
            raise InputError(f"{folder}: written by another version of this library; {REMEDY}")
        if size != rows:
            raise InputError(f"{folder}: an index of {size} passages, there are {rows}; {REMEDY}")
        if len(lists.starts) != len(words) + 1 or not lists.starts[-1] == len(lists.rows) == len(lists.scores):
            raise InputError(f"{folder}: its words and their lists do not belong together; {REMEDY}")
        return cls(words, lists, size)

    def search(self, queries: Queries, k: int, excluded: Int[np.ndarray, "B E"] | None = None) -> EngineResults:
        """The k best rows for each question; their scores serve as the logits of a prior.

        Only passages that share a word with the question are returned, padded with -1; ties are in the order of the
        rows. Recall is not defined.
        """
        depth = min(num_candidates(k, excluded), self.size)
        rows = np.full((len(queries.texts), depth), -1, np.int32)
        scores = np.full(rows.shape, -np.inf, np.float32)
        ground = (
            np.zeros(self.size, np.float32)
            if self.alive is None
            else np.where(self.alive, INITIAL_SCORES[1], INITIAL_SCORES[0])
        )
        for question, words in enumerate(self._asked(queries.texts)):
            every = self._score(words, ground.copy())
            found = _first(every, depth)
            rows[question, : len(found)], scores[question, : len(found)] = found, every[found]
        return select_top_k(rows, scores, k, excluded)

    def _score(self, words: Iterable[int], scores: Float32[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
        for word in words:
            here = slice(self.lists.starts[word], self.lists.starts[word + 1])
            scores[self.lists.rows[here]] += self.lists.scores[here]
        return scores

    def _asked(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of the known words of each text."""
        tokens = _split(texts)
        known = {number: self._numbers[word] for word, number in tokens.vocab.items() if word in self._numbers}
        return [[known[number] for number in each if number in known] for each in tokens.ids]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words.to_pylist())}


INITIAL_SCORES = np.asarray([-np.inf, 0], np.float32)  # of removed rows, and of others
REMEDY = "build it again with rag-jax index --out DIR --bm25"
FORMAT = 2  # of the tokenisation
WORDS = pa.schema([("word", pa.string())])


class _Counts(NamedTuple):
    """Occurrences of words in passages, each pair once, by ascending rows."""

    rows: Int32[np.ndarray, " L"]
    words: Int32[np.ndarray, " L"]
    times: Int32[np.ndarray, " L"]
    lengths: Int32[np.ndarray, " N"]  # number of words in each passage


def _count(texts: Sequence[str], numbers: dict[str, int], first: int) -> _Counts:
    """Count the words of texts in the rows from `first` on; new words get the next numbers."""
    tokens = _split(texts)
    number = np.zeros(len(tokens.vocab), np.int64)
    for word in sorted(tokens.vocab):  # its own order differs between processes
        number[tokens.vocab[word]] = numbers.setdefault(word, len(numbers))
    lengths = np.fromiter(map(len, tokens.ids), np.int64, len(tokens.ids))
    words = number[np.fromiter(chain.from_iterable(tokens.ids), np.int64, lengths.sum())]
    pairs = np.repeat(np.arange(len(texts)), lengths) * len(numbers) + words
    pairs, times = np.unique(pairs, return_counts=True)
    rows, words = np.divmod(pairs, max(1, len(numbers)))
    return _Counts(*(each.astype(np.int32) for each in (rows + first, words, times, lengths)))


def _lists(counts: _Counts, words: int, passages: int) -> PostingLists:
    """Lucene's BM25: a word contributes `idf tf / (tf + k1 (1 - b + b length / mean length))`, where
    `idf = log(1 + (N - n + 1/2) / (n + 1/2))` for N passages, n of which contain the word."""
    holding = np.bincount(counts.words, minlength=words)
    idf = np.log1p((passages - holding + 0.5) / (holding + 0.5)).astype(np.float32)
    longer = (K1 * (1 - B + B * counts.lengths * passages / counts.lengths.sum())).astype(np.float32)
    order = np.argsort(counts.words, kind="stable")
    rows, times = counts.rows[order], counts.times[order].astype(np.float32)
    scores = np.repeat(idf, holding) * times / (times + longer[rows])
    return PostingLists(np.concatenate([[0], np.cumsum(holding)]), rows, scores)


def _first(scores: Float32[np.ndarray, " N"], k: int) -> Int64[np.ndarray, " found"]:
    """The k best rows with positive scores, ties in their order. Only these are sorted: most of a corpus has none."""
    shared = np.flatnonzero(scores > 0)
    if len(shared) > k:
        shared = shared[scores[shared] >= np.partition(scores[shared], -k)[-k]]
    return shared[np.argsort(-scores[shared], kind="stable")][:k]


def _split(texts: Sequence[str]) -> Any:
    """The stemmed words of texts as numbers (`ids`) with their vocabulary (`vocab`)."""
    bm25s, stemmer = _import_packages()
    folded = [unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()) for text in texts]
    return bm25s.tokenize(folded, token_pattern=_word(), stopwords="en", stemmer=stemmer, show_progress=False)


@cache
def _word() -> str:
    """A regular expression for words: two or more letters, digits or combining marks.

    Without the marks, Hindi words would be split at vowel signs, and Latin ones at accents without a composed form.
    """
    marks = "".join(chr(code) for code in range(sys.maxunicode) if unicodedata.category(chr(code))[0] == "M")
    return rf"[\w{marks}]{{2,}}"


def _import_packages() -> tuple[ModuleType, Any]:
    """Import `bm25s` and a stemmer lazily, so that only BM25 requires them."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise InputError(f"BM25 needs the package {error.name}; run: pip install rag-jax") from error
    # bm25s logs debug messages by default.
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return bm25s, Stemmer.Stemmer("english")
