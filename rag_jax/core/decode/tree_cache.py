"""The decoder as a step function over a tree of hypotheses, whose cache entries are never moved.

The prefill fills the first slots of every row; each step of a search appends one token per hypothesis. Which slots a
hypothesis attends to is a row of booleans: when the search drops one hypothesis for another, that row is copied, not
the keys and values. All hypotheses of a row are queries of one attention, over its encoded input as over its slots, so
that both are shared.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rag_jax.core.decode.search import take
from rag_jax.types import DecoderPositions, Generator, Params


class EncodedInputs(NamedTuple):
    """A generator with its encoded inputs."""

    generator: Generator
    params: Params
    encoded: PyTree[Array]  # rows R: one for each passage of each question


class TreeCache(NamedTuple):
    """The hypotheses of each row in one cache."""

    cache: PyTree[Array]
    num_filled: Int[Array, ""]  # slots
    visible: Bool[Array, "R W slots"]  # those that each hypothesis attends to
    position: Int[Array, " R"]  # of the next token


def decode_step(
    inputs: EncodedInputs, tree: TreeCache, tokens: Int[Array, "R W"], parent: Int[Array, "R W"]
) -> tuple[Float[Array, "R W V"], TreeCache]:
    """Append `tokens[w]` to hypothesis `parent[w]` of the step before; log-probabilities of the tokens that follow."""
    width, slots = tree.visible.shape[1:]
    own = jnp.arange(slots)[None, :] == tree.num_filled + jnp.arange(width)[:, None]
    visible = take(tree.visible, parent) | own[None, :, :]
    positions = DecoderPositions(jnp.repeat(tree.position[:, None], width, axis=1), visible)
    states, cache = inputs.generator.decode(inputs.params, tokens, inputs.encoded, tree.cache, positions)
    logits = inputs.generator.logits(inputs.params, states)
    tree = TreeCache(cache, tree.num_filled + width, visible, tree.position + 1)
    return jax.nn.log_softmax(logits.astype(jnp.float32), axis=2), tree


def repeat_per_doc(per_question: PyTree[Array], num_docs: int) -> PyTree[Array]:
    """`[B, ...]` as `[B * K, ...]`: each question's array once for each of its passages."""
    return jax.tree.map(lambda each: jnp.repeat(each, num_docs, axis=0), per_question)
