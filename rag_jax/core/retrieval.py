"""Exact maximum inner product search, and the scores that training differentiates (Lewis et al. 2020, section 2.2).

The search is part of the compiled program: encode the question, search, gather the passages and read them is one jitted
function without a round trip to the host.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.types import Knowledge, Retrieved, Tokens

GROUP = 64  # scores that share one maximum in the first stage of the search


def scores(queries: Float[Array, "B D"], vectors: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """`q(x) . d(z)` of the retrieved passages, in float32, differentiable with respect to the question only.

    The passage tower is frozen, so `d(z)` is a constant. Recomputing the scores from the stored vectors makes the loss
    the same function for every index: an approximate one returns distances that are quantised and carry no gradient.
    """
    vectors = jax.lax.stop_gradient(vectors)
    return jnp.einsum("BD,BKD->BK", queries, vectors, preferred_element_type=jnp.float32)


def exact_top_k(
    queries: Float[Array, "B D"], vectors: Float[Array, "N D"], k: int, *, block: int = 16_384
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k vectors of the largest inner product with each query: `(scores, ids)`, best first, exact.

    The index is walked in blocks, so that memory is `[B, block]` and never `[B, N]`. Of each block the k best are
    found in two stages: the maxima of groups of scores, then the scores of the k groups with the largest maxima. This
    is exact, since each of the k best scores lies in one of those groups, and it sorts `k * GROUP` scores, not `block`.
    Among equal scores the smallest id comes first. Where the index has fewer than k vectors, the rest have score -inf
    and id -1.
    """
    count, batch = vectors.shape[0], queries.shape[0]
    size = min(block, count)
    none = jnp.full((batch, k), -jnp.inf, jnp.float32), jnp.full((batch, k), -1, jnp.int32)
    if count == 0:
        return none

    def visit(best, number):
        # The last block starts early enough to be full; what it shares with the one before it counts only once.
        start = jnp.minimum(number * size, count - size)
        ids = start + jnp.arange(size, dtype=jnp.int32)
        some = jax.lax.dynamic_slice_in_dim(vectors, start, size)
        found = jnp.einsum("BD,ND->BN", queries, some, preferred_element_type=jnp.float32)
        found = jnp.where((ids >= number * size)[None, :], found, -jnp.inf)
        top, where = _two_stage_top_k(found, min(k, size))
        return _merge(best, (top, start + where), k), None

    (top, ids), _ = jax.lax.scan(visit, none, jnp.arange(-(-count // size), dtype=jnp.int32))
    return top, jnp.where(jnp.isneginf(top), -1, ids)


def nearest(queries: Float[Array, "B D"], knowledge: Knowledge, k: int) -> Int[Array, "B K"]:
    """The rows of the k passages of the largest inner product, best first; -1 where the index has fewer."""
    return exact_top_k(jax.lax.stop_gradient(queries), knowledge.vectors, k)[1]


def gather(queries: Float[Array, "B D"], knowledge: Knowledge, ids: Int[Array, "B K"]) -> tuple[Retrieved, Tokens]:
    """Take the passages `ids` out of the index, whoever chose them: what was found, and its tokens `[B, K, P]`.

    -1 marks a missing one: it holds the index's first passage and is not `valid`.
    """
    rows = jnp.maximum(ids, 0)
    found = Retrieved(ids, scores(queries, knowledge.vectors[rows]), ids >= 0)
    return found, jax.tree.map(lambda stored: stored[rows], knowledge.passages)


def _two_stage_top_k(found: Float[Array, "B N"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    batch, count = found.shape
    groups = -(-count // GROUP)
    if groups <= k:
        top, where = jax.lax.top_k(found, k)
        return top, where
    grouped = jnp.pad(found, ((0, 0), (0, groups * GROUP - count)), constant_values=-jnp.inf)
    grouped = grouped.reshape(batch, groups, GROUP)
    _, best_groups = jax.lax.top_k(grouped.max(axis=2), k)
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
