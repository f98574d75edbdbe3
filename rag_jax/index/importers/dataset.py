"""Passages in a dataset saved by `datasets`, with vectors in a column or in a FAISS file."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_jax.corpus.passage import IDS, Passage, row_id
from rag_jax.corpus.tables import END_OF_STREAM, data_files
from rag_jax.data.jsonl import UniqueIds, validate_characters, validate_id, validate_text
from rag_jax.errors import InputError
from rag_jax.index.importers.faiss_file import faiss_vectors, open_faiss, warn_of_distances
from rag_jax.index.importers.vectors import ImportedIndex, concatenate, import_package, summarize_error, validate_index

DATASETS = (  # the passages and the FAISS file beside them
    ("passages", "index.faiss"),
    ("hf_dataset", "hf_dataset_index.faiss"),  # by RagRetriever.save_pretrained
    ("my_knowledge_dataset", "my_knowledge_dataset_hnsw_index.faiss"),  # by the RAG example of transformers
    (".", "index.faiss"),
)


def read_dataset(folder: Path, index: Path, width: int | None) -> ImportedIndex:
    """Read passages and vectors; the column `embeddings` is preferred, since FAISS may have compressed its vectors."""
    tables = [_read_arrow(file) for file in data_files(folder)]
    passages = list(_dataset_passages(folder, tables))
    if not passages:
        raise InputError(f"{folder}: holds no passages; save a dataset with a row for each")
    if "embeddings" in tables[0].column_names:
        vectors, location = concatenate(_embeddings(folder, tables), len(passages)), folder
        if index.is_file():
            found = open_faiss(index)
            if found.ntotal != len(passages):
                what = f"{found.ntotal} vectors for {len(passages)} passages"
                raise InputError(f"{index}: {what}; delete it to go by the column embeddings, or make it anew")
            warn_of_distances(index, found, vectors)
    elif index.is_file():
        vectors, location = faiss_vectors(index, width), index
    else:
        remedy = f"add a column embeddings, or put {index.name} into {index.parent}"
        raise InputError(f"{folder}: holds passages, but no vectors; {remedy}")
    return validate_index(location, passages, vectors, width)


def _read_arrow(file: Path) -> Any:
    """Memory-map the table in an Arrow stream."""
    pyarrow = import_package("pyarrow")
    try:
        table = pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()
        table.validate(full=True)  # offsets that point beyond the file would crash, not raise
        with file.open("rb") as stream:
            stream.seek(-len(END_OF_STREAM), 2)
            if stream.read() != END_OF_STREAM:  # cut between two batches, which Arrow takes for the end
                raise EOFError("the end is missing")
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as Arrow ({summarize_error(error)}); save or copy it again") from None
    return table


def _dataset_passages(folder: Path, tables: Sequence[Any]) -> Iterator[Passage]:
    ids, row = UniqueIds(), 0
    for table in tables:
        if not table.schema.equals(tables[0].schema):
            raise InputError(f"{folder}: its files do not have the same columns; save the dataset again")
        types = {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)}
        if not {"title", "text"} <= set(types):
            raise InputError(f"{folder}: has the columns {', '.join(types)}; name two of them title and text")
        columns = [name for name in (*IDS, "title", "text") if name in types]
        for name in columns:
            # Arrow has more types than JSON, whose checks these values go through.
            if not re.fullmatch(r"(large_)?string|string_view|null" + "|u?int[0-9]+" * (name in IDS), types[name]):
                raise InputError(f'{folder}: the column "{name}" holds {types[name]}; cast it to strings')
        for batch in table.select(columns).to_batches(1_000):
            for values in batch.to_pylist():
                location = f"{folder}: row {row}"
                new = validate_id(row_id(values, row), "id", location)
                title = validate_characters(values["title"] or "", "title", location)
                ids.add(new, location)
                yield Passage(new, title, validate_text(values["text"], "text", location))
                row += 1


def _embeddings(folder: Path, tables: Sequence[Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the column `embeddings` as views of the mapped file, each with the location of its first row."""
    pyarrow, compute, row = import_package("pyarrow"), import_package("pyarrow.compute"), 0
    types, width = pyarrow.types, None
    for table in tables:
        column = table.column("embeddings")
        lists = types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type)
        if not lists or not types.is_floating(column.type.value_type):
            raise InputError(f'{folder}: the column "embeddings" holds {column.type}; make it lists of floats')
        for chunk in column.chunks:
            lengths = np.where(chunk.is_null(), 0, compute.list_value_length(chunk).fill_null(0))
            width = lengths[0] if width is None and len(lengths) else width
            if len(odd := np.flatnonzero((lengths != width) | (lengths == 0))):
                what = f"{lengths[odd[0]]} numbers, that of row 0 {width}"
                raise InputError(f"{folder}: row {row + odd[0]}: an embedding of {what}; give all rows as many")
            flat = chunk.flatten()
            if len(odd := np.flatnonzero(flat.is_null())):
                raise InputError(f"{folder}: row {row + odd[0] // width}: an embedding with a null; fill it in")
            if len(chunk):
                yield f"{folder}: row {row}", flat.to_numpy(zero_copy_only=False).reshape(len(chunk), -1)
            row += len(chunk)
