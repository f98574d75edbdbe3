"""What searches decode: RAG-Token's mixture of passages, and each passage as a language model of its own."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core import likelihood
from rag_jax.core.decode.search import GenerationLimits, LanguageModel, NextTokens, Prefilled
from rag_jax.core.decode.tree_cache import EncodedInputs, PrefilledTree, decode_step, prefill, repeat_per_doc
from rag_jax.types import Tokens


def mixture(
    inputs: EncodedInputs, doc_log_prior: Float[Array, "B K"], prefix: Tokens, limits: GenerationLimits
) -> LanguageModel:
    """RAG-Token as a language model over questions; the evidence for a token is its log-probability per passage."""
    batch, k = doc_log_prior.shape

    def next_tokens(log_probs: Float[Array, "R W V"]) -> NextTokens:
        log_probs = log_probs.reshape(batch, k, *log_probs.shape[1:])
        return NextTokens(likelihood.marginal(doc_log_prior, log_probs), log_probs)

    def start_search(width: int) -> Prefilled:
        prefilled = prefill(inputs, repeat_per_doc(prefix, k), limits, width, _slots(width, limits))
        return _start(prefix, prefilled, next_tokens, limits)

    def extend(tokens: Int[Array, "B W"], origin: Int[Array, "B W"], state: Any) -> tuple[NextTokens, Any]:
        log_probs, state = decode_step(inputs, state, jnp.repeat(tokens, k, axis=0), jnp.repeat(origin, k, axis=0))
        return next_tokens(log_probs), state

    return LanguageModel(start_search, extend)


def per_passage(inputs: EncodedInputs, prefix: Tokens, limits: GenerationLimits) -> LanguageModel:
    """Each row as a question of its own: what RAG-Sequence searches, or a generator without retrieval."""

    def next_tokens(log_probs: Float[Array, "R W V"]) -> NextTokens:
        return NextTokens(log_probs, log_probs[:, None])

    def start_search(width: int) -> Prefilled:
        prefilled = prefill(inputs, prefix, limits, width, _slots(width, limits))
        return _start(prefix, prefilled, next_tokens, limits)

    def extend(tokens: Int[Array, "R W"], origin: Int[Array, "R W"], state: Any) -> tuple[NextTokens, Any]:
        log_probs, state = decode_step(inputs, state, tokens, origin)
        return next_tokens(log_probs), state

    return LanguageModel(start_search, extend)


def _start(prefix: Tokens, prefilled: PrefilledTree, next_tokens: Callable, limits: GenerationLimits) -> Prefilled:
    """What a search begins with. Raises `ValueError` where what is given may leave no token to be found."""
    rows, free = prefix.ids.shape[0], limits.max_length - prefix.ids.shape[1]
    if free < 1:
        raise ValueError(f"{prefix.ids.shape[1]} given tokens leave no room in answers of {limits.max_length}")
    position = jnp.arange(limits.max_length)[None, :]
    ids = jnp.pad(prefix.ids, ((0, 0), (0, free)))
    ids = jnp.where(position < prefix.lengths[:, None], ids, limits.eos)
    evidence = jnp.pad(prefilled.prefix_log_probs, ((0, 0), (0, free))).reshape(rows, -1, limits.max_length)
    return Prefilled(Tokens(ids, prefix.lengths), evidence, next_tokens(prefilled.log_probs[:, None]), prefilled.tree)


def _slots(width: int, limits: GenerationLimits) -> int:
    """A step for every token but the last, which nothing follows; one is traced, though it may never run."""
    return width * max(1, limits.max_length - 1)
