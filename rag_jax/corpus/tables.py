"""Tables with the column `text`, and optionally `id` and `title`: datasets of `datasets`, and Parquet files.

`id` may be called `_id` or `docid`; it defaults to the row number, counted from 0 as in `datasets`. Rows are read in
batches from the memory-mapped file.
"""

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rag_jax.corpus.documents import files_in
from rag_jax.corpus.passage import IDS, Passage, no_id, validate_passage
from rag_jax.data import files, json_object
from rag_jax.data.bad_lines import OnBadLine
from rag_jax.data.json_object import JsonObject
from rag_jax.errors import InputError

STATE_FILE = "state.json"  # in every folder written by save_to_disk
BATCH_ROWS = 1_000  # rows
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream
# Strings are read as bytes, to locate invalid UTF-8: Arrow reports it for a whole batch only.
BINARY_TYPES = {"string": "binary", "large_string": "large_binary", "string_view": "binary_view"}


def read_dataset(folder: Path, on_bad_line: OnBadLine, own_ids: bool = False) -> Iterator[tuple[str, Passage]]:
    """Yield the passages of a folder written by `save_to_disk`, each with its row in the dataset."""
    row = 0
    for file in data_files(folder):
        for batch in _arrow_batches(file):
            yield from _passages(batch, str(folder), row, None if own_ids else row, on_bad_line)
            row += batch.num_rows


def read_parquet(path: Path, on_bad_line: OnBadLine, own_ids: bool = False) -> Iterator[tuple[str, Passage]]:
    """Yield the passages of a Parquet file, or of all in a folder, each with its file and row."""
    before = 0  # rows of previous files
    for file in files_in(path, is_parquet) if path.is_dir() else [path]:
        row = 0
        for batch in _parquet_batches(file):
            yield from _passages(batch, str(file), row, None if own_ids else before + row, on_bad_line)
            row += batch.num_rows
        before += row


def is_parquet(name: str) -> bool:
    """Whether a file of this name is Parquet; there is no `.gz`, as Parquet is compressed internally."""
    return name.lower().endswith(".parquet")


def _passages(
    batch: Any, where: str, row: int, new: int | None, on_bad_line: OnBadLine
) -> Iterator[tuple[str, Passage]]:
    """Yield the passages of a batch that begins at `row`; `new` is the default id of its first one, if there is one."""
    for number, (given, title, text) in enumerate(zip(*_columns(batch, where, new), strict=True), start=row):
        location = f"{where}: row {number}"
        try:
            values = (
                _decoded(given, "id", location),
                _decoded(title, "title", location),
                _decoded(text, "text", location),
            )
            passage = validate_passage(*values, location)
        except InputError as error:
            on_bad_line(error)
            continue
        yield location, passage


def _columns(batch: Any, where: str, new: int | None) -> Iterator[Iterable[Any]]:
    """Yield the ids, the titles and the texts of a batch."""
    absent: dict[str, Iterable[Any]] = {"title": [""] * batch.num_rows}
    if new is not None:
        absent["id"] = range(new, new + batch.num_rows)
    for name, names in (("id", IDS), ("title", ("title",)), ("text", ("text",))):
        there = (at for each in names if (at := batch.schema.get_field_index(each)) >= 0)  # none if two have the name
        if (at := next(there, None)) is not None:
            yield _values(batch.column(at), name, where)
        elif name in absent:
            yield absent[name]
        elif name == "id":
            raise no_id(where)
        else:
            raise InputError(f"{where}: has the columns {', '.join(batch.schema.names)}; name one of them text")


def _values(column: Any, name: str, where: str) -> list[Any]:
    pyarrow, kind = _pyarrow(), str(column.type)
    if not re.fullmatch("|".join([*BINARY_TYPES, "null"]) + "|u?int[0-9]+" * (name == "id"), kind):
        raise InputError(f'{where}: the column "{name}" holds {kind}; cast it to strings')
    if kind in BINARY_TYPES:
        column = column.view(getattr(pyarrow, BINARY_TYPES[kind])())
    try:
        column.validate(full=True)  # offsets that point beyond the file would crash, not raise
    except pyarrow.ArrowException as error:
        raise _damaged(where, error) from None
    return column.to_pylist()


def _decoded(value: Any, name: str, location: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        what = f'byte {error.start + 1} of "{name}" is not UTF-8'
        raise InputError(f"{location}: {what}; save the table with strings that are") from error


def data_files(folder: Path) -> list[Path]:
    """The Arrow files of a dataset, in order. Raises `InputError` for a damaged `state.json` or an indices mapping."""
    path = folder / STATE_FILE
    remedy = "save the dataset anew with save_to_disk"
    state = json_object.read(path, remedy, remedy)
    listed = state.read("_data_files", tuple[dict[str, Any], ...])
    names = [JsonObject(str(path), file, remedy).read("filename", str) for file in listed]
    found = [files.inside(folder, name, path) for name in names]
    if state.get("_indices_data_files"):
        raise InputError(f"{path}: the rows are chosen by an indices mapping; call flatten_indices() and save it anew")
    return found


def _arrow_batches(file: Path) -> Iterator[Any]:
    pyarrow = _pyarrow()
    try:
        with file.open("rb") as stream:
            stream.seek(-len(END_OF_STREAM), 2)
            if stream.read() != END_OF_STREAM:  # truncated between two batches, which Arrow does not notice
                raise EOFError("the end is missing")
        with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as batches:
            yield from batches
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        raise _damaged(file, error) from None


def _parquet_batches(file: Path) -> Iterator[Any]:
    pyarrow, parquet = _pyarrow(), importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(file, memory_map=True) as table:
            names = table.schema_arrow.names
            columns = [name for name in (*IDS, "title", "text") if name in names]
            # Without the column there would be no rows to report; read all columns then.
            yield from table.iter_batches(BATCH_ROWS, columns=columns if "text" in columns else names)
    except (OSError, pyarrow.ArrowException) as error:
        raise _damaged(file, error) from None


def _damaged(where: Path | str, error: Exception) -> InputError:
    what = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{where}: cannot be read as a table ({what}); save or copy it again")


def _pyarrow() -> Any:
    return importlib.import_module("pyarrow")  # lazily: the import is slow, and most corpora are text
