"""Any corpus as a stream of passages: all of Wikipedia passes through without being held.

What is read is told apart by what is there, files by their suffix, which `.gz` may follow but for Parquet:

| what | module |
|---|---|
| `.tsv` of DPR | `tsv` |
| JSON lines of passages, or of articles as KILT has them: `.jsonl`, `.json` | `lines`, `kilt` |
| text and Markdown: `.txt`, `.md`, `.markdown`, a document each, or a folder of them | `documents` |
| `.parquet`, or a folder of them; a folder that `save_to_disk` of `datasets` wrote | `tables` |
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from rag_jax.corpus.chunking import Chunker
from rag_jax.corpus.documents import DOCUMENT_SUFFIXES, files_in, is_document, read_document, read_folder
from rag_jax.corpus.formats import unknown_format
from rag_jax.corpus.json_lines import read_json, read_rows
from rag_jax.corpus.passage import Passage
from rag_jax.corpus.tables import STATE_FILE, is_parquet, read_dataset, read_parquet
from rag_jax.corpus.tsv import FaultRecorder, check_sequence, read_tsv
from rag_jax.data.bad_lines import BadLines, OnBadLine, raise_error
from rag_jax.data.unique_ids import UniqueIds
from rag_jax.errors import InputError

__all__ = ["BadLines", "Chunker", "OnBadLine", "Passage", "raise_error", "read_corpus", "read_passages"]

Reader = Callable[[Path, OnBadLine], Iterator[tuple[str, Passage]]]  # with the place of each passage, for the messages

READERS: dict[str, Reader] = {".tsv": read_tsv, ".jsonl": read_rows, ".json": read_json}
READERS |= dict.fromkeys(DOCUMENT_SUFFIXES, read_document)


def read_corpus(
    path: str | Path, chunker: Chunker | None = None, on_bad_line: OnBadLine = raise_error
) -> Iterator[Passage]:
    """Yield the passages of a corpus in order, cut to length if `cut` is given; errors are found while reading.

    An invalid row goes to `bad`, and is skipped if that returns (see `rag_jax.data.bad_lines`): a missing, empty or
    non-string text, a duplicate id (ids of chunks included), an id out of sequence in a numbered .tsv, too few or too
    many columns, unbalanced quotes, malformed JSON, invalid UTF-8, NUL, a lone surrogate, a line that is too long. The
    message is `FILE:LINE: what; remedy` with the line where the row begins, or `FILE: row N: …` for a table.

    Raises `InputError` for a missing or unreadable path, an unknown kind of corpus, a wrong header, a damaged file, and
    a corpus without passages.
    """
    path = Path(path)
    reader, heard, ids = _reader(path), FaultRecorder(on_bad_line), UniqueIds()
    rows = _unique(reader(path, heard), ids, heard)
    empty = True
    for place, passage in check_sequence(rows, heard) if reader is read_tsv else rows:
        pieces = [passage] if chunker is None else _pieces(passage, chunker, place, ids, on_bad_line)
        empty = empty and not pieces
        yield from pieces
    if empty:
        raise InputError(f"{path}: holds no passages; give a corpus with one at least")


def read_passages(path: str | Path, words: int | None = None) -> Iterator[Passage]:
    """Yields the passages of a corpus in order, as they stand, or those of more than so many `words` cut (see `Cut`).

    Raises `InputError` at the first bad row.
    """
    return read_corpus(path, None if words is None else Chunker(words))


def _pieces(passage: Passage, cut: Chunker, place: str, ids: UniqueIds, bad: OnBadLine) -> list[Passage]:
    """What a passage is cut into; nothing if an id of its pieces is that of another passage, which goes to `bad`."""
    pieces = list(cut.chunks(passage))
    try:
        for piece in pieces[1:]:
            ids.add(piece.id, place)
    except InputError as error:
        bad(error)
        return []
    return pieces


def _unique(rows: Iterator[tuple[str, Passage]], ids: UniqueIds, bad: OnBadLine) -> Iterator[tuple[str, Passage]]:
    for place, passage in rows:
        try:
            ids.add(passage.id, place)
        except InputError as error:
            bad(error)
            continue
        yield place, passage


def _reader(path: Path) -> Reader:
    if path.is_dir():
        return _folder_reader(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
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
            return reader
    raise unknown_format(folder, "a folder without documents or tables")
