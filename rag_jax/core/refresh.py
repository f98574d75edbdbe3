"""An index whose passage tower learns: its rows are encoded again inside the training step.

The vectors are part of the donated state, so that a step writes the rows that it encodes in place. Each row is encoded
again every n steps: a share of the rows in every step, or all of them in every n-th step. Row i is due at the steps

    t = i (mod n),

whatever devices hold the rows. A step encodes N / n rows, without a gradient, and searches afterwards. The staleness of
a vector is the number of steps since it was encoded: at most n - 1, and on average (n - 1) / 2.

Staleness misleads the search only. The scores that training differentiates are those of the K retrieved passages
encoded again, with a gradient to both towers. With re-ranking (Atlas, Izacard et al. 2022, section 2.4) the search
returns more candidates than K, of which the K best by fresh vectors are read.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core import retrieval
from rag_jax.core import vectors as vector_store
from rag_jax.types import DropoutKey, Int8Vectors, Knowledge, Params, Retrieved, Tokens, Tower, Vectors

BLOCK_TOKENS = 32_768  # of passages encoded at once, on each device


class RefreshedIndex(NamedTuple):
    """The vectors of an index, and how old they are."""

    vectors: Vectors  # as stored: float32, bfloat16 or int8
    encoded_at: Int[Array, " N"]  # the step before which the passage tower encoded each row


class Refresh(NamedTuple):
    """How a training step trains the passage tower and encodes the index again."""

    tower: Tower  # d(z) of retrieved passages
    encode: Tower  # d(z) of rows, on the device that holds them: the same tower, without sharding of its activations
    every: int | None = None  # n, the steps after which a row is encoded again; None: never
    at_once: bool = False  # all rows in every n-th step; False: a share of them in every step
    num_candidates: int | None = None  # passages searched for, of which the K best are read; None: K
    mesh: Mesh | None = None  # over all axes of which the rows are sharded; None: one device


class Staleness(NamedTuple):
    """Steps since the vectors were encoded."""

    staleness_oldest: Int[Array, ""]
    staleness_mean: Float[Array, ""]


def new_index(vectors: Vectors) -> RefreshedIndex:
    """The index before the first step, of vectors by the passage tower as it is then."""
    return RefreshedIndex(vectors, jnp.zeros(vector_store.count(vectors), jnp.int32))


def refresh_due(
    refresh: Refresh, params: Params, tokens: Tokens, index: RefreshedIndex, step: Int[Array, ""]
) -> RefreshedIndex:
    """Encode the rows that are due at a step.

    Args:
        params: of the passage tower.
        tokens: `[N, P]`, as the passage tower reads them. Rows of padding are encoded too, which does no harm.
    """
    if refresh.every is None:
        return index
    if not refresh.at_once:
        return _encode(refresh, params, tokens, index, step, refresh.every)

    def all_rows(index: RefreshedIndex) -> RefreshedIndex:
        return encode_all(refresh, params, tokens, index, step)

    is_due = (step > 0) & (step % refresh.every == 0)
    return jax.lax.cond(is_due, all_rows, lambda index: index, index)


def encode_all(
    refresh: Refresh, params: Params, tokens: Tokens, index: RefreshedIndex, step: Int[Array, ""]
) -> RefreshedIndex:
    """Encode every row, whatever is due."""
    return _encode(refresh, params, tokens, index, step, every=1)


def staleness(index: RefreshedIndex, step: Int[Array, ""], alive: Bool[Array, " N"] | None) -> Staleness:
    """The staleness of the oldest row and the mean, in steps. Removed rows and padding do not count."""
    ages = step - index.encoded_at
    alive = jnp.ones(ages.shape, bool) if alive is None else alive
    return Staleness(jnp.max(ages, where=alive, initial=0), jnp.mean(ages.astype(jnp.float32), where=alive))


def rank(
    refresh: Refresh,
    index: retrieval.Index,
    params: Params,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    candidates: Int[Array, "B C"],
    num_docs: int,
) -> Int[Array, "B K"]:
    """The rows of the K best candidates by fresh scores, best first; -1 for a missing one.

    Args:
        params: of the passage tower.
        candidates: rows that a search of the stored vectors returned; -1 for a missing one.

    Raises `ValueError` for fewer candidates than K, and for knowledge without the tower's tokens.
    """
    if candidates.shape[1] < num_docs:
        raise ValueError(f"{candidates.shape[1]} candidates for {num_docs} passages")
    _, tokens = index.gather(queries, _to_encode(knowledge), candidates)
    scores = jnp.where(candidates >= 0, fresh_scores(refresh.tower, params, queries, tokens), -jnp.inf)
    best, places = jax.lax.top_k(scores, num_docs)
    return jnp.where(jnp.isneginf(best), -1, jnp.take_along_axis(candidates, places, axis=1))


def retrieve(
    refresh: Refresh,
    index: retrieval.Index,
    params: Params,
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    rows: Int[Array, "B K"],
    key: DropoutKey = None,
) -> tuple[Retrieved, Tokens]:
    """The passages of `rows` with fresh scores, which are differentiable with respect to both towers.

    Args:
        params: of the passage tower.
        rows: as a search of the stored vectors, or `rank`, returned them; -1 for a missing one.

    Raises `ValueError` for knowledge without the tower's tokens.
    """
    retrieved, passages = index.gather(queries, knowledge, rows)
    _, tokens = index.gather(queries, _to_encode(knowledge), rows)
    scores = fresh_scores(refresh.tower, params, queries, tokens, key)
    return retrieved._replace(scores=scores), retrieval.without_missing(retrieved, passages)


def fresh_scores(
    tower: Tower, params: Params, queries: Float[Array, "B D"], tokens: Tokens, key: DropoutKey = None
) -> Float[Array, "B K"]:
    """`q(x) . d(z)` of passages `[B, K, P]` encoded by the passage tower, in float32, differentiable in both towers."""
    batch, num_docs, _ = tokens.ids.shape
    vectors = tower(params, _readable(jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:]), tokens)), key)
    vectors = vectors.reshape(batch, num_docs, -1)
    return jnp.einsum(
        "BD,BKD->BK", queries, vectors, preferred_element_type=jnp.float32, precision=vector_store.FULL_PRECISION
    )


def _to_encode(knowledge: Knowledge) -> Knowledge:
    """The same passages, as the passage tower reads them."""
    if knowledge.tower_tokens is None:
        raise ValueError("this knowledge holds no tokens for the passage tower")
    return knowledge._replace(passage_tokens=knowledge.tower_tokens)


def _encode(
    refresh: Refresh, params: Params, tokens: Tokens, index: RefreshedIndex, step: Int[Array, ""], every: int
) -> RefreshedIndex:
    """Encode the rows i = step (mod `every`), each device those that it holds."""
    if refresh.mesh is None:
        return _encode_shard(refresh.encode, params, tokens, index, step, jnp.int32(0), every)
    axes = refresh.mesh.axis_names

    def of_device(params: Params, tokens: Tokens, index: RefreshedIndex, step: Int[Array, ""]) -> RefreshedIndex:
        first = vector_store.count(index.vectors) * jax.lax.axis_index(axes)
        return _encode_shard(refresh.encode, params, tokens, index, step, first, every)

    whole, by_row = PartitionSpec(), PartitionSpec(axes)
    specs = whole, by_row, by_row, whole
    run = jax.shard_map(of_device, mesh=refresh.mesh, in_specs=specs, out_specs=by_row, check_vma=False)
    return run(params, tokens, index, step)


def _encode_shard(
    encode: Tower,
    params: Params,
    tokens: Tokens,
    index: RefreshedIndex,
    step: Int[Array, ""],
    first_row: Int[Array, ""],
    every: int,
) -> RefreshedIndex:
    """The same of a shard that begins with row `first_row`, in blocks of about `BLOCK_TOKENS`."""
    due = -(-vector_store.count(index.vectors) // every)
    blocks = -(-due // max(1, BLOCK_TOKENS // tokens.ids.shape[1]))
    first_due = jnp.mod(step - first_row, every)

    def encode_block(number: Int[Array, ""], index: RefreshedIndex) -> RefreshedIndex:
        return _encode_rows(encode, params, tokens, index, step, first_due + every * number, every * blocks)

    return jax.lax.fori_loop(0, blocks, encode_block, index)


def _encode_rows(
    encode: Tower,
    params: Params,
    tokens: Tokens,
    index: RefreshedIndex,
    step: Int[Array, ""],
    first: Int[Array, ""],
    stride: int,
) -> RefreshedIndex:
    """Encode the rows first, first + stride, ... and write them in place; those after the last row are dropped."""
    count = vector_store.count(index.vectors)
    rows = first + stride * jnp.arange(-(-count // stride), dtype=jnp.int32)
    read = _readable(jax.tree.map(lambda each: each[jnp.minimum(rows, count - 1)], tokens))
    fresh = _as_stored(encode(params, read), index.vectors)
    encoded_at = jnp.full(rows.shape, step, index.encoded_at.dtype)

    def write(whole: Array, some: Array) -> Array:
        return whole.at[rows].set(some, mode="drop", indices_are_sorted=True, unique_indices=True)

    return jax.tree.map(write, index, RefreshedIndex(fresh, encoded_at))


def _readable(tokens: Tokens) -> Tokens:
    """Tokens as a tower reads them: 32-bit, and of length 1 or more: a row of padding has none."""
    return Tokens(tokens.ids.astype(jnp.int32), jnp.maximum(tokens.lengths, 1))


def _as_stored(vectors: Float[Array, "rows D"], like: Vectors) -> Vectors:
    return vector_store.quantize_int8(vectors) if isinstance(like, Int8Vectors) else vectors.astype(like.dtype)
