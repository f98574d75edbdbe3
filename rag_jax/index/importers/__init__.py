"""Importers of existing indexes: passages with their vectors, in the formats of Hugging Face, FAISS and DPR.

A Hugging Face folder holds a dataset saved by `save_to_disk`, with the columns `title`, `text`, and optionally `id` and
`embeddings`, in `passages/` or in the folder itself, and `index.faiss` if the vectors are not in the dataset; or both
under the names that transformers uses. A DPR folder holds `psgs_w100.tsv` (or one other `.tsv`, each also as `.gz`) and
the vectors: DPR's shards, otherwise `.npy` files in the order of the tsv, otherwise a FAISS file.

No code in these files is executed: pickled vectors are read by `dpr_shards`, which knows numbers, strings and arrays.
"""

import re
from pathlib import Path

from rag_jax.errors import InputError
from rag_jax.index.importers.dataset import DATASETS, read_dataset
from rag_jax.index.importers.dpr import read_dpr, refuse_pickles
from rag_jax.index.importers.dpr_shards import SHARD
from rag_jax.index.importers.vectors import ImportedIndex

__all__ = ["ImportedIndex", "import_index"]


def import_index(path: Path, width: int | None = None) -> ImportedIndex:
    """Read the index in a folder; vectors become float32.

    `width` is D of the question tower, if known: vectors of another width are rejected, and the additional column of
    FAISS files by DPR, its reduction of inner product to distance, is dropped.

    Raises `InputError` for a folder without a complete index, a damaged file, a pickle of anything but vectors,
    passages that are empty or share an id, numbers of passages and vectors that differ, and NaN or infinity.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; check the path")
    for passages, index in DATASETS:
        if (path / passages / "state.json").is_file():
            return read_dataset(path / passages, path / index, width)
    files = [file for file in sorted(path.iterdir(), key=_natural) if file.is_file() and file.name[0] != "."]
    tables = [file for file in files if file.name.removesuffix(".gz").endswith(".tsv")]
    tables = [file for file in tables if file.name in ("psgs_w100.tsv", "psgs_w100.tsv.gz")][:1] or tables
    if len(tables) > 1:
        raise InputError(f"{path}: holds {tables[0].name} and {tables[1].name}; leave one .tsv, that of the passages")
    if tables:
        return read_dpr(path, tables[0], files, width)
    refuse_pickles(files)
    if (path / "dataset_dict.json").is_file():
        raise InputError(f"{path}: holds several datasets; name the folder of one of them")
    places = ", ".join(str(Path(passages, "state.json")) for passages, _ in DATASETS)
    if any(file.suffix in (".faiss", ".index", ".npy") or SHARD.fullmatch(file.name) for file in files):
        raise InputError(f"{path}: holds vectors, but no passages; put psgs_w100.tsv or passages/ beside them")
    raise InputError(f"{path}: no index there, neither {places} nor psgs_w100.tsv or another .tsv; name its folder")


def _natural(path: Path) -> list[str | int]:
    """A sort key by which `_2` precedes `_10`."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"([0-9]+)", path.name))]
