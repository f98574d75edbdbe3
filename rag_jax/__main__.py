"""python -m rag_jax: the `rag-jax` command."""

from rag_jax.cli import main

main()
