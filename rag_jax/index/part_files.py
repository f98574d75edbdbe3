"""A part of a knowledge store: an immutable, self-describing folder of raw arrays and an Arrow table.

`part.json` lists every file with its size, its checksum, and the dtype and shape of arrays. A part is written to a
temporary folder and renamed, so that it exists completely or not at all.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa

from rag_jax.data import files
from rag_jax.errors import InputError

DESCRIPTION_FILE = "part.json"
PART_FILES = re.compile(r"part\.json|table\.arrow|[a-z_]+\.bin|index\.faiss|\.index\.faiss\.\d+\.tmp")  # of parts


def is_part(folder: Path) -> bool:
    """Whether a part exists, and then completely: it is renamed into place, and its description is deleted first."""
    return (folder / DESCRIPTION_FILE).is_file()


def write_part(folder: Path, arrays: Mapping[str, np.ndarray] | None = None, table: pa.Table | None = None) -> None:
    """Write a new part."""
    with files.disk_errors(folder), files.staged_folder(folder) as side:
        described = {name: _write_array(side / f"{name}.bin", array) for name, array in (arrays or {}).items()}
        if table is not None:
            described["table"] = _write_table(side / "table.arrow", table)
        (side / DESCRIPTION_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Memory-map the arrays of a part. Raises `InputError` for one that is missing, truncated or misdescribed."""
    found = {}
    for name, facts in read_description(folder).items():
        if "shape" in facts:
            path = _check_size(folder / facts["file"], facts)
            kind, shape = np.dtype(facts["dtype"]), tuple(facts["shape"])
            if kind.itemsize * int(np.prod(shape)) != facts["bytes"]:
                raise InputError(f"{folder / DESCRIPTION_FILE}: {name} does not have the bytes of its shape; {REMEDY}")
            found[name] = np.memmap(path, kind, "r", shape=shape) if facts["bytes"] else np.zeros(shape, kind)
    return found


def read_table(folder: Path) -> pa.Table:
    """Memory-map the Arrow table of a part. Raises as `read_arrays`."""
    facts = read_description(folder).get("table")
    if facts is None:
        raise InputError(f"{folder / DESCRIPTION_FILE}: describes no table; {REMEDY}")
    path = _check_size(folder / facts["file"], facts)
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException):
        raise InputError(f"{path}: cannot be read as Arrow; {REMEDY}") from None


def read_description(folder: Path) -> dict[str, dict[str, Any]]:
    """A part's description of its files."""
    path = folder / DESCRIPTION_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {REMEDY}") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; {REMEDY}") from None


def verify(folder: Path) -> None:
    """Compare the files of a part with their checksums. Raises `InputError` for the first that differs."""
    for facts in read_description(folder).values():
        path = _check_size(folder / facts["file"], facts)
        if files.checksum(path) != facts["sha256"]:
            raise InputError(f"{path}: does not have the checksum that was written with it; {REMEDY}")


def delete_part(folder: Path) -> None:
    """Delete the files of a part, complete or not, and its folder unless it holds other files."""
    for name in (DESCRIPTION_FILE, *sorted(os.listdir(folder))):
        if PART_FILES.fullmatch(name) and os.path.isfile(folder / name) and not os.path.islink(folder / name):
            (folder / name).unlink()
    with suppress(OSError):  # not empty
        folder.rmdir()


REMEDY = "copy it again, or rebuild it in another folder"


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


def _check_size(path: Path, facts: Mapping[str, Any]) -> Path:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {REMEDY}") from None
    if size != facts["bytes"]:
        raise InputError(f"{path}: has {size} bytes, not the {facts['bytes']} that were written; {REMEDY}")
    return path


assert np.dtype("bfloat16") == ml_dtypes.bfloat16  # registered by name: stored vectors may be of that type
