"""DPR's tsv of passages, with vectors in DPR's shards, in `.npy` files or in a FAISS file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rag_jax.corpus import read_passages
from rag_jax.errors import InputError
from rag_jax.index.importers.dpr_shards import SHARD, shard_vectors
from rag_jax.index.importers.faiss_file import faiss_vectors
from rag_jax.index.importers.vectors import ImportedIndex, concatenate, summarize_error, validate_index


def read_dpr(path: Path, tsv: Path, files: Sequence[Path], width: int | None) -> ImportedIndex:
    shards = [file for file in files if SHARD.fullmatch(file.name)]
    arrays = [file for file in files if file.suffix == ".npy"]
    indexes = [file for file in files if file.suffix in (".faiss", ".index")]
    if not (shards or arrays or indexes):
        refuse_pickles(files)
        remedy = "put DPR's vector shards, .npy files or a FAISS file beside it"
        raise InputError(f"{tsv}: holds passages, but there are no vectors; {remedy}")
    if len(indexes) > 1 and not (shards or arrays):
        raise InputError(f"{path}: holds {indexes[0].name} and {indexes[1].name}; leave the index of the passages")
    passages = list(read_passages(tsv))
    if shards:
        return validate_index(path, passages, shard_vectors(path, passages, shards), width)
    if arrays:
        blocks = [(str(file), _read_npy(file)) for file in arrays]
        rows = sum(len(block) for _, block in blocks)
        return validate_index(arrays[0] if len(arrays) == 1 else path, passages, concatenate(blocks, rows), width)
    return validate_index(indexes[0], passages, faiss_vectors(indexes[0], width), width)


def refuse_pickles(files: Sequence[Path]) -> None:
    """Raise `InputError` for DPR's lists of ids, which map the rows of its FAISS file: they are pickles."""
    for file in files:
        if file.suffix == ".dpr" or (file.suffix == ".pkl" and not SHARD.fullmatch(file.name)):
            remedy = "use psgs_w100.tsv with DPR's vector shards, or with .npy files in its order"
            raise InputError(f"{file}: belongs to an index with pickled metadata, which is not read; {remedy}")


def _read_npy(file: Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{file}: cannot be read ({summarize_error(error)}); save it with numpy.save, as floats"
        ) from None
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        raise InputError(f"{file}: not an array of two dimensions; save one with a row for each passage")
    return array
