"""An opened knowledge store: the passages, their vectors by the frozen passage tower, and what the generator reads.

Row i is the same passage in every version of a store; a removed one leaves its row behind, which no search returns. How
a store lies on the disk: `rag_jax.index.manifest`. How it is made and changed: `building` and `living`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isclose
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from rag_jax.corpus.passage import Passage
from rag_jax.data.tokenizers import GeneratorTokenizer, pad
from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership, part_files, pending_build
from rag_jax.index.columns import PassageTable, SegmentedArray, as_table
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.manifest import Manifest
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.truncation import NO_TRUNCATION, Truncation
from rag_jax.types import Knowledge, Tokens, host


@dataclass(frozen=True, eq=False)
class Store:
    """An opened knowledge store, on the host. `rag_jax.index.placement` puts it on the device."""

    passages: PassageTable  # [N]
    passage_vectors: SegmentedArray  # [N, D]
    passage_tokens: SegmentedArray  # [N, P] tokens of the generator: `<s> title / text`
    passage_lengths: SegmentedArray  # [N]
    removed: frozenset[int] = frozenset()
    folder: Path | None = None
    manifest: Manifest | None = None
    truncated: Truncation = (
        NO_TRUNCATION  # what its generator does not read of passages tokenised in memory; else the manifest's
    )

    def __repr__(self) -> str:
        return f"Store({len(self):,} passages, vectors of width {self.width}, {self.folder or 'in memory'})"

    def __len__(self) -> int:
        """The passages that are there."""
        return self.size - len(self.removed)

    @property
    def size(self) -> int:
        """N, the rows; removed ones included."""
        return len(self.passage_vectors)

    @property
    def width(self) -> int:
        """D."""
        return self.passage_vectors.shape[1]

    @property
    def is_closed_book(self) -> bool:
        """Whether there is no knowledge in it; see `closed_book`."""
        return self.size == 1 and self.passages[0] == EMPTY_PASSAGE

    @property
    def has_no_tokens(self) -> bool:
        """Whether there is nothing in it for a generator to read."""
        return self.passage_tokens.shape[1] == 0

    @cached_property
    def alive(self) -> Bool[np.ndarray, " N"]:
        """The rows that hold a passage."""
        alive = np.ones(self.size, bool)
        alive[sorted(self.removed)] = False
        return alive

    @cached_property
    def knowledge(self) -> Knowledge:
        """All rows as arrays on the host: for indexes that fit there as a whole."""
        alive = None if not self.removed else host(self.alive)
        return Knowledge(
            host(self.passage_vectors.whole),
            Tokens(host(self.passage_tokens.whole), host(self.passage_lengths.whole)),
            alive,
        )

    def subset(self, rows: Int[np.ndarray, " n"]) -> Knowledge:
        """A few rows as a little knowledge of their own, rows of -1 as empty passages: all that reading them needs."""
        some, there = np.maximum(rows, 0), rows >= 0
        lengths = np.where(there, self.passage_lengths[some], 1)  # `<s>`, which every passage begins with
        vectors = np.where(there[:, None], self.passage_vectors[some], self.passage_vectors.dtype.type(0))
        return Knowledge(host(vectors), Tokens(host(self.passage_tokens[some]), host(lengths)))

    def find(self, ids: Sequence[str]) -> Int[np.ndarray, " passage_tokens"]:
        """The rows of some passages by their ids; -1 for those that are not there."""
        return self.passages.find(ids, self.alive if self.removed else None)

    def live_passages(self) -> Iterator[Passage]:
        """The passages that are there, in the order of their rows."""
        return (passage for row, passage in enumerate(self.passages) if row not in self.removed)

    def concatenate(self, more: "Store") -> "Store":
        """This store with the rows of another behind its own, in memory."""
        return replace(
            self,
            passages=PassageTable([self.passages.table, more.passages.table]),
            passage_vectors=SegmentedArray([*self.passage_vectors.segments, *more.passage_vectors.segments]),
            passage_tokens=SegmentedArray(
                [*self.passage_tokens.segments, *more.passage_tokens.segments], self.passage_tokens.fill
            ),
            passage_lengths=SegmentedArray([*self.passage_lengths.segments, *more.passage_lengths.segments]),
            removed=self.removed | {self.size + row for row in more.removed},
        )

    def remove_rows(self, rows: Sequence[int]) -> "Store":
        """This store without some rows, in memory."""
        return replace(self, removed=self.removed | {int(row) for row in rows})


def from_vectors(
    passages: Sequence[Passage], vectors: Float[np.ndarray, "N D"], passage_tokenizer: PassageTokenizer
) -> Store:
    """A store, in memory, of passages that have their vectors already."""
    ids, lengths, cut = passage_tokenizer.tokenize(passages)
    texts, tokens = PassageTable([as_table(passages)]), SegmentedArray([ids], passage_tokenizer.tokenizer.pad)
    return Store(texts, SegmentedArray([vectors]), tokens, SegmentedArray([lengths]), truncated=cut)


def without_vectors(passages: Sequence[Passage]) -> Store:
    """Passages without vectors and tokens: a store that is still to be built, its rows known by their ids."""
    nothing, lengths = np.zeros((len(passages), 0), np.float32), np.zeros(len(passages), np.int32)
    return Store(
        PassageTable([as_table(passages)]),
        SegmentedArray([nothing]),
        SegmentedArray([nothing.astype(np.uint16)]),
        SegmentedArray([lengths]),
    )


def closed_book(width: int, vocabulary: GeneratorTokenizer) -> Store:
    """No knowledge: one empty passage, whose prior is one. The generator reads ` // question` alone."""
    tokens = pad([vocabulary.passage_start], 1, vocabulary.pad)
    vectors, ids, lengths = np.zeros((1, width), np.float32), np.asarray(tokens.ids), np.asarray(tokens.lengths)
    return Store(
        PassageTable([as_table([EMPTY_PASSAGE])]),
        SegmentedArray([vectors]),
        SegmentedArray([ids], vocabulary.pad),
        SegmentedArray([lengths]),
    )


EMPTY_PASSAGE = Passage("none", "", "")


def open_store(folder: Path, encoder: TextEncoder | None, passage_tokenizer: PassageTokenizer | None) -> Store:
    """Open a store whose vectors this encoder made (None: whichever did), for a generator (None: for none).

    Takes milliseconds: memory maps, sizes compared, nothing read. Only what this generator never read before is
    tokenised, and kept where the folder can be written. Raises `InputError` for a store that is missing, damaged, or
    made by another tower.
    """
    while True:
        found = manifest.read(folder)
        check_tower(folder, found, encoder)
        try:
            if passage_tokenizer is None or _has_tokens(found, passage_tokenizer):
                return _open_version(folder, found, passage_tokenizer)
            if not _save_tokens(folder, passage_tokenizer):
                return _open_and_tokenize(folder, found, passage_tokenizer)
        except InputError:
            if manifest.read(folder).version == found.version:
                raise  # otherwise it was changed meanwhile, and the parts of the old version cleared away


def _has_tokens(found: Manifest, passage_tokenizer: PassageTokenizer) -> bool:
    return all(f"{passage_tokenizer.folder}/{each.name}" in each.parts for each in found.segments)


def read_passages(folder: Path, found: Manifest) -> PassageTable:
    """The passages of a version, all rows."""
    return PassageTable([part_files.read_table(folder / "passages" / each.name) for each in found.segments])


def write_tokens(folder: Path, name: str, passage_tokenizer: PassageTokenizer) -> None:
    """Tokenise a segment's passages for a generator, unless that has been done."""
    part = folder / passage_tokenizer.folder / name
    if not part_files.is_part(part):
        tokens = passage_tokenizer.tokenize(list(PassageTable([part_files.read_table(folder / "passages" / name)])))
        part_files.write_part(part, tokens.part)


def check_tower(folder: Path, found: Manifest, encoder: TextEncoder | None) -> None:
    """Raises `InputError` where another tower made the vectors."""
    for key, value in ({} if encoder is None else encoder.spec).items():
        held = found.tower.get(key)
        if held == value or _are_close(held, value):
            continue
        told = f"built by a tower with {key} {held!r}, the run's has {value!r}"
        remedies = {
            "template": f"set passage_template to {held!r}",
            "norm": "give retriever.vector_norm, or --norm of rag-jax index, the other's",
        }
        raise InputError(f"{folder}: {told}; {remedies.get(key, 'name that tower')}, or build it anew")


def _are_close(held: object, value: object) -> bool:
    return isinstance(held, float) and isinstance(value, float) and isclose(held, value, rel_tol=NORM_TOLERANCE)


NORM_TOLERANCE = 1e-5  # by which scales may differ, relative to their size: they are typed in


def _open_version(folder: Path, found: Manifest, passage_tokenizer: PassageTokenizer | None) -> Store:
    names = [segment.name for segment in found.segments]
    vectors = [part_files.read_arrays(folder / "vectors" / name)["vectors"] for name in names]
    if passage_tokenizer is None:
        tokens = [(np.zeros((len(rows), 0), np.uint16), np.zeros(len(rows), np.int32)) for rows in vectors]
    else:
        parts = [part_files.read_arrays(folder / passage_tokenizer.folder / name) for name in names]
        tokens = [(part["ids"], part["lengths"]) for part in parts]
    removed = part_files.read_arrays(folder / found.removed)["rows"].tolist() if found.removed else ()
    store = _make_store(read_passages(folder, found), vectors, tokens, passage_tokenizer)
    store = replace(store, removed=frozenset(removed), folder=folder, manifest=found)
    for name, rows in (
        ("passages", len(store.passages)),
        ("vectors", store.size),
        ("tokens", len(store.passage_lengths)),
    ):
        if rows != found.rows or len(store) != found.passages:
            raise InputError(f"{folder}: {rows} rows of {name}, the manifest counts {found.rows}; {part_files.REMEDY}")
    return store


def _make_store(texts: PassageTable, vectors: list, tokens: list, passage_tokenizer: PassageTokenizer | None) -> Store:
    fill = passage_tokenizer.tokenizer.pad if passage_tokenizer else 0
    return Store(
        texts,
        SegmentedArray(vectors),
        SegmentedArray([each[0] for each in tokens], fill),
        SegmentedArray([each[1] for each in tokens]),
    )


def _save_tokens(folder: Path, passage_tokenizer: PassageTokenizer) -> bool:
    """Keep with a store what a generator reads of it; False where it cannot be written, or is just being built."""
    if not ownership.is_writable(folder):
        return False
    try:
        with manifest.transaction(folder, keep_waiting=lambda: not (folder / pending_build.FILE).exists()) as now:
            for segment in now.segments:
                write_tokens(folder, segment.name, passage_tokenizer)
            segments = [
                manifest.make_segment(
                    folder, each.name, each.passages, dict.fromkeys((*each.kinds, passage_tokenizer.folder))
                )
                for each in now.segments
            ]
            generators = now.generators | {passage_tokenizer.key: passage_tokenizer.spec}
            new = now.next_version("tokenise", segments=tuple(segments), generators=generators)
            manifest.commit(folder, now, new)
    except ownership.BusyError:
        return False
    return True


def _open_and_tokenize(folder: Path, found: Manifest, passage_tokenizer: PassageTokenizer) -> Store:
    """Open a store for a generator that has not read all of it yet, with its tokens in memory."""
    bare = _open_version(folder, found, None)
    tables = [part_files.read_table(folder / "passages" / segment.name) for segment in found.segments]
    tokens = [passage_tokenizer.tokenize(list(PassageTable([table]))) for table in tables]
    cut = Truncation.total(each.truncated for each in tokens)
    told = _make_store(bare.passages, list(bare.passage_vectors.segments), tokens, passage_tokenizer)
    return replace(told, removed=bare.removed, folder=folder, manifest=found, truncated=cut)
