"""Score given answers: each distinct prefix passes the decoder once.

Answers to one question share prefixes: beams most of their tokens, labels some. The distinct prefixes are the nodes of
a trie, which the decoder reads in blocks, parents before children, each node attending to its ancestors. Work grows
with the distinct prefixes, not with the answers; memory with the sizes of a block.

Three index spaces occur here:

    answers  `(c, t)`: token t of answer c, of C answers with T tokens
    nodes    the distinct prefixes in breadth-first order; node `node[c, t]` is the prefix `answer c [: t + 1]`
    slots    of the decoder's cache: the prefill fills the first, and node n fills slot `num_filled + n`
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rag_jax.core.decode.prefill import PrefilledTree, prefill
from rag_jax.core.decode.search import GenerationLimits
from rag_jax.core.decode.tree_cache import EncodedInputs, repeat_per_doc
from rag_jax.types import DecoderPositions, Tokens


class Blocks(NamedTuple):
    """How much is in memory at a time: `rows * answers * T` slots of the cache, `rows * nodes` logits."""

    rows: int = 8  # at most; the largest divisor of the number of rows is taken
    answers: int = 8
    nodes: int = 16


BLOCKS = Blocks()


class Trie(NamedTuple):
    """The distinct prefixes of C answers that another token follows."""

    node: Int[Array, "R C T"]  # of each prefix; -1 where no token follows it
    answer: Int[Array, "R nodes"]  # of each node: the first answer with this prefix,
    last: Int[Array, "R nodes"]  # and the position of the prefix's last token in it
    num_nodes: Int[Array, " R"]


class Progress(NamedTuple):
    """The state of the loop over blocks of nodes."""

    block: Int[Array, ""]  # the next one
    cache: PyTree[Array]
    log_probs: Float[Array, "R C T"]  # of the tokens that follow the nodes read so far


def score_answers(
    inputs: EncodedInputs,
    prefix: Tokens,
    answers: Tokens,
    present: Bool[Array, "B C K"],
    limits: GenerationLimits,
    blocks: Blocks = BLOCKS,
) -> Float[Array, "B C K T"]:
    """`log p(y_t | x, z, y_<t)` of answers `[B, C, T]` under each passage where `present`; zero elsewhere."""
    k = present.shape[2]
    by_row = jnp.swapaxes(present, 1, 2).reshape(-1, present.shape[1])
    log_probs = score_rows(inputs, repeat_per_doc(prefix, k), repeat_per_doc(answers, k), by_row, limits, blocks)
    return jnp.swapaxes(log_probs.reshape(-1, k, *log_probs.shape[1:]), 1, 2)


def score_rows(
    inputs: EncodedInputs,
    prefix: Tokens,
    answers: Tokens,
    present: Bool[Array, "R C"],
    limits: GenerationLimits,
    blocks: Blocks = BLOCKS,
) -> Float[Array, "R C T"]:
    """`log p(y_t | x, z, y_<t)` of every token of the answers `[R, C, T]` that are `present`; zero elsewhere.

    The answers of a row begin with its `prefix`. Absent answers cost nothing.
    """
    rows = prefix.ids.shape[0]
    size = max(size for size in range(1, min(rows, blocks.rows) + 1) if rows % size == 0)
    by_row = inputs.encoded, prefix, answers, present
    row_blocks = jax.tree.map(lambda each: each.reshape(rows // size, size, *each.shape[1:]), by_row)

    def score(row_block):
        encoded, prefix, answers, present = row_block
        return _score_row_block(inputs._replace(encoded=encoded), prefix, answers, present, limits, blocks)

    return jax.lax.map(score, row_blocks).reshape(answers.ids.shape)


def build_trie(answers: Tokens, prefix_lengths: Int[Array, " R"]) -> Trie:
    """The trie of the tokens behind the common prefix, breadth first. An answer's last token is no node."""
    ids, lengths = answers
    rows, count, length = ids.shape
    t = jnp.arange(length)[None, None, :]
    inner = (t >= prefix_lengths[:, None, None]) & (t + 1 < lengths[:, :, None])
    equal = (ids[:, :, None] == ids[:, None, :]).astype(jnp.int32)
    same_prefix = (jnp.cumprod(equal, axis=3) == 1) & inner[:, None]
    first = jnp.argmax(same_prefix, axis=2)  # the first answer with this prefix represents it
    distinct = inner & (first == jnp.arange(count)[None, :, None])
    by_depth = jnp.swapaxes(distinct, 1, 2).reshape(rows, -1)
    node = jnp.cumsum(by_depth.astype(jnp.int32), axis=1) - 1
    node = jnp.take_along_axis(node, (t * count + first).reshape(rows, -1), axis=1).reshape(ids.shape)
    order, num_nodes = jnp.argsort(~by_depth, axis=1, stable=True), jnp.sum(by_depth, axis=1)
    # The first node fills the padding: its position is one that the decoder surely has.
    order = jnp.where(jnp.arange(order.shape[1])[None, :] < num_nodes[:, None], order, order[:, :1])
    return Trie(jnp.where(inner, node, -1), order % count, order // count, num_nodes)


def _score_row_block(
    inputs: EncodedInputs,
    prefix: Tokens,
    answers: Tokens,
    present: Bool[Array, "R C"],
    limits: GenerationLimits,
    blocks: Blocks,
) -> Float[Array, "R C T"]:
    """All answers of some rows, a block of answers at a time; the present ones are moved to the front."""
    count, length = answers.ids.shape[1:]
    size = min(blocks.answers, count)
    prefilled = prefill(inputs, prefix, limits, 1, -(-size * length // blocks.nodes) * blocks.nodes)
    order = jnp.argsort(~present, axis=1, stable=True)
    order = jnp.pad(order, ((0, 0), (0, -count % size)), mode="edge")
    num_present = jnp.sum(present, axis=1)

    def score(block: Int[Array, ""], log_probs: Float[Array, "R C2 T"]) -> Float[Array, "R C2 T"]:
        chosen = jax.lax.dynamic_slice_in_dim(order, block * size, size, axis=1)
        is_present = (block * size + jnp.arange(size))[None, :] < num_present[:, None]
        ids = jnp.take_along_axis(answers.ids, chosen[:, :, None], axis=1)
        lengths = jnp.where(is_present, jnp.take_along_axis(answers.lengths, chosen, axis=1), 0)
        scored = _score_trie(inputs, prefilled, prefix.lengths, Tokens(ids, lengths), blocks.nodes)
        return jax.lax.dynamic_update_slice_in_dim(log_probs, scored, block * size, axis=1)

    zeros = jnp.zeros((order.shape[0], order.shape[1], length), jnp.float32)
    log_probs = jax.lax.fori_loop(0, -(-jnp.max(num_present) // size), score, zeros)
    inverse = jnp.argsort(order[:, :count], axis=1)
    return jnp.take_along_axis(log_probs, inverse[:, :, None], axis=1)


def _score_trie(
    inputs: EncodedInputs, prefilled: PrefilledTree, prefix_lengths: Int[Array, " R"], answers: Tokens, size: int
) -> Float[Array, "R C T"]:
    """All answers of a block, whose trie fits into the prefilled tree's slots, `size` nodes at a time."""
    trie = build_trie(answers, prefix_lengths)
    parent = jnp.pad(trie.node[:, :, :-1], ((0, 0), (0, 0), (1, 0)), constant_values=-1)
    padded = jax.tree.map(lambda each: jnp.pad(each, ((0, 0), (0, -each.shape[1] % size))), (trie.answer, trie.last))

    def unread(progress: Progress) -> Bool[Array, ""]:
        return progress.block * size < jnp.max(trie.num_nodes)

    def read(progress: Progress) -> Progress:
        first = progress.block * size
        answer, last = jax.tree.map(lambda each: jax.lax.dynamic_slice_in_dim(each, first, size, axis=1), padded)
        tokens, positions = _node_inputs(prefilled, prefix_lengths, answers, trie, answer, last)
        states, cache = inputs.generator.decode(inputs.params, tokens, inputs.encoded, progress.cache, positions)
        logits = inputs.generator.logits(inputs.params, states)
        in_block = (parent >= first) & (parent < first + size)
        scored = _following_log_probs(logits, answers.ids, jnp.clip(parent - first, 0, size - 1))
        return Progress(progress.block + 1, cache, jnp.where(in_block, scored, progress.log_probs))

    log_probs = _prefilled_log_probs(prefilled, prefix_lengths, answers.ids)
    start = Progress(jnp.int32(0), prefilled.tree.cache, log_probs)
    return jnp.where(answers.mask, jax.lax.while_loop(unread, read, start).log_probs, 0.0)


def _node_inputs(
    prefilled: PrefilledTree,
    prefix_lengths: Int[Array, " R"],
    answers: Tokens,
    trie: Trie,
    answer: Int[Array, "R nodes"],
    last: Int[Array, "R nodes"],
) -> tuple[Int[Array, "R nodes"], DecoderPositions]:
    """The tokens of some nodes, and the slots that each attends to: the prefilled ones, its ancestors', its own."""
    tree = prefilled.tree
    ids = jnp.take_along_axis(answers.ids, answer[:, :, None], axis=1)
    tokens = jnp.take_along_axis(ids, last[:, :, None], axis=2)[:, :, 0]
    path = jnp.take_along_axis(trie.node, answer[:, :, None], axis=1)
    on_path = (path >= 0) & (jnp.arange(path.shape[2])[None, None, :] <= last[:, :, None])
    node_of_slot = (jnp.arange(tree.visible.shape[2]) - tree.num_filled)[None, None, None, :]
    attended = jnp.any((path[:, :, :, None] == node_of_slot) & on_path[:, :, :, None], axis=2)
    return tokens, DecoderPositions((tree.position - prefix_lengths)[:, None] + last, tree.visible | attended)


def _following_log_probs(
    logits: Float[Array, "R nodes V"], ids: Int[Array, "R C T"], parent: Int[Array, "R C T"]
) -> Float[Array, "R C T"]:
    """The log-probability of each answer token as the successor of node `parent`, an index into the block's nodes."""
    rows, _, vocabulary = logits.shape
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits.reshape(rows, -1), (parent * vocabulary + ids).reshape(rows, -1), axis=1)
    total = jnp.take_along_axis(jax.nn.logsumexp(logits, axis=2), parent.reshape(rows, -1), axis=1)
    return (chosen - total).reshape(ids.shape)


def _prefilled_log_probs(
    prefilled: PrefilledTree, prefix_lengths: Int[Array, " R"], ids: Int[Array, "R C T"]
) -> Float[Array, "R C T"]:
    """The log-probabilities known from the prefill: of the prefix and of the first token behind it; zero elsewhere."""
    rows, _, length = ids.shape
    first = jnp.take_along_axis(prefilled.log_probs, ids.reshape(rows, -1), axis=1).reshape(ids.shape)
    padding = length - prefilled.prefix_log_probs.shape[1]
    in_prefix = jnp.pad(prefilled.prefix_log_probs, ((0, 0), (0, padding)))[:, None, :]
    offset = jnp.arange(length)[None, None, :] - prefix_lengths[:, None, None]
    return jnp.where(offset < 0, in_prefix, jnp.where(offset == 0, first, 0.0))
