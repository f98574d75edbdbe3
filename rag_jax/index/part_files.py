"""A part of a knowledge store: an immutable, self-describing folder of raw arrays, Arrow tables and other files.

`part.json` lists every file with its size, its checksum, and the dtype and shape of arrays, and the manifest holds the
checksum of `part.json`. A part is written to a temporary folder and renamed: it exists completely, or not at all.

Reading compares descriptions with their checksums and files with their sizes. A table is compared with its checksum
when it is first read, since Arrow trusts the offsets in it; `verify` compares everything.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa

from rag_jax.data import files, strict_json
from rag_jax.data.validation import validate_dataclass
from rag_jax.errors import InputError

DESCRIPTION_FILE = "part.json"
FILE_NAME = re.compile(r"table\.arrow|[a-z_]+\.bin|index\.faiss")  # of the files that a description lists
OWN_FILES = re.compile(rf"part\.json|{FILE_NAME.pattern}|\.index\.faiss\.\d+\.tmp")
REMEDY = "copy it again, or rebuild it in another folder"


@dataclass(frozen=True)
class FileFacts:
    """What a part's description says of a file."""

    file: str  # its name
    bytes: int
    sha256: str
    dtype: str | None = None  # of an array
    shape: tuple[int, ...] | None = None  # of an array
    rows: int | None = None  # of a table


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A memory-mapped Arrow table, checked when it is first read."""

    path: Path
    facts: FileFacts
    schema: pa.Schema
    mapped: pa.Buffer  # the bytes of the file, also after it is deleted

    @property
    def num_rows(self) -> int:
        """The number of its rows, which reads nothing."""
        return self.facts.rows or 0

    @cached_property
    def table(self) -> pa.Table:
        """The table. Raises `InputError` for a file that is not what was written, and for another table."""
        _check_checksum(self.path, self.facts, hashlib.sha256(self.mapped).hexdigest())
        try:
            table = pa.ipc.open_file(self.mapped).read_all()
            table.validate(full=True)  # that it is what was written does not say who wrote it
        except (OSError, pa.ArrowException):
            raise InputError(f"{self.path}: cannot be read as Arrow; {REMEDY}") from None
        if table.schema != self.schema or table.num_rows != self.num_rows:
            raise InputError(f"{self.path}: holds another table than its description says; {REMEDY}")
        return table


def is_part(folder: Path) -> bool:
    """Whether a part exists, and then completely: it is renamed into place, and its description is deleted first."""
    return (folder / DESCRIPTION_FILE).is_file()


def write_part(
    folder: Path,
    arrays: Mapping[str, np.ndarray] | None = None,
    table: pa.Table | None = None,
    others: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a new part; `others` are functions that write a file of that name."""
    with files.disk_errors(folder), files.staged_folder(folder) as side:
        described = {name: _write_array(side / f"{name}.bin", array) for name, array in (arrays or {}).items()}
        if table is not None:
            described["table"] = _write_table(side / "table.arrow", table)
        for name, write in (others or {}).items():
            write(side / name)
            described[name] = _describe_file(side / name)
        (side / DESCRIPTION_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def read_arrays(folder: Path, checksum: str | None = None) -> dict[str, np.ndarray]:
    """Memory-map the arrays of a part.

    Args:
        checksum: of its description; None: unknown, of a part that no manifest names yet.

    Raises `InputError` for a part that is missing, truncated or misdescribed.
    """
    found = {}
    for name, facts in read_description(folder, checksum).items():
        if facts.dtype is None or facts.shape is None:
            continue
        path = _check_size(folder / facts.file, facts)
        try:
            kind = np.dtype(facts.dtype)
            if kind.hasobject or kind.itemsize * int(np.prod(facts.shape, dtype=object)) != facts.bytes:
                raise ValueError
            found[name] = np.memmap(path, kind, "r", shape=facts.shape) if facts.bytes else np.zeros(facts.shape, kind)
        except (TypeError, ValueError):
            what = f"{name} does not have the bytes of its shape"
            raise InputError(f"{folder / DESCRIPTION_FILE}: {what}; {REMEDY}") from None
    return found


def read_table(folder: Path, schema: pa.Schema, checksum: str | None = None) -> StoredTable:
    """The Arrow table of a part, not read yet. Arguments and errors as those of `read_arrays`."""
    facts = read_description(folder, checksum).get("table")
    if facts is None:
        raise InputError(f"{folder / DESCRIPTION_FILE}: describes no table; {REMEDY}")
    path = _check_size(folder / facts.file, facts)
    try:
        mapped = pa.memory_map(str(path)).read_buffer()
    except (OSError, pa.ArrowException):
        raise InputError(f"{path}: cannot be read; {REMEDY}") from None
    return StoredTable(path, facts, schema, mapped)


def read_description(folder: Path, checksum: str | None = None) -> dict[str, FileFacts]:
    """A part's description of its files. Arguments and errors as those of `read_arrays`."""
    path = folder / DESCRIPTION_FILE
    try:
        text = path.read_bytes()
        if checksum not in (None, hashlib.sha256(text).hexdigest()):
            raise InputError(f"{path}: not what the manifest names; {REMEDY}")
        found = strict_json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {REMEDY}") from None
    except InputError:
        raise
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; {REMEDY}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged; {REMEDY}")
    facts = {name: validate_dataclass(FileFacts, each, f"{path}: ", name) for name, each in found.items()}
    for each in facts.values():
        if not FILE_NAME.fullmatch(each.file):
            raise InputError(f"{path}: names {each.file!r}, which is no file of a part; {REMEDY}")
    return facts


def verify(folder: Path, checksum: str | None = None, remedy: str = REMEDY) -> int:
    """Compare every byte of a part with its checksums. Returns the number of bytes.

    Raises `InputError` for the first file that differs, with this remedy.
    """
    total = 0
    for facts in read_description(folder, checksum).values():
        path = _check_size(folder / facts.file, facts, remedy)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
        _check_checksum(path, facts, found, remedy)
        total += facts.bytes
    return total


def delete_part(folder: Path) -> None:
    """Delete the files of a part, complete or not, and its folder unless it holds other files."""
    for name in (DESCRIPTION_FILE, *sorted(os.listdir(folder))):
        if OWN_FILES.fullmatch(name) and os.path.isfile(folder / name) and not os.path.islink(folder / name):
            (folder / name).unlink()
    with suppress(OSError):  # not empty
        folder.rmdir()


def _write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    with path.open("wb") as file:
        np.ascontiguousarray(array).tofile(file)
    return _describe_file(path) | {"dtype": str(array.dtype), "shape": list(array.shape)}


def _write_table(path: Path, table: pa.Table) -> dict[str, Any]:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return _describe_file(path) | {"rows": table.num_rows}


def _describe_file(path: Path) -> dict[str, Any]:
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": files.checksum(path)}


def _check_checksum(path: Path, facts: FileFacts, found: str, remedy: str = REMEDY) -> None:
    if found != facts.sha256:
        raise InputError(f"{path}: does not have the checksum that was written with it; {remedy}")


def _check_size(path: Path, facts: FileFacts, remedy: str = REMEDY) -> Path:
    try:
        size = path.stat().st_size
    except OSError:
        raise InputError(f"{path}: missing; {remedy}") from None
    if size != facts.bytes:
        raise InputError(f"{path}: has {size} bytes, not the {facts.bytes} that were written; {remedy}")
    return path


assert np.dtype("bfloat16") == ml_dtypes.bfloat16  # registered by name: stored vectors may be of that type
