"""The sub-commands of `rag-jax` that have a file of their own."""
