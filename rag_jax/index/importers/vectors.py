"""The common result of all importers: passages with their vectors."""

import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError

AT_ONCE = 65_536  # rows checked at once


class ImportedIndex(NamedTuple):
    """Passages with unique ids and their vectors: row i belongs to `passages[i]`."""

    passages: list[Passage]
    vectors: Float[np.ndarray, "N D"]


def concatenate(blocks: Iterable[tuple[str, np.ndarray]], rows: int) -> Float[np.ndarray, "N D"]:
    """Concatenate blocks as float32, copying each row once."""
    vectors, start = np.empty((rows, 0), np.float32), 0
    for location, block in blocks:
        if block.dtype.kind != "f" or not block.shape[1]:
            raise InputError(f"{location}: an array of {block.dtype} {block.shape}; save vectors of floats")
        if not vectors.shape[1]:
            vectors = np.empty((rows, block.shape[1]), np.float32)
        if block.shape[1] != vectors.shape[1]:
            what = f"vectors of width {block.shape[1]}, those before have {vectors.shape[1]}"
            raise InputError(f"{location}: {what}; leave the vectors of one encoder only")
        vectors[start : start + len(block)] = to_float32(block)
        start += len(block)
    return vectors


def to_float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # becomes infinity, which `validate_index` rejects
        return values.astype(np.float32, copy=False)


def validate_index(location: Path, passages: list[Passage], vectors: np.ndarray, width: int | None) -> ImportedIndex:
    """Return the index. Raises `InputError` unless every passage has a finite vector of the right width."""
    if len(vectors) != len(passages):
        what = f"{len(vectors)} vectors for {len(passages)} passages"
        raise InputError(f"{location}: {what}; give every passage one, in the order of the passages")
    if width is not None and vectors.shape[1] != width:
        what = f"vectors of width {vectors.shape[1]}, the question tower's have {width}"
        raise InputError(f"{location}: {what}; take the question tower that was trained with them")
    for start in range(0, len(vectors), AT_ONCE):
        sound = np.isfinite(vectors[start : start + AT_ONCE]).all(axis=1)
        if not sound.all():
            row = start + int(np.argmin(sound))
            what = f'the vector of row {row}, passage "{passages[row].id}", holds NaN or infinity'
            raise InputError(f"{location}: {what}; encode that passage again")
    return ImportedIndex(passages, vectors)


def import_package(name: str) -> Any:
    """Import a module lazily, so that only importers require it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"an existing index needs the package {error.name}; run: pip install rag-jax") from error


def summarize_error(error: Exception) -> str:
    """A library's error message on one line, without the location in its source."""
    text = " ".join(str(error).split())
    return re.sub("^Error in .+? at [^ ]+: (Error: )?", "", text)[:200] or type(error).__name__
