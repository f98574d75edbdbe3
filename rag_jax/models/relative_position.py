"""T5's relative position bias (Raffel et al. 2020, section 2.1): a number per head for each bucket of distances.

Distances below a quarter of the number of buckets (causal: half) have a bucket each. The other buckets widen
logarithmically, and the last one holds every distance from `max_distance` on.
"""

from functools import lru_cache

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


class RelativePositionBias(nn.Module):
    """The bias of attention scores, in float32, from the positions of queries and keys."""

    heads: int
    num_buckets: int
    max_distance: int
    is_causal: bool
    init_std: float

    @nn.compact
    def __call__(self, queries: Int[Array, "#R T"], keys: Int[Array, "#R S"]) -> Float[Array, "#R H T S"]:
        init = nn.initializers.normal(self.init_std)
        table = self.param("embedding", init, (self.num_buckets, self.heads))
        relative = keys[:, None, :] - queries[:, :, None]
        return jnp.moveaxis(table[buckets(relative, self.num_buckets, self.max_distance, self.is_causal)], 3, 1)


def buckets(
    relative: Int[Array, "*shape"], num_buckets: int, max_distance: int, is_causal: bool
) -> Int[Array, "*shape"]:
    """The bucket of a key's position relative to the query's. Causal: keys ahead, which are masked, have the first."""
    one_sided = num_buckets if is_causal else num_buckets // 2
    distance = jnp.maximum(-relative, 0) if is_causal else jnp.abs(relative)
    found = jnp.asarray(_by_distance(one_sided, max_distance))[jnp.minimum(distance, max_distance)]
    return found if is_causal else jnp.where(relative > 0, found + one_sided, found)


@lru_cache
def _by_distance(num_buckets: int, max_distance: int) -> Int[np.ndarray, " distances"]:
    """The bucket of each distance up to `max_distance`, on the host, since it depends on how logarithms are rounded."""
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    logarithm = np.log(np.maximum(distance, 1).astype(np.float32) / exact)
    wide = exact + (logarithm / np.float32(np.log(max_distance / exact)) * (num_buckets - exact)).astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(wide, num_buckets - 1)).astype(np.int32)
