"""What to say of something that is no corpus of a known kind."""

from pathlib import Path

from rag_jax.errors import InputError

FORMATS = ".tsv, .jsonl, .json, .txt, .md, .markdown (each also as .gz), .parquet, or a folder of documents or tables"


def unknown_format(path: Path, what: str) -> InputError:
    """The error; `what` says why it is none of them."""
    return InputError(f"{path}: unknown kind of corpus, {what}; name a {FORMATS}")
