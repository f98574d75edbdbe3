"""The error for an unknown corpus format."""

from pathlib import Path

from rag_jax.errors import InputError

FORMATS = ".tsv, .jsonl, .json, .txt, .md, .markdown (each also as .gz), .parquet, or a folder of documents or tables"


def unknown_format(path: Path, what: str) -> InputError:
    """The error; `what` is the reason."""
    return InputError(f"{path}: unknown kind of corpus, {what}; name a {FORMATS}")
