"""The generator as a step function whose cache is a tree of answers in which nothing is ever moved.

The start of the answers fills the first slots of every row; each step of a search appends one token per hypothesis.
What a hypothesis sees is a row of booleans over the slots: when the search drops one hypothesis for another, that row
is copied, not the keys and values. All hypotheses of a row are queries to one attention, over its memory as over its
slots, so that both are shared by construction.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rag_jax.core import likelihood
from rag_jax.core.decode.search import GenerationLimits, take
from rag_jax.types import DecoderPositions, Generator, Params, Tokens


class EncodedInputs(NamedTuple):
    """A generator with what it has read."""

    generator: Generator
    params: Params
    encoded: PyTree[Array]  # rows R: one for each passage of each question


class TreeCache(NamedTuple):
    """Answers in the making."""

    cache: PyTree[Array]
    num_filled: Int[Array, ""]  # slots
    visible: Bool[Array, "R W slots"]  # those of each hypothesis
    position: Int[Array, " R"]  # of the next token


class PrefilledTree(NamedTuple):
    """The start of the answers, read."""

    log_probs: Float[Array, "R V"]  # of the token that follows
    prefix_log_probs: Float[Array, "R G"]  # log-probability of each given token; anything after the last
    tree: TreeCache


def prefill(inputs: EncodedInputs, prefix: Tokens, limits: GenerationLimits, width: int, slots: int) -> PrefilledTree:
    """Read the decoder's start and the `prefix` prefix `[R, G]` of each answer, which may be of length zero.

    Leaves room for `width` hypotheses of each row, with `slots` tokens in all.
    """
    rows, started = prefix.ids.shape[0], len(limits.decoder_start)
    start = jnp.broadcast_to(jnp.asarray(limits.decoder_start, jnp.int32)[None, :], (rows, started))
    tokens = jnp.concatenate([start, prefix.ids], axis=1)
    lengths = started + prefix.lengths
    chunk = limits.prefill_chunk or tokens.shape[1]

    def decode(cache: PyTree[Array], tokens: Int[Array, "R t"]):
        states, cache = inputs.generator.decode(inputs.params, tokens, inputs.encoded, cache)
        return cache, states

    def judge(nothing: None, followed: tuple[Float[Array, "R t width"], Int[Array, "R t"]]):
        logits = inputs.generator.logits(inputs.params, followed[0])
        return nothing, likelihood.target_log_probs(logits[:, None], followed[1])[:, 0]

    empty = inputs.generator.empty_cache(rows, tokens.shape[1] + slots)
    cache, states = _in_chunks(decode, empty, tokens, chunk)
    evidence = _in_chunks(judge, None, (states[:, started - 1 : -1], prefix.ids), chunk)[1]
    last = jnp.take_along_axis(states, (lengths - 1)[:, None, None], axis=1)
    logits = inputs.generator.logits(inputs.params, last)[:, 0]
    seen = jnp.arange(tokens.shape[1] + slots)[None, None, :] < lengths[:, None, None]
    tree = TreeCache(cache, jnp.int32(tokens.shape[1]), jnp.repeat(seen, width, axis=1), lengths)
    return PrefilledTree(jax.nn.log_softmax(logits.astype(jnp.float32), axis=1), evidence, tree)


def decode_step(
    inputs: EncodedInputs, tree: TreeCache, tokens: Int[Array, "R W"], origin: Int[Array, "R W"]
) -> tuple[Float[Array, "R W V"], TreeCache]:
    """Append `tokens[w]` to the hypothesis that was number `origin[w]`: log-probabilities of what follows each."""
    width, slots = tree.visible.shape[1:]
    own = jnp.arange(slots)[None, :] == tree.num_filled + jnp.arange(width)[:, None]
    visible = take(tree.visible, origin) | own[None, :, :]
    place = DecoderPositions(jnp.repeat(tree.position[:, None], width, axis=1), visible)
    states, cache = inputs.generator.decode(inputs.params, tokens, inputs.encoded, tree.cache, place)
    logits = inputs.generator.logits(inputs.params, states)
    grown = TreeCache(cache, tree.num_filled + width, visible, tree.position + 1)
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=2), grown


def repeat_per_doc(rows: PyTree[Array], num_docs: int) -> PyTree[Array]:
    """What is one per question, once for each of its passages."""
    return jax.tree.map(lambda each: jnp.repeat(each, num_docs, axis=0), rows)


def _in_chunks(f: Callable, carry, arrays: PyTree[Array], chunk: int):
    """`carry, results = f(carry, piece)` over pieces of `chunk` along axis 1, the remainder first; results joined."""
    length = jax.tree.leaves(arrays)[0].shape[1]
    head = length % chunk or min(chunk, length)
    carry, first = f(carry, jax.tree.map(lambda each: each[:, :head], arrays))
    if head == length:
        return carry, first
    rest = jax.tree.map(
        lambda each: jnp.moveaxis(each[:, head:].reshape(each.shape[0], -1, chunk, *each.shape[2:]), 1, 0), arrays
    )
    carry, pieces = jax.lax.scan(f, carry, rest)
    joined = jnp.moveaxis(pieces, 0, 1)
    return carry, jnp.concatenate([first, joined.reshape(joined.shape[0], -1, *joined.shape[3:])], axis=1)
