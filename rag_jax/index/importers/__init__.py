"""Indexes that users already have: passages with their vectors, in the files of Hugging Face, FAISS and DPR.

A folder of the first kind holds a dataset saved by `save_to_disk`, with the columns `title`, `text`, and perhaps `id`
and `embeddings`: in `passages/` or in the folder itself, with `index.faiss` where the vectors are not in the dataset,
or under the names that transformers gives them. A folder of DPR's holds `psgs_w100.tsv` (or one other `.tsv`, each also
as `.gz`) and the vectors: best DPR's own shards, else `.npy` files in the order of the tsv, else a FAISS file.

Nothing in any of them is run: pickled vectors are read by `shards`, which knows numbers, strings and arrays.
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
    """Reads the index in a folder; the vectors are float32, and as exact as the files have them.

    `width` is D of the question tower, where it is known: vectors of another width are refused, and FAISS files with
    one column more, DPR's trick to search inner products by distance, lose that column.

    Raises `InputError` for a folder that holds no such index or half of one, a damaged file, a pickle of anything but
    vectors, passages that are empty or share an id, vectors that are not one for each passage, and NaN or infinity.
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
    """Sorts `_2` before `_10`."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"([0-9]+)", path.name))]
