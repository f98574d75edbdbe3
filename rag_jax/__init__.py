"""Retrieval-augmented generation (Lewis et al. 2020) as a pure-JAX functional library.

The core's modules are pure functions over arrays; `RAG` is the facade over files, tokenizers and checkpoints.
"""

import importlib
from typing import TYPE_CHECKING

from rag_jax.core import (
    beam,
    decoding,
    likelihood,
    losses,
    optimizers,
    reading,
    retrieval,
    rules,
    sampling,
    sequence,
    training,
)

if TYPE_CHECKING:
    from rag_jax.knowledge.corpus.passage import Passage
    from rag_jax.rag import RAG
    from rag_jax.run.answers import Answer

__all__ = [
    "RAG",
    "Answer",
    "Passage",
    "beam",
    "decoding",
    "likelihood",
    "losses",
    "optimizers",
    "reading",
    "retrieval",
    "rules",
    "sampling",
    "sequence",
    "training",
]


_FACADE = {"RAG": "rag_jax.rag", "Answer": "rag_jax.run.answers", "Passage": "rag_jax.knowledge.corpus.passage"}


def __getattr__(name: str):
    """The facade's names, imported on first use: the core alone needs no tokenizer, checkpoint or terminal library."""
    if name in _FACADE:
        return getattr(importlib.import_module(_FACADE[name]), name)
    raise AttributeError(f"module 'rag_jax' has no attribute {name!r}")
