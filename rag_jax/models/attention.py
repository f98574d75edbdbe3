"""Multi-head attention, whose caller holds the keys and values."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rag_jax.core.devices import has_bfloat16_products
from rag_jax.core.packing import to_packs, to_rows
from rag_jax.models.dense import Dense
from rag_jax.models.products import multiply
from rag_jax.types import PackedInputs

KINDS = ("plain", "fused")
MIN_FUSED_QUERIES = 16  # fewer queries are those of a decoding step
WEIGHTS = "intermediates"  # the collection of the attention weights; they are kept only where it is mutable


class Attention(nn.Module):
    """Dot-product attention with `H` heads: scaled, with biases in its four projections, as in BERT and BART.

    T5 has neither scaling nor biases; its initialisation contains the scale instead.

    `project` computes keys and values, which are passed to `__call__`, so that a caller can cache them. The head axis
    comes before positions, as in the batched matrix products: no use of the cache needs a transpose.

    `fused` computes attention in one kernel without materialising the scores, where the device has one for the dtype.
    Attention dropout needs the scores, so training with it is not fused; nor are the few queries of a decoding step,
    for which transposing the keys into the kernel's layout would cost more than it saves.

    Whoever asks for the weights, by `apply(..., mutable=WEIGHTS)`, gets them in float32, before dropout, from attention
    that is not fused.
    """

    width: int
    heads: int
    dropout: float
    init_std: float | None  # of the kernels; None: 1 / sqrt(inputs)
    dtype: Any = jnp.float32
    fused: bool = False
    head_width: int | None = None  # d; None: width / heads
    use_bias: bool = True  # of the projections
    scaled: bool = True  # scores by 1 / sqrt(d)

    @property
    def d(self) -> int:
        """The width of a head."""
        return self.head_width or self.width // self.heads

    def setup(self):
        def dense(width: int, scale: float = 1.0):
            init = initializer(self.init_std, scale)
            return Dense(width, use_bias=self.use_bias, dtype=self.dtype, kernel_init=init)

        inner = self.heads * self.d
        self.query = dense(inner, 1.0 if self.scaled else self.d**-0.5)
        self.key, self.value, self.out = dense(inner), dense(inner), dense(self.width)
        self.drop = nn.Dropout(self.dropout)

    def project(
        self, states: Float[Array, "G N width"], packed: PackedInputs | None = None
    ) -> tuple[Float[Array, "R H d S"], Float[Array, "R H S d"]]:
        """Keys and values of the states to attend to; states are packs if `packed` is given, else rows."""
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
        position_bias: Float[Array, "#R H T S"] | None = None,
    ) -> Float[Array, "G N width"]:
        """Attend from `states` to the positions where `mask` is True; the softmax is float32 whatever the dtype.

        `position_bias` is added to the scores, which are then not fused.
        """
        queries = self._split(to_rows(packed, self.query(states)))
        rows = queries.shape[0], queries.shape[2], self.heads * self.d
        scale = self.d**-0.5 if self.scaled else 1.0
        is_fusible = position_bias is None and (deterministic or not self.dropout)
        is_fusible = is_fusible and not self.is_mutable_collection(WEIGHTS)
        if self.fused and is_fusible and may_be_fused(queries.shape[2]):
            return self.out(to_packs(packed, fused_attention(queries, keys, values, mask, scale).reshape(rows)))
        scores = multiply(queries * scale, keys)
        if position_bias is not None:
            scores += position_bias
        scores = jnp.where(mask[:, None, :, :], scores, jnp.finfo(scores.dtype).min)
        # softmax, but divided by its sum only after mixing: derivatives then need no sum over the scores' array
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=3, keepdims=True)))
        total = jnp.sum(weights, axis=3, keepdims=True)
        if self.is_mutable_collection(WEIGHTS):
            self.sow(WEIGHTS, "weights", weights / total)
        weights = self.drop(weights.astype(self.dtype), deterministic=deterministic)
        mixed = (multiply(weights, values) / total).astype(self.dtype)
        return self.out(to_packs(packed, jnp.swapaxes(mixed, 1, 2).reshape(rows)))

    def _split(self, projected: Float[Array, "R T width"]) -> Float[Array, "R H T d"]:
        heads = projected.reshape(*projected.shape[:2], self.heads, self.d)
        return jnp.swapaxes(heads, 1, 2)


def initializer(std: float | None, scale: float = 1.0) -> nn.initializers.Initializer:
    """Normal weights of standard deviation `scale * std`; of `scale / sqrt(inputs)` where `std` is None."""
    if std is None:
        return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")
    return nn.initializers.normal(scale * std)


def is_fused(attention: str) -> bool:
    """Whether attention is fused, by its name in configs. Raises `ValueError` for an unknown name."""
    if attention not in KINDS:
        raise ValueError(f"attention is {attention!r}; give {' or '.join(KINDS)}")
    return attention == "fused"


def may_be_fused(num_queries: int) -> bool:
    """Whether there are enough queries for the kernel's layout to be worth its cost."""
    return num_queries >= MIN_FUSED_QUERIES


def fused_attention(
    queries: Float[Array, "R H T d"],
    keys: Float[Array, "R G d S"],
    values: Float[Array, "R G S d"],
    mask: Bool[Array, "#R #T S"],
    scale: float,
) -> Float[Array, "R T H d"]:
    """cuDNN's kernel on a GPU (A100 or newer) in 16 bits; XLA's implementation elsewhere. H may be a multiple of G.

    The kernel needs a mask for every query, and even lengths where it is differentiated.
    """
    num_queries, num_keys = queries.shape[2], keys.shape[3]
    even = num_queries % 2 == 0 and num_keys % 2 == 0
    use_cudnn = jax.default_backend() == "gpu" and has_bfloat16_products() and queries.dtype.itemsize == 2 and even
    operands = jnp.swapaxes(queries, 1, 2), jnp.transpose(keys, (0, 3, 1, 2)), jnp.swapaxes(values, 1, 2)
    mask = jnp.broadcast_to(mask, (mask.shape[0], num_queries, num_keys))[:, None]
    with jax.numpy_dtype_promotion("standard"):  # it promotes to float32 implicitly
        kernel = "cudnn" if use_cudnn else "xla"
        return jax.nn.dot_product_attention(*operands, mask=mask, scale=scale, implementation=kernel)
