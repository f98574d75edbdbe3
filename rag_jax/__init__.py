"""Retrieval-augmented generation (Lewis et al. 2020) as a pure-JAX functional library."""

from rag_jax.core import decoding, likelihood, losses, reading, retrieval, training

__all__ = ["decoding", "likelihood", "losses", "reading", "retrieval", "training"]
