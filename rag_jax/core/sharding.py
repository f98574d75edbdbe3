"""An index sharded over a mesh of devices: each device holds a shard of the rows and searches it.

Devices exchange only the k best rows of each shard and the retrieved passages: `[B, K]` scores, rows, tokens and
vectors, independent of the size of the index.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from rag_jax.core import retrieval
from rag_jax.core import vectors as vector_store
from rag_jax.types import Knowledge, Retrieved, SearchResults, Tokens


def sharded(mesh: Mesh, axis: str | tuple[str, ...], batch: tuple[str, ...] = ()) -> retrieval.Index:
    """The `Index` of knowledge whose rows are sharded evenly over one or more axes of the mesh.

    Every device searches its shard for all questions. The gathered passages are sharded over the axes of `batch` where
    their size divides the number of questions, and replicated otherwise. Ties go to the smallest row, as on one device.
    """
    replicated, by_row = PartitionSpec(), PartitionSpec(axis)
    num_batch_shards = int(np.prod([mesh.shape[name] for name in batch]))
    by_question = NamedSharding(mesh, PartitionSpec(batch))

    def nearest(
        queries: Float[Array, "B D"], knowledge: Knowledge, k: int, excluded: Int[Array, "B E"] | None = None
    ) -> SearchResults:
        def search(queries, vectors, alive, excluded):
            offset = vector_store.count(vectors) * jax.lax.axis_index(axis)
            local_excluded = None if excluded is None else jnp.where(excluded >= offset, excluded - offset, -1)
            top, rows = retrieval.exact_top_k(queries, vectors, k, alive=alive, excluded=local_excluded)
            rows = jnp.where(rows < 0, -1, rows + offset)
            top, rows = jax.lax.all_gather((top, rows), axis, axis=1, tiled=True)
            top, indices = jax.lax.top_k(top, k)
            return SearchResults(jnp.take_along_axis(rows, indices, axis=1), top)

        in_specs = (replicated, by_row, by_row, replicated)
        run = jax.shard_map(search, mesh=mesh, in_specs=in_specs, out_specs=replicated, check_vma=False)
        return run(jax.lax.stop_gradient(queries), knowledge.passage_vectors, knowledge.alive, excluded)

    def gather(queries: Float[Array, "B D"], knowledge: Knowledge, rows: Int[Array, "B K"]) -> tuple[Retrieved, Tokens]:
        def fetch(vectors, passages, rows):
            shard_size = vector_store.count(vectors)
            local = jnp.maximum(rows, 0) - shard_size * jax.lax.axis_index(axis)
            is_local = (local >= 0) & (local < shard_size)
            local = jnp.where(is_local, local, 0)
            taken = vector_store.take(vectors, local), *(array[local].astype(jnp.int32) for array in passages)
            own = (jnp.where(is_local.reshape(*is_local.shape, *(1,) * (each.ndim - 2)), each, 0) for each in taken)
            return jax.lax.psum(tuple(own), axis)  # all terms but one are zero

        run = jax.shard_map(fetch, mesh=mesh, in_specs=(by_row, by_row, replicated), out_specs=replicated)
        gathered = run(knowledge.passage_vectors, knowledge.passage_tokens, rows)
        if batch and rows.shape[0] % num_batch_shards == 0:
            gathered = jax.lax.with_sharding_constraint(gathered, by_question)
        vectors, ids, lengths = gathered
        return Retrieved(rows, retrieval.scores(queries, vectors), rows >= 0), Tokens(ids, lengths)

    return retrieval.Index(nearest, gather)
