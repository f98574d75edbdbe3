"""Exact maximum inner product search, and the scores that training differentiates (Lewis et al. 2020, section 2.2).

The search is part of the compiled program: encode the question, search, gather the passages and read them is one jitted
function without a round trip to the host. `Index` is how a program reaches its knowledge: all of it on one device
(`LOCAL`), or spread over several (`rag_jax.core.sharding`).
"""

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core import vectors as stored
from rag_jax.core.group_maxima import MOST, ROWS, group_maxima, suits
from rag_jax.types import Int8Vectors, Knowledge, Retrieved, SearchResults, Tokens, Vectors

GROUP = 64  # scores that share one maximum in the first stage of the search
FEW = 2**16  # maxima that are sought through directly
BLOCK = 262_144  # vectors looked through at once on an accelerator without a kernel
CPU_BLOCK = 8_192  # where the scores of a block should stay in a cache
CPU_WHOLE = 2**24  # scores that a CPU takes in one block all the same: cutting a block out copies it


def scores(queries: Float[Array, "B D"], vectors: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """`q(x) . d(z)` of the retrieved passages, in float32, differentiable with respect to the question only.

    The passage tower is frozen, so `d(z)` is a constant. Recomputing the scores from the stored vectors makes the loss
    the same function for every index: an approximate one returns distances that are quantised and carry no gradient.
    """
    vectors = jax.lax.stop_gradient(vectors)
    return jnp.einsum(
        "BD,BKD->BK", queries, vectors, preferred_element_type=jnp.float32, precision=stored.FULL_PRECISION
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

    The k best are found in two stages: the maxima of groups of scores, then the scores of the k groups with the largest
    maxima. This is exact, since each of the k best scores lies in one of those groups, and it sorts `k * GROUP` scores,
    not N. Memory is never `[B, N]`: the index is walked in blocks (without a `block`, one that suits the platform), or
    a kernel writes nothing but the maxima (`rag_jax.core.group_maxima`: narrow vectors on an NVIDIA device).
    Among equal scores the smallest id comes first. Where the index has fewer than k vectors that are `alive` and not
    `excluded` (ids, -1 for none), the rest have score -inf and id -1.
    """
    more = 0 if excluded is None else excluded.shape[1]
    walk = partial(_walk, k=k + more)
    if block is None:
        walks = {"cpu": partial(walk, block=_cpu_block(queries, vectors)), "default": partial(walk, block=BLOCK)}
        if suits(queries, vectors):
            walks["cuda"] = partial(_by_maxima, k=k + more)
        found = jax.lax.platform_dependent(queries, vectors, alive, **walks)
    else:
        found = walk(queries, vectors, alive, block=block)
    return found if excluded is None else _without(excluded, found, k)


def _by_maxima(
    queries: Float[Array, "B D"], vectors: Vectors, alive: Bool[Array, " N"] | None, *, k: int, interpret: bool = False
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best by a kernel's maxima of groups of vectors; the scores of the k best groups are computed once more."""
    if queries.shape[0] > MOST:
        parts = -(-queries.shape[0] // MOST)
        size = -(-queries.shape[0] // parts)
        padded = jnp.pad(queries, ((0, parts * size - queries.shape[0]), (0, 0))).reshape(parts, size, -1)
        search = partial(_by_maxima, vectors=vectors, alive=alive, k=k, interpret=interpret)
        found = jax.lax.map(search, padded)
        return jax.tree.map(lambda each: each.reshape(parts * size, -1)[: queries.shape[0]], found)
    maxima = group_maxima(queries, vectors, alive, interpret=interpret)
    maxima = jnp.pad(maxima, ((0, 0), (0, max(0, k - maxima.shape[1]))), constant_values=-jnp.inf)
    groups = jnp.sort(_staged_top_k(maxima, k)[1], axis=1)  # in index order, so that ties go to the smallest id
    rows = (groups[:, :, None] * ROWS + jnp.arange(ROWS)[None, None, :]).reshape(queries.shape[0], -1)
    there = rows < stored.count(vectors)
    rows = jnp.where(there, rows, 0)
    found = scores(queries.astype(jnp.float32), stored.take(vectors, rows))
    found = jnp.where(there if alive is None else there & alive[rows], found, -jnp.inf)
    top, where = jax.lax.top_k(found, k)
    return top, jnp.where(jnp.isneginf(top), -1, jnp.take_along_axis(rows, where, axis=1))


def _walk(
    queries: Float[Array, "B D"], vectors: Vectors, alive: Bool[Array, " N"] | None, *, k: int, block: int
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    count, batch = stored.count(vectors), queries.shape[0]
    size = min(block, count)
    none = jnp.full((batch, k), -jnp.inf, jnp.float32), jnp.full((batch, k), -1, jnp.int32)
    if count == 0:
        return none
    if size == count:
        found = stored.products(queries, vectors)
        found = found if alive is None else jnp.where(alive[None, :], found, -jnp.inf)
        top, ids = _merge(none, _staged_top_k(found, min(k, count)), k)
        return top, jnp.where(jnp.isneginf(top), -1, ids)

    def visit(best, number):
        # The last block starts early enough to be full; what it shares with the one before it counts only once.
        start = jnp.minimum(number * size, count - size)
        ids = start + jnp.arange(size, dtype=jnp.int32)
        fresh = ids >= number * size
        if alive is not None:
            fresh &= jax.lax.dynamic_slice_in_dim(alive, start, size)
        found = stored.products(queries, stored.block(vectors, start, size))
        top, where = _staged_top_k(jnp.where(fresh[None, :], found, -jnp.inf), min(k, size))
        return _merge(best, (top, start + where), k), None

    (top, ids), _ = jax.lax.scan(visit, none, jnp.arange(-(-count // size), dtype=jnp.int32))
    return top, jnp.where(jnp.isneginf(top), -1, ids)


def nearest(
    queries: Float[Array, "B D"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
) -> SearchResults:
    """The k passages of the largest inner product, best first; row -1 where the index has fewer."""
    queries = jax.lax.stop_gradient(queries)
    top, rows = exact_top_k(queries, knowledge.passage_vectors, k, alive=knowledge.alive, excluded=excluded)
    return SearchResults(rows, top)


def gather(queries: Float[Array, "B D"], knowledge: Knowledge, rows: Int[Array, "B K"]) -> tuple[Retrieved, Tokens]:
    """Take passages out of the index, whoever chose them: what was found, and its tokens `[B, K, P]`.

    -1 marks a missing one: it holds the index's first passage and is not `valid`.
    """
    some = jnp.maximum(rows, 0)
    found = Retrieved(rows, scores(queries, stored.take(knowledge.passage_vectors, some)), rows >= 0)
    return found, jax.tree.map(lambda array: array[some], knowledge.passage_tokens)


@runtime_checkable
class Nearest(Protocol):
    """The rows and scores of the k best passages; rows of `excluded` (-1: none) are not among them."""

    def __call__(
        self, queries: Float[Array, "B D"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
    ) -> SearchResults: ...


@runtime_checkable
class Gather(Protocol):
    """The scores and the tokens of chosen rows."""

    def __call__(
        self, queries: Float[Array, "B D"], knowledge: Knowledge, rows: Int[Array, "B K"]
    ) -> tuple[Retrieved, Tokens]: ...


class Index(NamedTuple):
    """How a program reaches its knowledge."""

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
    question tower gets no gradient. Without scores they are `q(x) . d(z)`.
    """
    retrieved, passages = index.gather(queries, knowledge, search_results.rows)
    if search_results.scores is not None:
        retrieved = retrieved._replace(scores=search_results.scores)
    return retrieved, passages


def _cpu_block(queries: Float[Array, "B D"], vectors: Vectors) -> int:
    """All at once where the scores are few; narrow vectors never, as all of them would be widened."""
    count = stored.count(vectors)
    wide = not isinstance(vectors, Int8Vectors) and vectors.dtype == jnp.float32
    return max(count, 1) if wide and queries.shape[0] * count <= CPU_WHOLE else CPU_BLOCK


def _without(excluded: Int[Array, "B E"], found: tuple[Array, Array], k: int) -> tuple[Array, Array]:
    """The k best of `k + E` that are not excluded: as many of them are at hand, whichever the E were."""
    top, ids = found
    barred = jnp.any(ids[:, :, None] == excluded[:, None, :], axis=2)
    top, where = jax.lax.top_k(jnp.where(barred, -jnp.inf, top), k)
    return top, jnp.where(jnp.isneginf(top), -1, jnp.take_along_axis(ids, where, axis=1))


def _staged_top_k(found: Float[Array, "B N"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best of each row, in two stages, or as many as it takes until the maxima are few."""
    batch, count = found.shape
    groups = -(-count // GROUP)
    if groups <= k:
        top, where = jax.lax.top_k(found, k)
        return top, where
    grouped = jnp.pad(found, ((0, 0), (0, groups * GROUP - count)), constant_values=-jnp.inf)
    grouped = grouped.reshape(batch, groups, GROUP)
    _, best_groups = (_staged_top_k if groups > FEW else jax.lax.top_k)(grouped.max(axis=2), k)
    best_groups = jnp.sort(best_groups, axis=1)  # in index order, so that ties go to the smallest id
    candidates = jnp.take_along_axis(grouped, best_groups[:, :, None], axis=1).reshape(batch, k * GROUP)
    top, where = jax.lax.top_k(candidates, k)
    group = jnp.take_along_axis(best_groups, where // GROUP, axis=1)
    return top, group * GROUP + where % GROUP


def _merge(best, more, k: int):
    """The k best of two candidate lists; the first one's entries win ties, being earlier in the index."""
    top = jnp.concatenate([best[0], more[0]], axis=1)
    ids = jnp.concatenate([best[1], more[1]], axis=1)
    top, where = jax.lax.top_k(top, k)
    return top, jnp.take_along_axis(ids, where, axis=1)
