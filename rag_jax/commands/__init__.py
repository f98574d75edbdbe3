"""The sub-commands of `rag-jax`, a module each."""
