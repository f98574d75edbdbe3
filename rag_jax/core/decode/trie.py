"""Score given answers: each distinct beginning passes the decoder once.

Answers to one question begin alike: beams share most of their tokens, labels some. Their beginnings are the nodes of a
trie, which the decoder reads in blocks, parents before children, each node seeing its own ancestors. The work grows
with the distinct beginnings and not with the answers, the memory with the sizes of a block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs, PrefilledTree, prefill
from rag_jax.types import DecoderPositions, Tokens


class Blocks(NamedTuple):
    """How much is in memory at a time: `rows * answers * T` slots of the cache, `rows * nodes` logits."""

    rows: int = 8  # the largest divisor of all rows that is not above it
    answers: int = 8
    nodes: int = 16


BLOCKS = Blocks()


class Trie(NamedTuple):
    """The distinct beginnings of C answers, as nodes: `(c, t)` is the beginning of answer c up to its token t."""

    rank: Int[Array, "R C T"]  # each beginning's place among the distinct ones, parents first; -1 where none follows
    answer: Int[Array, "R nodes"]  # the distinct ones: c,
    last: Int[Array, "R nodes"]  # and t
    size: Int[Array, " R"]


def score_trie(
    inputs: EncodedInputs,
    prefix: Tokens,
    answers: Tokens,
    present: Bool[Array, "R C"],
    limits: GenerationLimits,
    blocks: Blocks = BLOCKS,
) -> Float[Array, "R C T"]:
    """`log p(y_t | x, z, y_<t)` of every token of the answers `[R, C, T]` that are `present`; zero elsewhere.

    The answers of a row begin with the tokens that it is `prefix`. Those present are packed: the others cost nothing.
    """
    rows = prefix.ids.shape[0]
    size = max(size for size in range(1, min(rows, blocks.rows) + 1) if rows % size == 0)
    every = inputs.encoded, prefix, answers, present
    parts = jax.tree.map(lambda each: each.reshape(rows // size, size, *each.shape[1:]), every)

    def visit(part):
        encoded, prefix, answers, present = part
        return _score_rows(inputs._replace(encoded=encoded), prefix, answers, present, limits, blocks)

    return jax.lax.map(visit, parts).reshape(answers.ids.shape)


def build_trie(answers: Tokens, prefix: Int[Array, " R"]) -> Trie:
    """The trie of the tokens that follow the given ones, in the order of their depth; an answer's last is no node."""
    ids, lengths = answers
    rows, count, length = ids.shape
    t = jnp.arange(length)[None, None, :]
    inner = (t >= prefix[:, None, None]) & (t + 1 < lengths[:, :, None])
    same = (ids[:, :, None] == ids[:, None, :]).astype(jnp.int32)
    alike = (jnp.cumprod(same, axis=3) == 1) & inner[:, None]
    leader = jnp.argmax(alike, axis=2)  # the first answer with the same beginning stands for all
    distinct = inner & (leader == jnp.arange(count)[None, :, None])
    by_depth = jnp.swapaxes(distinct, 1, 2).reshape(rows, -1)
    rank = jnp.cumsum(by_depth.astype(jnp.int32), axis=1) - 1
    rank = jnp.take_along_axis(rank, (t * count + leader).reshape(rows, -1), axis=1).reshape(ids.shape)
    order, size = jnp.argsort(~by_depth, axis=1, stable=True), jnp.sum(by_depth, axis=1)
    # Behind the last node the first one again: no token that the decoder may have no position for.
    order = jnp.where(jnp.arange(order.shape[1])[None, :] < size[:, None], order, order[:, :1])
    return Trie(jnp.where(inner, rank, -1), order % count, order // count, size)


def _score_rows(
    inputs: EncodedInputs,
    prefix: Tokens,
    answers: Tokens,
    present: Bool[Array, "R C"],
    limits: GenerationLimits,
    blocks: Blocks,
) -> Float[Array, "R C T"]:
    """All answers of some rows, a block of answers at a time."""
    count, length = answers.ids.shape[1:]
    size = min(blocks.answers, count)
    prefilled = prefill(inputs, prefix, limits, 1, -(-size * length // blocks.nodes) * blocks.nodes)
    packed = jnp.argsort(~present, axis=1, stable=True)
    packed = jnp.pad(packed, ((0, 0), (0, -count % size)), mode="edge")
    wanted = jnp.sum(present, axis=1)

    def visit(number: Int[Array, ""], found: Float[Array, "R C2 T"]) -> Float[Array, "R C2 T"]:
        chosen = jax.lax.dynamic_slice_in_dim(packed, number * size, size, axis=1)
        real = (number * size + jnp.arange(size))[None, :] < wanted[:, None]
        ids = jnp.take_along_axis(answers.ids, chosen[:, :, None], axis=1)
        lengths = jnp.where(real, jnp.take_along_axis(answers.lengths, chosen, axis=1), 0)
        block = _score_block(inputs, prefilled, prefix.lengths, Tokens(ids, lengths), blocks.nodes)
        return jax.lax.dynamic_update_slice_in_dim(found, block, number * size, axis=1)

    nothing = jnp.zeros((packed.shape[0], packed.shape[1], length), jnp.float32)
    found = jax.lax.fori_loop(0, -(-jnp.max(wanted) // size), visit, nothing)
    unpack = jnp.argsort(packed[:, :count], axis=1)
    return jnp.take_along_axis(found, unpack[:, :, None], axis=1)


def _score_block(
    inputs: EncodedInputs, prefilled: PrefilledTree, prefix: Int[Array, " R"], answers: Tokens, size: int
) -> Float[Array, "R C T"]:
    """All answers of a block, whose trie fits into the opened tree's slots, `size` nodes at a time."""
    trie = build_trie(answers, prefix)
    parent = jnp.pad(trie.rank[:, :, :-1], ((0, 0), (0, 0), (1, 0)), constant_values=-1)
    order = jax.tree.map(lambda each: jnp.pad(each, ((0, 0), (0, -each.shape[1] % size))), (trie.answer, trie.last))

    def visit(carry):
        number, cache, found = carry
        nodes = jax.tree.map(lambda each: jax.lax.dynamic_slice_in_dim(each, number * size, size, axis=1), order)
        tokens, place = _nodes(prefilled, prefix, answers, trie, *nodes)
        states, cache = inputs.generator.decode(inputs.params, tokens, inputs.encoded, cache, place)
        logits = inputs.generator.logits(inputs.params, states)
        inside = (parent >= number * size) & (parent < (number + 1) * size)
        scored = _children(logits, answers.ids, jnp.clip(parent - number * size, 0, size - 1))
        return number + 1, cache, jnp.where(inside, scored, found)

    def unread(carry):
        return carry[0] * size < jnp.max(trie.size)

    first = jnp.int32(0), prefilled.tree.cache, _from_the_start(prefilled, prefix, answers.ids)
    return jnp.where(answers.mask, jax.lax.while_loop(unread, visit, first)[2], 0.0)


def _nodes(
    prefilled: PrefilledTree,
    prefix: Int[Array, " R"],
    answers: Tokens,
    trie: Trie,
    answer: Int[Array, "R nodes"],
    last: Int[Array, "R nodes"],
) -> tuple[Int[Array, "R nodes"], DecoderPositions]:
    """The tokens of some nodes and their places: behind the start, after their own ancestors."""
    tree = prefilled.tree
    beginnings = jnp.take_along_axis(answers.ids, answer[:, :, None], axis=1)
    tokens = jnp.take_along_axis(beginnings, last[:, :, None], axis=2)[:, :, 0]
    ranks = jnp.take_along_axis(trie.rank, answer[:, :, None], axis=1)
    ancestor = (ranks >= 0) & (jnp.arange(ranks.shape[2])[None, None, :] <= last[:, :, None])
    slots = (jnp.arange(tree.visible.shape[2]) - tree.num_filled)[None, None, None, :]
    own = jnp.any((ranks[:, :, :, None] == slots) & ancestor[:, :, :, None], axis=2)
    return tokens, DecoderPositions((tree.position - prefix)[:, None] + last, tree.visible | own)


def _children(
    logits: Float[Array, "R nodes V"], ids: Int[Array, "R C T"], parent: Int[Array, "R C T"]
) -> Float[Array, "R C T"]:
    """The log-probability of every token of every answer, supposing that it follows the node number `parent`."""
    rows, _, vocabulary = logits.shape
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits.reshape(rows, -1), (parent * vocabulary + ids).reshape(rows, -1), axis=1)
    total = jnp.take_along_axis(jax.nn.logsumexp(logits, axis=2), parent.reshape(rows, -1), axis=1)
    return (chosen - total).reshape(ids.shape)


def _from_the_start(
    prefilled: PrefilledTree, prefix: Int[Array, " R"], ids: Int[Array, "R C T"]
) -> Float[Array, "R C T"]:
    """What reading the start told: of the tokens given, and of the first one after them; zero for the rest."""
    rows, _, length = ids.shape
    first = jnp.take_along_axis(prefilled.log_probs, ids.reshape(rows, -1), axis=1).reshape(ids.shape)
    told = jnp.pad(prefilled.prefix_log_probs, ((0, 0), (0, length - prefilled.prefix_log_probs.shape[1])))[:, None, :]
    after = jnp.arange(length)[None, None, :] - prefix[:, None, None]
    return jnp.where(after < 0, told, jnp.where(after == 0, first, 0.0))
