"""Readers that stream a corpus of any supported format as passages, without holding it in memory.

The format is recognised by the file suffix, which `.gz` may follow except for Parquet, or by a folder's contents:

| what | module |
|---|---|
| `.tsv` of DPR | `tsv` |
| JSON Lines of passages, or of articles in the format of KILT: `.jsonl`, `.json` | `json_lines`, `kilt` |
| text and Markdown, one document per file: `.txt`, `.md`, `.markdown`, or a folder of them | `documents`, `markdown` |
| `.parquet`, or a folder of them; a folder written by `save_to_disk` of `datasets` | `tables` |
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from rag_jax.corpus.chunking import Chunker
from rag_jax.corpus.documents import (
    DOCUMENT_SUFFIXES,
    files_in,
    is_document,
    is_markdown,
    linked_folders,
    read_document,
    read_folder,
)
from rag_jax.corpus.formats import unknown_format
from rag_jax.corpus.json_lines import read_json, read_rows
from rag_jax.corpus.markdown import markdown_chunks
from rag_jax.corpus.passage import Passage
from rag_jax.corpus.tables import STATE_FILE, is_parquet, read_dataset, read_parquet
from rag_jax.corpus.tsv import FaultRecorder, check_sequence, read_tsv
from rag_jax.data.bad_lines import BadLines, OnBadLine, raise_error
from rag_jax.data.lines import check_plain
from rag_jax.data.unique_ids import UniqueIds
from rag_jax.errors import InputError, warn_once

__all__ = ["BadLines", "Chunker", "OnBadLine", "Passage", "raise_error", "read_corpus", "read_passages"]

Reader = Callable[
    [Path, OnBadLine], Iterator[tuple[str, Passage]]
]  # yields the location of each passage, for messages, and the passage

READERS: dict[str, Reader] = {".tsv": read_tsv, ".jsonl": read_rows, ".json": read_json}
READERS |= dict.fromkeys(DOCUMENT_SUFFIXES, read_document)
NUMBERING = (read_rows, read_json, read_dataset, read_parquet)  # rows without an id, unless told `own_ids`


def read_corpus(
    path: str | Path,
    chunker: Chunker | None = None,
    on_bad_line: OnBadLine = raise_error,
    own_ids: bool = False,
) -> Iterator[Passage]:
    """Yield the passages of a corpus in order, split by `chunker` if given; errors are found while reading.

    Markdown files are split at their structure (`rag_jax.corpus.markdown`), everything else as plain text.

    Errors of a row go to `on_bad_line`; if that returns, it is skipped (see `rag_jax.data.bad_lines`): a missing or
    empty text, a duplicate id (ids of chunks included), an id out of sequence in a numbered .tsv, too few or too
    many columns, unbalanced quotes, malformed JSON, invalid UTF-8, NUL, a lone surrogate, a line that is too long. The
    message is `FILE:LINE: what; remedy` with the line where the row begins, or `FILE: row N: …` for a table. With
    `own_ids`, so is a row that names no id, which is numbered otherwise.

    Raises `InputError` for a missing or unreadable path, an unknown kind of corpus, a wrong header, a damaged file, and
    a corpus without passages.
    """
    path = Path(path)
    reader, recorder, ids = _reader(path), FaultRecorder(on_bad_line), UniqueIds()
    options = {"own_ids": True} if own_ids and reader in NUMBERING else {}
    rows = _unique(reader(path, recorder, **options), ids, recorder)
    empty = True
    for location, passage in check_sequence(rows, recorder) if reader is read_tsv else rows:
        split = _splitter(reader, passage, chunker)
        chunks = _chunks(passage, split, location, ids, on_bad_line)
        empty = empty and not chunks
        yield from chunks
    if empty:
        raise InputError(f"{path}: holds no passages; give a corpus with one at least")


def read_passages(path: str | Path, words: int | None = None) -> Iterator[Passage]:
    """Yield the passages of a corpus in order, split into chunks of `words` words if given (see `Chunker`).

    Raises `InputError` at the first invalid row.
    """
    return read_corpus(path, None if words is None else Chunker(words))


def _splitter(reader: Reader, passage: Passage, chunker: Chunker | None) -> Callable[[Passage], Iterable[Passage]]:
    if chunker is None:
        return lambda whole: [whole]
    if reader in (read_document, read_folder) and is_markdown(passage.id):
        return partial(markdown_chunks, chunker=chunker)
    return chunker.chunks


def _chunks(
    passage: Passage,
    split: Callable[[Passage], Iterable[Passage]],
    location: str,
    ids: UniqueIds,
    on_bad_line: OnBadLine,
) -> list[Passage]:
    """The chunks of a passage; none if the id of one is taken by another passage, which goes to `on_bad_line`."""
    chunks = list(split(passage))
    try:
        for chunk in chunks[1:]:
            ids.add(chunk.id, location)
    except InputError as error:
        on_bad_line(error)
        return []
    return chunks


def _unique(
    rows: Iterator[tuple[str, Passage]], ids: UniqueIds, on_bad_line: OnBadLine
) -> Iterator[tuple[str, Passage]]:
    for location, passage in rows:
        try:
            ids.add(passage.id, location)
        except InputError as error:
            on_bad_line(error)
            continue
        yield location, passage


def _reader(path: Path) -> Reader:
    if path.is_dir():
        return _folder_reader(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    check_plain(path)
    if is_parquet(path.name):
        return read_parquet
    base, dot, suffix = path.name.removesuffix(".gz").lower().rpartition(".")
    if not base or dot + suffix not in READERS:
        raise unknown_format(path, "by its suffix")
    return READERS[dot + suffix]


def _folder_reader(folder: Path) -> Reader:
    if (folder / STATE_FILE).is_file():
        return read_dataset
    if (folder / "dataset_dict.json").is_file():
        raise InputError(f"{folder}: holds several datasets; name the folder of one of them")
    # Tables first: the folder of a dataset often has a README.md.
    for wanted, reader in ((is_parquet, read_parquet), (is_document, read_folder)):
        if next(files_in(folder, wanted), None):
            _name_others(folder, wanted)
            return reader
    raise unknown_format(folder, "a folder without documents or tables")


def _name_others(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Warn of what is not read: that it was left out should not show in missing answers first."""
    others = list(files_in(folder, lambda name: not wanted(name) and name.lower() != "readme.md"))
    if others:
        files = "1 file of another kind is" if len(others) == 1 else f"{len(others)} files of other kinds are"
        first = others[0].relative_to(folder)
        warn_once(f"{folder}: {files} not read, first {first}; convert what should be in the corpus")
    links = list(linked_folders(folder))
    if links:
        folders = "1 linked folder is" if len(links) == 1 else f"{len(links)} linked folders are"
        first = links[0].relative_to(folder)
        warn_once(f"{folder}: {folders} not read, first {first}; copy what should be in the corpus")
