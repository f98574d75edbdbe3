"""Retrieval-augmented generation (Lewis et al. 2020) as a pure-JAX functional library.

The core's modules are pure functions over arrays; `RAG` is the facade over files, tokenizers and checkpoints.
"""

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

__all__ = [
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


def __getattr__(name: str):
    """`rag_jax.RAG`, imported on first use: the core alone needs no tokenizer, checkpoint or terminal library."""
    if name == "RAG":
        from rag_jax.rag import RAG

        return RAG
    raise AttributeError(f"module 'rag_jax' has no attribute {name!r}")
