"""An open knowledge store: the passages, their vectors by the frozen passage tower, and the generator's tokens.

Row i is the same passage in every version of a store; the row of a removed passage remains, but no search returns it.
`rag_jax.index.manifest` describes the files, `building` and `updates` how they are created and changed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isclose
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import GeneratorTokenizer, pad
from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership, part_files, pending_build
from rag_jax.index.columns import SCHEMA, PassageTable, SegmentedArray, as_table
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.manifest import Manifest, Segment
from rag_jax.index.part_files import StoredTable
from rag_jax.index.passage_tokenizer import PassageTokenizer, PassageTokens
from rag_jax.index.truncation import NO_TRUNCATION, Truncation
from rag_jax.types import Knowledge, Tokens, host


@dataclass(frozen=True, eq=False)
class Store:
    """An open knowledge store, on the host. `rag_jax.index.placement` puts it on the device."""

    passages: PassageTable  # [N]
    passage_vectors: SegmentedArray  # [N, D]
    passage_tokens: SegmentedArray  # [N, P] tokens of the generator: `<s> title / text`
    passage_lengths: SegmentedArray  # [N]
    removed: frozenset[int] = frozenset()
    folder: Path | None = None
    manifest: Manifest | None = None
    truncated: Truncation = NO_TRUNCATION  # by the generator, for passages tokenised in memory; else in the manifest
    passage_tokenizer: PassageTokenizer | None = None  # of the tokens; None: unknown, or there are none

    def __repr__(self) -> str:
        return f"Store({len(self):,} passages, vectors of width {self.width}, {self.folder or 'in memory'})"

    def __len__(self) -> int:
        """The number of passages, without removed ones."""
        return self.size - len(self.removed)

    @property
    def size(self) -> int:
        """N, the number of rows, with removed ones."""
        return len(self.passage_vectors)

    @property
    def width(self) -> int:
        """D."""
        return self.passage_vectors.shape[1]

    @property
    def tokens_key(self) -> str | None:
        """`PassageTokenizer.key` of the tokens; None: unknown, or without tokens."""
        return None if self.passage_tokenizer is None else self.passage_tokenizer.key

    @property
    def is_closed_book(self) -> bool:
        """Whether it holds the one empty passage of `closed_book`."""
        return self.size == 1 and self.passages[0] == EMPTY_PASSAGE

    @property
    def has_no_tokens(self) -> bool:
        """Whether it has no tokens for a generator."""
        return self.passage_tokens.shape[1] == 0

    @cached_property
    def alive(self) -> Bool[np.ndarray, " N"]:
        """The rows whose passages are not removed."""
        alive = np.ones(self.size, bool)
        alive[sorted(self.removed)] = False
        return alive

    @cached_property
    def knowledge(self) -> Knowledge:
        """All rows as arrays in host memory, for indexes that fit there."""
        alive = None if not self.removed else host(self.alive)
        return Knowledge(
            host(self.passage_vectors.whole),
            Tokens(host(self.passage_tokens.whole), host(self.passage_lengths.whole)),
            alive,
        )

    def subset(self, rows: Int[np.ndarray, " n"]) -> Knowledge:
        """The `Knowledge` of some rows; rows of -1 are empty passages."""
        valid_rows, valid = np.maximum(rows, 0), rows >= 0
        empty = () if self.passage_tokenizer is None else self.passage_tokenizer.tokenizer.empty_passage
        lengths, ids = np.where(valid, self.passage_lengths[valid_rows], len(empty)), self.passage_tokens[valid_rows]
        ids[~valid, : len(empty)] = np.asarray(empty, ids.dtype)
        vectors = np.where(valid[:, None], self.passage_vectors[valid_rows], self.passage_vectors.dtype.type(0))
        return Knowledge(host(vectors), Tokens(host(ids), host(lengths)))

    def find(self, ids: Sequence[str]) -> Int[np.ndarray, " ids"]:
        """The rows of some passages by their ids; -1 for unknown ids."""
        return self.passages.find(ids, self.alive if self.removed else None)

    def live_passages(self) -> Iterator[Passage]:
        """The passages without removed ones, in the order of their rows."""
        return (passage for row, passage in enumerate(self.passages) if row not in self.removed)

    def with_vectors(self, vectors: Float[np.ndarray, "N D"]) -> "Store":
        """This store with other vectors, in memory."""
        return replace(self, passage_vectors=SegmentedArray([vectors]), folder=None, manifest=None)

    def concatenate(self, more: "Store") -> "Store":
        """This store followed by the rows of another, in memory."""
        return replace(
            self,
            passages=PassageTable([*self.passages.segments, *more.passages.segments]),
            passage_vectors=SegmentedArray([*self.passage_vectors.segments, *more.passage_vectors.segments]),
            passage_tokens=SegmentedArray(
                [*self.passage_tokens.segments, *more.passage_tokens.segments], self.passage_tokens.fill
            ),
            passage_lengths=SegmentedArray([*self.passage_lengths.segments, *more.passage_lengths.segments]),
            removed=self.removed | {self.size + row for row in more.removed},
        )

    def remove_rows(self, rows: Sequence[int]) -> "Store":
        """This store with some rows marked as removed, in memory."""
        return replace(self, removed=self.removed | {int(row) for row in rows})


def from_vectors(
    passages: Sequence[Passage], vectors: Float[np.ndarray, "N D"], passage_tokenizer: PassageTokenizer
) -> Store:
    """A store, in memory, of passages with their vectors."""
    ids, lengths, cut = passage_tokenizer.tokenize(passages)
    texts, tokens = PassageTable([as_table(passages)]), SegmentedArray([ids], passage_tokenizer.tokenizer.pad)
    counts = SegmentedArray([lengths])
    return Store(texts, SegmentedArray([vectors]), tokens, counts, truncated=cut, passage_tokenizer=passage_tokenizer)


def without_vectors(passages: Sequence[Passage]) -> Store:
    """A store, in memory, of passages without vectors and tokens, for the rows of their ids before it is built."""
    nothing, lengths = np.zeros((len(passages), 0), np.float32), np.zeros(len(passages), np.int32)
    return Store(
        PassageTable([as_table(passages)]),
        SegmentedArray([nothing]),
        SegmentedArray([nothing.astype(np.uint16)]),
        SegmentedArray([lengths]),
    )


def closed_book(width: int, vocabulary: GeneratorTokenizer) -> Store:
    """A store of one empty passage, whose prior is one: the generator reads only ` // question`."""
    empty = vocabulary.empty_passage
    tokens = pad([empty], max(len(empty), 1), vocabulary.pad)
    vectors, ids, lengths = np.zeros((1, width), np.float32), np.asarray(tokens.ids), np.asarray(tokens.lengths)
    return Store(
        PassageTable([as_table([EMPTY_PASSAGE])]),
        SegmentedArray([vectors]),
        SegmentedArray([ids], vocabulary.pad),
        SegmentedArray([lengths]),
    )


EMPTY_PASSAGE = Passage("none", "", "")


def open_store(folder: Path, encoder: TextEncoder | None, passage_tokenizer: PassageTokenizer | None) -> Store:
    """Open a store with vectors by this encoder (None: any), with tokens for a generator (None: without).

    Takes milliseconds: descriptions are compared with their checksums, files are memory-mapped and their sizes
    compared. Passages without tokens for this generator are tokenised in memory: nothing is written, see `add_tokens`.
    Raises `InputError` for a store that is missing, damaged, or encoded by another tower.
    """
    while True:
        found = manifest.read(folder)
        check_tower(folder, found, encoder)
        try:
            return _open_version(folder, found, passage_tokenizer)
        except InputError:
            if manifest.read(folder).version == found.version:
                raise  # otherwise another process changed it and deleted the parts of this version: try again


def add_tokens(folder: Path, passage_tokenizer: PassageTokenizer) -> bool:
    """Add a generator's tokens to a store that lacks some; False if it is not writable, or being built."""
    if _has_tokens(manifest.read(folder), passage_tokenizer):
        return True
    if not ownership.is_writable(folder):
        return False
    try:
        with manifest.transaction(folder, keep_waiting=lambda: not (folder / pending_build.FILE).exists()) as now:
            if not _has_tokens(now, passage_tokenizer):  # another process may have added them
                _add_tokens(folder, now, passage_tokenizer)
    except ownership.BusyError:
        return False
    return True


def _has_tokens(found: Manifest, passage_tokenizer: PassageTokenizer) -> bool:
    return all(f"{passage_tokenizer.folder}/{each.name}" in each.parts for each in found.segments)


def read_passages(folder: Path, found: Manifest) -> PassageTable:
    """The passages of a version, with removed rows."""
    parts = [(f"passages/{each.name}", each.parts[f"passages/{each.name}"]) for each in found.segments]
    return PassageTable([part_files.read_table(folder / part, SCHEMA, checksum) for part, checksum in parts])


def read_segment(folder: Path, name: str) -> PassageTable:
    """The passages of a segment, which no version may have yet."""
    return PassageTable([part_files.read_table(folder / "passages" / name, SCHEMA)])


def write_tokens(folder: Path, name: str, passage_tokenizer: PassageTokenizer) -> None:
    """Tokenise a segment's passages for a generator, unless its part exists."""
    part = folder / passage_tokenizer.folder / name
    if not part_files.is_part(part):
        tokens = passage_tokenizer.tokenize(list(read_segment(folder, name)))
        part_files.write_part(part, tokens.part)


def check_tower(folder: Path, found: Manifest, encoder: TextEncoder | None) -> None:
    """Raise `InputError` if another tower encoded the vectors."""
    for key, stored, value in [] if encoder is None else tower_differences(found, encoder):
        what = f"built by a tower with {key} {stored!r}, the run's has {value!r}"
        remedies = {
            "template": f"set passage_template to {stored!r}",
            "norm": "give retriever.vector_norm, or --norm of rag-jax index, the other's",
            "cut_to": "give retriever.vector_width, or --width of rag-jax index, as the other has it",
            "max_length": f"set retriever.max_passage, or --max-length of rag-jax index, to {stored}",
        }
        raise InputError(f"{folder}: {what}; {remedies.get(key, 'name that tower')}, or rebuild it")


def tower_differences(found: Manifest, encoder: TextEncoder) -> Iterator[tuple[str, object, object]]:
    """What a store's tower has otherwise than an encoder: the name, its value, the encoder's.

    A store that was written before networks were recorded says nothing of its own.
    """
    spec = {"cut_to": None} | encoder.spec  # a store that is cut says so, and so does an encoder
    stored, network = found.tower.get("network"), spec.pop("network", None)
    for key, value in spec.items():
        if (of_store := found.tower.get(key)) != value and not _are_close(of_store, value):
            yield key, of_store, value
    if stored is not None and network is not None:
        for key in sorted({key for key, _ in stored.items() ^ network.items()}):
            yield key, stored.get(key, "the default"), network.get(key, "the default")


def _are_close(stored: object, value: object) -> bool:
    return isinstance(stored, float) and isinstance(value, float) and isclose(stored, value, rel_tol=NORM_TOLERANCE)


NORM_TOLERANCE = 1e-5  # relative, for norms that users type in


def _open_version(folder: Path, found: Manifest, passage_tokenizer: PassageTokenizer | None) -> Store:
    texts = read_passages(folder, found)
    parts = [(f"vectors/{each.name}", each.parts[f"vectors/{each.name}"]) for each in found.segments]
    vectors = [part_files.read_arrays(folder / part, checksum)["vectors"] for part, checksum in parts]
    if passage_tokenizer is None:
        tokens = [PassageTokens(np.zeros((len(each), 0), np.uint16), np.zeros(len(each), np.int32)) for each in vectors]
    else:
        tokens = [
            _tokens(folder, *each, passage_tokenizer) for each in zip(found.segments, texts.segments, strict=True)
        ]
    store = Store(
        texts,
        SegmentedArray(vectors),
        SegmentedArray([each.ids for each in tokens], passage_tokenizer.tokenizer.pad if passage_tokenizer else 0),
        SegmentedArray([each.lengths for each in tokens]),
        frozenset(manifest.removed_rows(folder, found).tolist()),
        folder,
        found,
        Truncation.total(each.truncated for each in tokens),
        passage_tokenizer,
    )
    for name, rows in (
        ("passages", len(store.passages)),
        ("vectors", store.size),
        ("tokens", len(store.passage_lengths)),
    ):
        if rows != found.rows or len(store) != found.passages:
            raise InputError(f"{folder}: {rows} rows of {name}, the manifest counts {found.rows}; {part_files.REMEDY}")
    return store


def _tokens(
    folder: Path, segment: Segment, texts: pa.Table | StoredTable, passage_tokenizer: PassageTokenizer
) -> PassageTokens:
    """The tokens of a segment for a generator: those of the store, or tokenised now."""
    part = f"{passage_tokenizer.folder}/{segment.name}"
    if part not in segment.parts:
        return passage_tokenizer.tokenize(list(PassageTable([texts])))
    stored = part_files.read_arrays(folder / part, segment.parts[part])
    return PassageTokens(stored["ids"], stored["lengths"])


def _add_tokens(folder: Path, now: Manifest, passage_tokenizer: PassageTokenizer) -> None:
    for segment in now.segments:
        write_tokens(folder, segment.name, passage_tokenizer)
    segments = [
        manifest.make_segment(
            folder, each.name, each.passages, dict.fromkeys((*each.kinds, passage_tokenizer.folder)), each.parts
        )
        for each in now.segments
    ]
    generators = now.generators | {passage_tokenizer.key: passage_tokenizer.spec}
    manifest.commit(folder, now, now.next_version("tokenise", segments=tuple(segments), generators=generators))
