"""Splitting long texts into chunks, by words or by the tokens of a tokenizer."""

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import ignore_special_tokens_in_text
from rag_jax.errors import InputError

WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    "|[\U00020000-\U0003ffff]"
)
"""Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer; Chinese and Japanese."""
UNSPACED, SPACED = (8, 2), (64, 8)  # maximum characters of a word; characters that count as a word in longer runs
DPR_WORDS = 100  # of a passage, in the paper too
JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class Cut:
    """How long texts are split into passages: as asked for, and as an index records it."""

    words: int | None = None  # words per passage; None: 100, as in DPR, or as the index that is changed was split
    tokens: int | None = None  # tokens of the tower per passage, instead of words
    overlap: int | None = None  # words or tokens that consecutive passages share; None: 0, or as that index has it

    @property
    def spec(self) -> dict[str, Any]:
        """The split as JSON, with the default number of words."""
        return asdict(self) | {"words": DPR_WORDS if self.words is None else self.words, "overlap": self.overlap or 0}

    @property
    def size(self) -> int:
        """Words of a passage, or its tokens."""
        return self.spec["words"] if self.tokens is None else self.tokens

    def over(self, known: "Cut | None") -> "Cut":
        """This cut, with what it leaves open as an index was split; words and tokens share no overlap."""
        if known is None:
            return self
        size = known if self.words is None and self.tokens is None else self
        overlap = self.overlap
        if overlap is None and (size.tokens is None) == (known.tokens is None):
            overlap = known.overlap
        return replace(size, overlap=overlap)

    def chunker(self, tokenizer: Tokenizer | None) -> "Chunker":
        """What splits texts so; the tokenizer is used if tokens are counted."""
        return Chunker(self.size, self.overlap or 0, None if self.tokens is None else tokenizer)

    def __str__(self) -> str:
        unit = "words" if self.tokens is None else "tokens of the tower"
        return f"{self.size} {unit}" + (f", {self.overlap} of them shared" if self.overlap else "")


@dataclass(frozen=True)
class Chunker:
    """Splits texts of more than `size` words, or tokens if there is a tokenizer; shorter ones are left unchanged.

    Each chunk begins `size - overlap` units after the previous one, and the last ends with the text. Words are
    separated by white space and joined by single spaces; DPR and the RAG paper split Wikipedia so, into 100 words.
    Without spaces, every two characters of Chinese, Japanese or Thai count as a word, and every eight of a URL or blob
    of more than 64 characters. Base characters and their combining marks stay together. Tokens are counted in the whole
    text, without special tokens; a chunk is a substring that begins and ends between words, up to a word earlier than
    the count, unless a word alone is longer than that.

    Raises `InputError` for a size below 1, and for an overlap that is negative or not below the size.
    """

    size: int = 100
    overlap: int = 0
    tokenizer: Tokenizer | None = None

    def __post_init__(self) -> None:
        unit = "word" if self.tokenizer is None else "token"
        if self.size < 1:
            raise InputError(f"passages of {self.size} {unit}s cannot be cut; ask for 1 {unit} at least")
        if not 0 <= self.overlap < self.size:
            what = f"an overlap of {self.overlap} between passages of {self.size} {unit}s"
            raise InputError(f"{what} cannot be; give 0 to {self.size - 1}")
        if self.tokenizer is not None:
            object.__setattr__(self, "tokenizer", _unbounded(self.tokenizer))

    def chunks(self, passage: Passage) -> Iterator[Passage]:
        """The chunks of passage `a`, with the ids `a`, `a#2`, `a#3`, …, its title, and `a` as their document.

        Splitting by words without overlap is idempotent. A corpus must not have another passage `a#2`.
        """
        return number_chunks(passage, [(passage.title, text) for text in self.split(passage.text)])

    def split(self, text: str) -> Iterator[str]:
        """The texts of the chunks."""
        return _by_words(text, self) if self.tokenizer is None else _by_tokens(text, self, self.tokenizer)

    def count(self, text: str) -> int:
        """The length of a text in the unit of `size`."""
        if self.tokenizer is None:
            return sum(1 for _ in _units(text))
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


def number_chunks(passage: Passage, chunks: Sequence[tuple[str, str]]) -> Iterator[Passage]:
    """The (title, text) chunks of a passage `a`, with the ids `a`, `a#2`, `a#3`, … and `a` as their document."""
    document = passage.document or (passage.id if len(chunks) > 1 else "")
    for number, (title, text) in enumerate(chunks, start=1):
        id = passage.id if number == 1 else f"{passage.id}#{number}"
        yield Passage(id, title, text, document)


def _by_words(text: str, cut: Chunker) -> Iterator[str]:
    units = list(_units(text))
    if len(units) <= cut.size:
        yield text
        return
    # The last chunk is the first that reaches the end.
    for start in range(0, len(units) - cut.overlap, cut.size - cut.overlap):
        yield "".join(units[start : start + cut.size]).removeprefix(" ")


def _units(text: str) -> Iterator[str]:
    """The words, each with a leading space; a run without spaces that is too long for a word is split."""
    for word in text.split():
        longest, step = UNSPACED if WITHOUT_SPACES.search(word) else SPACED
        start = 0
        while start < len(word):
            stop = start + step if len(word) > longest else len(word)
            while stop < len(word) and (_joined(word[stop]) or word[stop - 1] == "\u200d"):
                stop += 1
            yield word[start:stop] if start else f" {word[:stop]}"
            start = stop


def _joined(character: str) -> bool:
    """Whether a character attaches to the previous one: combining marks, joiners, variation selectors."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me") or character in JOINERS


def _by_tokens(text: str, cut: Chunker, tokenizer: Tokenizer) -> Iterator[str]:
    body = text.rstrip()  # so that every chunk adds text to the previous one
    starts = _token_starts(body, tokenizer)
    total = len(starts)
    if total <= cut.size:
        yield text
        return
    between = _between_words(body, starts)
    starts.append(len(body))
    begin = reached = 0
    while reached < total:
        end = total if total - begin <= cut.size else _last(between, begin, begin + cut.size) or begin + cut.size
        # Nothing new if the word after `reached` is long; or, rarely, empty: the first token of several that encode
        # one character.
        if end > reached and (piece := body[starts[begin] : starts[end]].strip()):
            yield piece
        reached, after = end, begin + cut.size - cut.overlap
        begin = _last(between, begin, after) or _first(between, after, end) or after


def _unbounded(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, or a copy without truncation and padding, which would change a text's length."""
    if tokenizer.truncation is None and tokenizer.padding is None:
        return tokenizer
    return ignore_special_tokens_in_text(Tokenizer.from_str(tokenizer.to_str()))


def _token_starts(text: str, tokenizer: Tokenizer) -> list[int]:
    """The character offset of each token: 0 for the first, and non-decreasing."""
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    return list(accumulate((start for start, _ in offsets[1:]), max, initial=0)) if offsets else []


def _between_words(text: str, starts: list[int]) -> list[int]:
    """The tokens that begin a word or the white space before it."""
    return [
        token
        for token, at in enumerate(starts)
        if token and at > starts[token - 1] and (text[at].isspace() or text[at - 1].isspace())
    ]


def _last(between: list[int], low: int, high: int) -> int | None:
    """The last of `between` that is above `low` and not above `high`."""
    at = bisect_right(between, high)
    return between[at - 1] if at and between[at - 1] > low else None


def _first(between: list[int], low: int, high: int) -> int | None:
    """The first of `between` that is not below `low` and not above `high`."""
    at = bisect_left(between, low)
    return between[at] if at < len(between) and between[at] <= high else None
