"""Multi-head attention, shared by BERT and BART, with its keys and values in the caller's hands."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rag_jax.core.packing import to_packs, to_rows
from rag_jax.types import PackedInputs

FEW = 16  # fewer queries than this are those of a decoding step


class Attention(nn.Module):
    """Scaled dot-product attention with `H` heads; four projections with biases, as in BERT and BART.

    Keys and values are made by `project` and passed to `__call__`: a caller may compute them once and keep them. Heads
    stand before positions, as the batched matrix products read them: keeping is worth nothing if each use transposes.

    With `fused` the scores stay inside one kernel, where the device has one for the dtype. Dropping weights needs them,
    so that with a `dropout` training goes the plain way; so do the few queries of a decoding step, for which it is not
    worth while to bring the keys into the kernel's order.
    """

    width: int
    heads: int
    dropout: float
    init_std: float
    dtype: Any = jnp.float32
    fused: bool = False

    def setup(self):
        def dense():
            return nn.Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.normal(self.init_std))

        self.query, self.key, self.value, self.out = dense(), dense(), dense(), dense()
        self.drop = nn.Dropout(self.dropout)

    def project(
        self, states: Float[Array, "G N width"], packed: PackedInputs | None = None
    ) -> tuple[Float[Array, "R H d S"], Float[Array, "R H S d"]]:
        """Keys and values of the attended states, which are in lines where they are `packed`."""
        keys, values = (self._split(to_rows(packed, dense(states))) for dense in (self.key, self.value))
        return jnp.swapaxes(keys, 2, 3), values

    def __call__(
        self,
        states: Float[Array, "G N width"],
        keys: Float[Array, "R H d S"],
        values: Float[Array, "R H S d"],
        mask: Bool[Array, "#R #T S"],
        deterministic: bool,
        packed: PackedInputs | None = None,
    ) -> Float[Array, "G N width"]:
        """Attend from `states` to the positions where `mask` is True; the softmax is float32 whatever the dtype."""
        queries = self._split(to_rows(packed, self.query(states)))
        rows = queries.shape[0], queries.shape[2], self.width
        if self.fused and (deterministic or not self.dropout) and queries.shape[2] >= FEW:
            return self.out(to_packs(packed, _fused(queries, keys, values, mask).reshape(rows)))
        queries *= (self.width // self.heads) ** -0.5
        scores = jnp.einsum("RHTd,RHdS->RHTS", queries, keys, preferred_element_type=jnp.float32)
        scores = jnp.where(mask[:, None, :, :], scores, jnp.finfo(scores.dtype).min)
        weights = self.drop(jax.nn.softmax(scores, axis=3).astype(self.dtype), deterministic=deterministic)
        mixed = jnp.einsum("RHTS,RHSd->RHTd", weights, values)
        return self.out(to_packs(packed, jnp.swapaxes(mixed, 1, 2).reshape(rows)))

    def _split(self, projected: Float[Array, "R T width"]) -> Float[Array, "R H T d"]:
        heads = projected.reshape(*projected.shape[:2], self.heads, self.width // self.heads)
        return jnp.swapaxes(heads, 1, 2)


def _fused(
    queries: Float[Array, "R H T d"],
    keys: Float[Array, "R H d S"],
    values: Float[Array, "R H S d"],
    mask: Bool[Array, "#R #T S"],
) -> Float[Array, "R T H d"]:
    """One kernel on a GPU in sixteen bits; elsewhere XLA makes of it what it can.

    The kernel wants a mask of its own for each query, and even lengths where it is differentiated.
    """
    count, size = queries.shape[2], keys.shape[3]
    in_kernel = jax.default_backend() == "gpu" and queries.dtype.itemsize == 2 and count % 2 == 0 and size % 2 == 0
    given = jnp.swapaxes(queries, 1, 2), jnp.transpose(keys, (0, 3, 1, 2)), jnp.swapaxes(values, 1, 2)
    mask = jnp.broadcast_to(mask, (mask.shape[0], count, size))[:, None]
    with jax.numpy_dtype_promotion("standard"):  # its float32 sums are implicit
        return jax.nn.dot_product_attention(*given, mask=mask, implementation="cudnn" if in_kernel else "xla")
