"""What searches decode: RAG-Token's mixture of passages, and each passage as a language model of its own."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.core import likelihood
from rag_jax.core.decode.search import LanguageModel, Limits, Next, Start
from rag_jax.core.decode.tree_cache import Opened, Reader, grow, open_tree, spread
from rag_jax.types import Tokens


def mixture(reader: Reader, doc_log_prior: Float[Array, "B K"], given: Tokens, limits: Limits) -> LanguageModel:
    """RAG-Token as a language model over questions; the evidence for a token is its log-probability per passage."""
    batch, k = doc_log_prior.shape

    def following(log_probs: Float[Array, "R W V"]) -> Next:
        log_probs = log_probs.reshape(batch, k, *log_probs.shape[1:])
        return Next(likelihood.marginal(doc_log_prior, log_probs), log_probs)

    def begin(width: int) -> Start:
        opened = open_tree(reader, spread(given, k), limits, width, _slots(width, limits))
        return _start(given, opened, following, limits)

    def step(tokens: Int[Array, "B W"], origin: Int[Array, "B W"], state: Any) -> tuple[Next, Any]:
        log_probs, state = grow(reader, state, jnp.repeat(tokens, k, axis=0), jnp.repeat(origin, k, axis=0))
        return following(log_probs), state

    return LanguageModel(begin, step)


def passages(reader: Reader, given: Tokens, limits: Limits) -> LanguageModel:
    """Each row as a question of its own: what RAG-Sequence searches, or a generator without retrieval."""

    def following(log_probs: Float[Array, "R W V"]) -> Next:
        return Next(log_probs, log_probs[:, None])

    def begin(width: int) -> Start:
        opened = open_tree(reader, given, limits, width, _slots(width, limits))
        return _start(given, opened, following, limits)

    def step(tokens: Int[Array, "R W"], origin: Int[Array, "R W"], state: Any) -> tuple[Next, Any]:
        log_probs, state = grow(reader, state, tokens, origin)
        return following(log_probs), state

    return LanguageModel(begin, step)


def _start(given: Tokens, opened: Opened, following: Callable, limits: Limits) -> Start:
    """What a search begins with. Raises `ValueError` where what is given may leave no token to be found."""
    rows, free = given.ids.shape[0], limits.max_length - given.ids.shape[1]
    if free < 1:
        raise ValueError(f"{given.ids.shape[1]} given tokens leave no room in answers of {limits.max_length}")
    position = jnp.arange(limits.max_length)[None, :]
    ids = jnp.pad(given.ids, ((0, 0), (0, free)))
    ids = jnp.where(position < given.lengths[:, None], ids, limits.eos)
    evidence = jnp.pad(opened.evidence, ((0, 0), (0, free))).reshape(rows, -1, limits.max_length)
    return Start(Tokens(ids, given.lengths), evidence, following(opened.log_probs[:, None]), opened.tree)


def _slots(width: int, limits: Limits) -> int:
    """A step for every token but the last, which nothing follows; one is traced, though it may never run."""
    return width * max(1, limits.max_length - 1)
