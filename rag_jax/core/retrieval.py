"""Exact maximum inner product search, and the scores that training differentiates (Lewis et al. 2020, section 2.2).

The search is part of the compiled program: encoding the question, searching, gathering the passages and reading them is
one jitted function without a round trip to the host. An `Index` searches knowledge on one device (`LOCAL`) or sharded
over several (`rag_jax.core.sharding`).
"""

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core import vectors as vector_store
from rag_jax.core.group_maxima import GROUP_SIZE, MAX_QUERIES, group_maxima, supports
from rag_jax.types import Int8Vectors, Knowledge, Retrieved, SearchResults, Tokens, Vectors

GROUP = 64  # scores that share one maximum in the first stage
MAX_DIRECT = 2**16  # maxima that are searched without further stages
BLOCK = 262_144  # vectors searched at once on an accelerator without the kernel
CPU_BLOCK = 8_192  # on a CPU, so that the scores of a block stay in the cache
CPU_MAX_SCORES = 2**24  # up to which a CPU takes one block all the same: slicing a block copies it


def scores(queries: Float[Array, "B D"], vectors: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """`q(x) . d(z)` of the retrieved passages, in float32, differentiable with respect to the question only.

    The passage tower is frozen, so `d(z)` is a constant. Recomputing the scores from the stored vectors makes the loss
    independent of the index: an approximate one returns quantised distances without a gradient.
    """
    vectors = jax.lax.stop_gradient(vectors)
    return jnp.einsum(
        "BD,BKD->BK", queries, vectors, preferred_element_type=jnp.float32, precision=vector_store.FULL_PRECISION
    )


def exact_top_k(
    queries: Float[Array, "B D"],
    vectors: Vectors,
    k: int,
    *,
    alive: Bool[Array, " N"] | None = None,
    excluded: Int[Array, "B E"] | None = None,
    block: int | None = None,
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k vectors of the largest inner product with each query: `(scores, ids)`, best first, exact.

    The search has two stages: the maxima of groups of scores, then the scores of the k groups with the largest maxima.
    This is exact, since each of the k best scores is in one of those groups, and it sorts `k * GROUP` scores, not N.
    Memory stays below `[B, N]`: the index is scanned in blocks (default: a size for the platform), or a kernel writes
    only the maxima (`rag_jax.core.group_maxima`: 16- and 8-bit vectors on an NVIDIA device). Among equal scores the
    smallest id comes first. Where the index has fewer than k vectors that are `alive` and not `excluded` (ids, padded
    with -1), the rest have score -inf and id -1.
    """
    num_candidates = k if excluded is None else k + excluded.shape[1]
    scan = partial(_scan_blocks, k=num_candidates)
    if block is None:
        searches = {"cpu": partial(scan, block=_cpu_block(queries, vectors)), "default": partial(scan, block=BLOCK)}
        if supports(queries, vectors):
            searches["cuda"] = partial(_search_groups, k=num_candidates)
        best = jax.lax.platform_dependent(queries, vectors, alive, **searches)
    else:
        best = scan(queries, vectors, alive, block=block)
    return best if excluded is None else _exclude(excluded, best, k)


def _search_groups(
    queries: Float[Array, "B D"], vectors: Vectors, alive: Bool[Array, " N"] | None, *, k: int, interpret: bool = False
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best by the kernel's group maxima; the scores of the k best groups are computed again."""
    if queries.shape[0] > MAX_QUERIES:
        num_batches = -(-queries.shape[0] // MAX_QUERIES)
        size = -(-queries.shape[0] // num_batches)
        padded = jnp.pad(queries, ((0, num_batches * size - queries.shape[0]), (0, 0))).reshape(num_batches, size, -1)
        search = partial(_search_groups, vectors=vectors, alive=alive, k=k, interpret=interpret)
        best = jax.lax.map(search, padded)
        return jax.tree.map(lambda each: each.reshape(num_batches * size, -1)[: queries.shape[0]], best)
    maxima = group_maxima(queries, vectors, alive, interpret=interpret)
    maxima = jnp.pad(maxima, ((0, 0), (0, max(0, k - maxima.shape[1]))), constant_values=-jnp.inf)
    groups = jnp.sort(_staged_top_k(maxima, k)[1], axis=1)  # in index order, so that ties go to the smallest id
    rows = (groups[:, :, None] * GROUP_SIZE + jnp.arange(GROUP_SIZE)[None, None, :]).reshape(queries.shape[0], -1)
    valid = rows < vector_store.count(vectors)
    rows = jnp.where(valid, rows, 0)
    group_scores = scores(queries.astype(jnp.float32), vector_store.take(vectors, rows))
    group_scores = jnp.where(valid if alive is None else valid & alive[rows], group_scores, -jnp.inf)
    top, indices = jax.lax.top_k(group_scores, k)
    return top, jnp.where(jnp.isneginf(top), -1, jnp.take_along_axis(rows, indices, axis=1))


def _scan_blocks(
    queries: Float[Array, "B D"], vectors: Vectors, alive: Bool[Array, " N"] | None, *, k: int, block: int
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best, keeping the best so far while the index is scanned in blocks."""
    count, batch = vector_store.count(vectors), queries.shape[0]
    size = min(block, count)
    none = jnp.full((batch, k), -jnp.inf, jnp.float32), jnp.full((batch, k), -1, jnp.int32)
    if count == 0:
        return none
    if size == count:
        products = vector_store.products(queries, vectors)
        products = products if alive is None else jnp.where(alive[None, :], products, -jnp.inf)
        top, ids = _merge(none, _staged_top_k(products, min(k, count)), k)
        return top, jnp.where(jnp.isneginf(top), -1, ids)

    def search_block(best, number):
        # The last block is shifted back to be full; the vectors it shares with the previous one are masked.
        start = jnp.minimum(number * size, count - size)
        ids = start + jnp.arange(size, dtype=jnp.int32)
        mask = ids >= number * size
        if alive is not None:
            mask &= jax.lax.dynamic_slice_in_dim(alive, start, size)
        products = vector_store.products(queries, vector_store.block(vectors, start, size))
        top, indices = _staged_top_k(jnp.where(mask[None, :], products, -jnp.inf), min(k, size))
        return _merge(best, (top, start + indices), k), None

    (top, ids), _ = jax.lax.scan(search_block, none, jnp.arange(-(-count // size), dtype=jnp.int32))
    return top, jnp.where(jnp.isneginf(top), -1, ids)


def nearest(
    queries: Float[Array, "B D"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
) -> SearchResults:
    """The k passages of the largest inner product, best first; row -1 where the index has fewer."""
    queries = jax.lax.stop_gradient(queries)
    top, rows = exact_top_k(queries, knowledge.passage_vectors, k, alive=knowledge.alive, excluded=excluded)
    return SearchResults(rows, top)


def gather(queries: Float[Array, "B D"], knowledge: Knowledge, rows: Int[Array, "B K"]) -> tuple[Retrieved, Tokens]:
    """The passages of given rows: their scores, and their tokens `[B, K, P]`.

    Row -1 is a missing passage: it is not `valid`, and its tokens and score are those of row 0.
    """
    safe_rows = jnp.maximum(rows, 0)
    retrieved = Retrieved(rows, scores(queries, vector_store.take(knowledge.passage_vectors, safe_rows)), rows >= 0)
    return retrieved, jax.tree.map(lambda array: array[safe_rows], knowledge.passage_tokens)


@runtime_checkable
class Nearest(Protocol):
    """The rows and scores of the k best passages, without those of `excluded` (rows, padded with -1)."""

    def __call__(
        self, queries: Float[Array, "B D"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
    ) -> SearchResults: ...


@runtime_checkable
class Gather(Protocol):
    """The scores and tokens of given rows."""

    def __call__(
        self, queries: Float[Array, "B D"], knowledge: Knowledge, rows: Int[Array, "B K"]
    ) -> tuple[Retrieved, Tokens]: ...


class Index(NamedTuple):
    """How a program searches its knowledge and reads from it."""

    nearest: Nearest
    gather: Gather


LOCAL = Index(nearest, gather)


def retrieve(
    queries: Float[Array, "B D"],
    knowledge: Knowledge,
    num_docs: int,
    search_results: SearchResults | None = None,
    index: Index = LOCAL,
) -> tuple[Retrieved, Tokens]:
    """Search for K passages per question and gather them; with `search_results` gather those instead."""
    if search_results is None:
        search_results = SearchResults(index.nearest(queries, knowledge, num_docs).rows, scores=None)
    return gather_results(queries, knowledge, search_results, index)


def gather_results(
    queries: Float[Array, "B D"], knowledge: Knowledge, search_results: SearchResults, index: Index = LOCAL
) -> tuple[Retrieved, Tokens]:
    """The passages of `search_results`, with its scores where it has any.

    A lexical search has: BM25's scores are then the logits of `p(z|x)` (the paper's ablation, section 4.5), and the
    question tower gets no gradient. Without scores they are `q(x) . d(z)`. A missing passage has no tokens.
    """
    retrieved, passages = index.gather(queries, knowledge, search_results.rows)
    if search_results.scores is not None:
        retrieved = retrieved._replace(scores=search_results.scores)
    return retrieved, without_missing(retrieved, passages)


def without_missing(retrieved: Retrieved, passages: Tokens) -> Tokens:
    """The tokens `[B, K, P]`, none of missing passages: several passages of one prompt are joined by their lengths."""
    return passages._replace(lengths=jnp.where(retrieved.valid, passages.lengths, 0))


def _cpu_block(queries: Float[Array, "B D"], vectors: Vectors) -> int:
    """One block where the scores are few; never for 16- or 8-bit vectors, all of which would be converted at once."""
    count = vector_store.count(vectors)
    is_float32 = not isinstance(vectors, Int8Vectors) and vectors.dtype == jnp.float32
    return max(count, 1) if is_float32 and queries.shape[0] * count <= CPU_MAX_SCORES else CPU_BLOCK


def _exclude(excluded: Int[Array, "B E"], best: tuple[Array, Array], k: int) -> tuple[Array, Array]:
    """The k best of `k + E` without the E excluded ones."""
    top, ids = best
    is_excluded = jnp.any(ids[:, :, None] == excluded[:, None, :], axis=2)
    top, indices = jax.lax.top_k(jnp.where(is_excluded, -jnp.inf, top), k)
    return top, jnp.where(jnp.isneginf(top), -1, jnp.take_along_axis(ids, indices, axis=1))


def _staged_top_k(scores: Float[Array, "B N"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best of each row, in two stages or more: until at most `MAX_DIRECT` maxima are left."""
    batch, count = scores.shape
    groups = -(-count // GROUP)
    if groups <= k:
        top, indices = jax.lax.top_k(scores, k)
        return top, indices
    grouped = jnp.pad(scores, ((0, 0), (0, groups * GROUP - count)), constant_values=-jnp.inf)
    grouped = grouped.reshape(batch, groups, GROUP)
    _, best_groups = (_staged_top_k if groups > MAX_DIRECT else jax.lax.top_k)(grouped.max(axis=2), k)
    best_groups = jnp.sort(best_groups, axis=1)  # in index order, so that ties go to the smallest id
    candidates = jnp.take_along_axis(grouped, best_groups[:, :, None], axis=1).reshape(batch, k * GROUP)
    top, indices = jax.lax.top_k(candidates, k)
    group = jnp.take_along_axis(best_groups, indices // GROUP, axis=1)
    return top, group * GROUP + indices % GROUP


def _merge(best, others, k: int):
    """The k best of two lists of scores and ids. Ties go to the first list, whose ids are smaller."""
    top = jnp.concatenate([best[0], others[0]], axis=1)
    ids = jnp.concatenate([best[1], others[1]], axis=1)
    top, indices = jax.lax.top_k(top, k)
    return top, jnp.take_along_axis(ids, indices, axis=1)
