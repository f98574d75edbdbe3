"""Retrieval-augmented generation (Lewis et al. 2020) as a pure-JAX functional library.

The core's modules are pure functions over arrays; `RAG` is the facade over files, tokenizers and checkpoints.
"""

import importlib
from typing import TYPE_CHECKING

from rag_jax.core import attention, likelihood, losses, optimizers, reading, retrieval
from rag_jax.core.decode import beam, choice, decoding, logits_processors, rag_sequence, rag_token, sampling

if TYPE_CHECKING:
    from rag_jax.config.generation import GenerationConfig
    from rag_jax.corpus.passage import Passage
    from rag_jax.pipeline.answers import Answer, SearchResult
    from rag_jax.rag import RAG

__all__ = [
    "RAG",
    "Answer",
    "GenerationConfig",
    "Passage",
    "SearchResult",
    "attention",
    "beam",
    "choice",
    "decoding",
    "likelihood",
    "logits_processors",
    "losses",
    "optimizers",
    "rag_sequence",
    "rag_token",
    "reading",
    "retrieval",
    "sampling",
]


_FACADE = {
    "RAG": "rag_jax.rag",
    "Answer": "rag_jax.pipeline.answers",
    "GenerationConfig": "rag_jax.config.generation",
    "Passage": "rag_jax.corpus.passage",
    "SearchResult": "rag_jax.pipeline.answers",
}


def __getattr__(name: str):
    """The facade's names, imported on first use: the core alone needs no tokenizer, checkpoint or terminal library."""
    if name in _FACADE:
        return getattr(importlib.import_module(_FACADE[name]), name)
    raise AttributeError(f"module 'rag_jax' has no attribute {name!r}")
