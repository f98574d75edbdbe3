"""The language models that searches decode: RAG-Token's mixture of passages, and each passage by itself."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core import likelihood
from rag_jax.core.decode.prefill import PrefilledTree, prefill
from rag_jax.core.decode.search import GenerationLimits, LanguageModel, NextTokens, Prefilled
from rag_jax.core.decode.tree_cache import EncodedInputs, decode_step, repeat_per_doc
from rag_jax.types import Tokens


def mixture(
    inputs: EncodedInputs, doc_log_prior: Float[Array, "B K"], prefix: Tokens, limits: GenerationLimits
) -> LanguageModel:
    """RAG-Token as a language model over questions (n = K)."""
    batch, k = doc_log_prior.shape

    def next_tokens(log_probs: Float[Array, "R W V"]) -> NextTokens:
        log_probs = log_probs.reshape(batch, k, *log_probs.shape[1:])
        return NextTokens(likelihood.marginal(doc_log_prior, log_probs), log_probs)

    def start(width: int) -> Prefilled:
        prefilled = prefill(inputs, repeat_per_doc(prefix, k), limits, width, _slots(width, limits))
        return _prefilled(prefix, prefilled, next_tokens, limits)

    def step(tokens: Int[Array, "B W"], parent: Int[Array, "B W"], state: Any) -> tuple[NextTokens, Any]:
        log_probs, state = decode_step(inputs, state, jnp.repeat(tokens, k, axis=0), jnp.repeat(parent, k, axis=0))
        return next_tokens(log_probs), state

    return LanguageModel(start, step)


def per_passage(inputs: EncodedInputs, prefix: Tokens, limits: GenerationLimits) -> LanguageModel:
    """A language model over rows (n = 1): RAG-Sequence's search of each passage, or a generator without retrieval."""

    def next_tokens(log_probs: Float[Array, "R W V"]) -> NextTokens:
        return NextTokens(log_probs, log_probs[:, None])

    def start(width: int) -> Prefilled:
        prefilled = prefill(inputs, prefix, limits, width, _slots(width, limits))
        return _prefilled(prefix, prefilled, next_tokens, limits)

    def step(tokens: Int[Array, "R W"], parent: Int[Array, "R W"], state: Any) -> tuple[NextTokens, Any]:
        log_probs, state = decode_step(inputs, state, tokens, parent)
        return next_tokens(log_probs), state

    return LanguageModel(start, step)


def _prefilled(prefix: Tokens, prefilled: PrefilledTree, next_tokens: Callable, limits: GenerationLimits) -> Prefilled:
    """The start of a search. Raises `ValueError` where the prefix leaves no room for another token."""
    rows, free = prefix.ids.shape[0], limits.max_length - prefix.ids.shape[1]
    if free < 1:
        raise ValueError(f"a prefix of {prefix.ids.shape[1]} tokens leaves no room in answers of {limits.max_length}")
    position = jnp.arange(limits.max_length)[None, :]
    ids = jnp.pad(prefix.ids, ((0, 0), (0, free)))
    ids = jnp.where(position < prefix.lengths[:, None], ids, limits.eos)
    doc_log_probs = jnp.pad(prefilled.prefix_log_probs, ((0, 0), (0, free))).reshape(rows, -1, limits.max_length)
    next_token = next_tokens(prefilled.log_probs[:, None])
    return Prefilled(Tokens(ids, prefix.lengths), doc_log_probs, next_token, prefilled.tree)


def _slots(width: int, limits: GenerationLimits) -> int:
    """Slots for every token but an answer's last; for one step at least, since one is traced even if it never runs."""
    return width * max(1, limits.max_length - 1)
