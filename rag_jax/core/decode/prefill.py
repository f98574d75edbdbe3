"""Prefill: read the tokens that all answers of a row begin with, before any are searched or scored.

A long prefix passes the decoder, and the projection onto the vocabulary, in chunks of bounded memory.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from rag_jax.core import likelihood
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs, TreeCache
from rag_jax.types import Tokens


class PrefilledTree(NamedTuple):
    """A tree cache that holds the common beginning of the answers."""

    log_probs: Float[Array, "R V"]  # of the next token
    prefix_log_probs: Float[Array, "R G"]  # of each prefix token; undefined behind the last
    tree: TreeCache


def prefill(inputs: EncodedInputs, prefix: Tokens, limits: GenerationLimits, width: int, slots: int) -> PrefilledTree:
    """Read the decoder's start and the `prefix` `[R, G]` of each row's answers, which may be empty.

    The cache has `slots` more slots, shared by the `width` hypotheses of a row.
    """
    rows, start_length = prefix.ids.shape[0], len(limits.decoder_start)
    start = jnp.broadcast_to(jnp.asarray(limits.decoder_start, jnp.int32)[None, :], (rows, start_length))
    tokens = jnp.concatenate([start, prefix.ids], axis=1)
    lengths = start_length + prefix.lengths
    chunk = limits.prefill_chunk or tokens.shape[1]

    states, cache = _decode(inputs, tokens, slots, chunk)
    prefix_log_probs = _target_log_probs(inputs, states[:, start_length - 1 : -1], prefix.ids, chunk)
    last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)
    logits = inputs.generator.logits(inputs.params, last)[:, 0]
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)
    visible = jnp.arange(tokens.shape[1] + slots)[None, None, :] < lengths[:, None, None]
    tree = TreeCache(cache, jnp.int32(tokens.shape[1]), jnp.repeat(visible, width, axis=1), lengths)
    return PrefilledTree(log_probs, prefix_log_probs, tree)


def _decode(
    inputs: EncodedInputs, tokens: Int[Array, "R t"], slots: int, chunk: int
) -> tuple[Float[Array, "R t width"], PyTree[Array]]:
    """The decoder's states of `tokens`, and the cache with `slots` free slots behind them."""

    def step(cache: PyTree[Array], tokens: Int[Array, "R chunk"]):
        states, cache = inputs.generator.decode(inputs.params, tokens, inputs.encoded, cache)
        return cache, states

    empty = inputs.generator.empty_cache(tokens.shape[0], tokens.shape[1] + slots)
    cache, states = _scan_chunks(step, empty, tokens, chunk)
    return states, cache


def _target_log_probs(
    inputs: EncodedInputs, states: Float[Array, "R G width"], targets: Int[Array, "R G"], chunk: int
) -> Float[Array, "R G"]:
    """The log-probability of each target given the state before it; logits exist for one chunk at a time."""

    def step(carry: None, states_and_targets: tuple[Float[Array, "R chunk width"], Int[Array, "R chunk"]]):
        states, targets = states_and_targets
        logits = inputs.generator.logits(inputs.params, states)
        return carry, likelihood.target_log_probs(logits[:, None], targets)[:, 0]

    return _scan_chunks(step, None, (states, targets), chunk)[1]


def _scan_chunks(step: Callable, carry, arrays: PyTree[Array], chunk: int):
    """`carry, outputs = step(carry, piece)` over chunks along axis 1, the remainder first; outputs joined."""
    length = jax.tree.leaves(arrays)[0].shape[1]
    head = length % chunk or min(chunk, length)
    carry, first = step(carry, jax.tree.map(lambda each: each[:, :head], arrays))
    if head == length:
        return carry, first
    rest = jax.tree.map(
        lambda each: jnp.moveaxis(each[:, head:].reshape(each.shape[0], -1, chunk, *each.shape[2:]), 1, 0), arrays
    )
    carry, pieces = jax.lax.scan(step, carry, rest)
    joined = jnp.moveaxis(pieces, 0, 1)
    return carry, jnp.concatenate([first, joined.reshape(joined.shape[0], -1, *joined.shape[3:])], axis=1)
