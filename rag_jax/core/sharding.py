"""An index spread over a mesh of devices: each holds a share of the rows, and searches its own.

What is exchanged are the k best of each device, and the passages that were chosen: `[B, K]` scores, rows, tokens and
vectors, however many passages the index holds.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from rag_jax.core import retrieval
from rag_jax.core import vectors as stored
from rag_jax.types import Knowledge, Retrieved, SearchResults, Tokens


def sharded(mesh: Mesh, axis: str | tuple[str, ...], batch: tuple[str, ...] = ()) -> retrieval.Index:
    """`retrieval.LOCAL` for knowledge whose rows are spread evenly over an axis of the mesh, or several.

    Every device searches its rows for all questions. The passages that are read are spread over the axes of `batch`,
    where these divide the questions; otherwise they are whole on every device. Ties go to the smallest row, as on one
    device.
    """
    everywhere, spread = PartitionSpec(), PartitionSpec(axis)
    shares = int(np.prod([mesh.shape[name] for name in batch]))
    by_question = NamedSharding(mesh, PartitionSpec(batch))

    def nearest(
        queries: Float[Array, "B D"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
    ) -> SearchResults:
        def search(queries, vectors, alive, excluded):
            share = stored.count(vectors)
            mine = share * jax.lax.axis_index(axis)
            within = None if excluded is None else jnp.where(excluded >= mine, excluded - mine, -1)
            top, rows = retrieval.exact_top_k(queries, vectors, k, alive=alive, excluded=within)
            best = jax.lax.all_gather((top, jnp.where(rows < 0, -1, rows + mine)), axis, axis=1, tiled=True)
            top, where = jax.lax.top_k(best[0], k)
            return SearchResults(jnp.take_along_axis(best[1], where, axis=1), top)

        held = (spread, spread, everywhere)
        run = jax.shard_map(search, mesh=mesh, in_specs=(everywhere, *held), out_specs=everywhere, check_vma=False)
        return run(jax.lax.stop_gradient(queries), knowledge.passage_vectors, knowledge.alive, excluded)

    def gather(queries: Float[Array, "B D"], knowledge: Knowledge, rows: Int[Array, "B K"]) -> tuple[Retrieved, Tokens]:
        def fetch(vectors, passages, rows):
            share = stored.count(vectors)
            local = jnp.maximum(rows, 0) - share * jax.lax.axis_index(axis)
            mine = (local >= 0) & (local < share)
            some = jnp.where(mine, local, 0)
            taken = stored.take(vectors, some), *(array[some].astype(jnp.int32) for array in passages)
            kept = (jnp.where(mine.reshape(*mine.shape, *(1,) * (each.ndim - 2)), each, 0) for each in taken)
            return jax.lax.psum(tuple(kept), axis)  # all but one of the terms are zero

        run = jax.shard_map(fetch, mesh=mesh, in_specs=(spread, spread, everywhere), out_specs=everywhere)
        found = run(knowledge.passage_vectors, knowledge.passage_tokens, rows)
        if batch and rows.shape[0] % shares == 0:
            found = jax.lax.with_sharding_constraint(found, by_question)
        vectors, ids, lengths = found
        return Retrieved(rows, retrieval.scores(queries, vectors), rows >= 0), Tokens(ids, lengths)

    return retrieval.Index(nearest, gather)
