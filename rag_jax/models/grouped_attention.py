"""Grouped-query attention (Ainslie et al. 2023) with rotary positions, over keys and values that the caller holds."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rag_jax.core.packing import to_packs, to_rows
from rag_jax.models.attention import fused_attention, may_be_fused
from rag_jax.models.dense import Dense
from rag_jax.models.norm import RMSNorm
from rag_jax.models.products import multiply
from rag_jax.models.rope import Rotation, rotate
from rag_jax.types import PackedInputs

SHORTEST_SPLIT = 64  # queries
KeysValues = tuple[
    Float[Array, "R G d S"], Float[Array, "R G S d"]
]  # of G heads, each shared by H / G heads of queries


class Context(NamedTuple):
    """A part of the positions to attend to."""

    keys: Float[Array, "R G d S"]
    values: Float[Array, "R G S d"]
    mask: Bool[Array, "#R #T S"]  # True where a query may attend
    is_causal: bool = False  # the keys are the queries' own positions, and none attends to later ones


class GroupedAttention(nn.Module):
    """Attention of `heads` heads of queries over `kv_heads` heads of keys and values.

    `project` computes keys and values, rotated by their positions; `__call__` attends to several contexts by one
    softmax, so that a prompt shared by many answers is not copied next to each answer's own keys.
    """

    width: int
    heads: int
    kv_heads: int
    head_width: int
    qkv_bias: bool
    out_bias: bool
    norm_eps: float | None  # of RMSNorm on the heads of queries and keys; None: they are not normalised
    init_std: float
    dtype: Any = jnp.float32
    fused: bool = False

    def setup(self):
        def dense(features: int, bias: bool):
            init = nn.initializers.normal(self.init_std)
            return Dense(features, use_bias=bias, dtype=self.dtype, kernel_init=init)

        self.query = dense(self.heads * self.head_width, self.qkv_bias)
        self.key, self.value = (dense(self.kv_heads * self.head_width, self.qkv_bias) for _ in range(2))
        self.out = dense(self.width, self.out_bias)
        if self.norm_eps is not None:
            self.query_norm, self.key_norm = (RMSNorm(self.norm_eps, self.dtype) for _ in range(2))

    def project(
        self, states: Float[Array, "G N width"], by: Rotation, packed: PackedInputs | None = None
    ) -> KeysValues:
        """Keys and values of the states to attend to; states are packs if `packed` is given, else rows."""
        keys, values = (self._split(to_rows(packed, dense(states))) for dense in (self.key, self.value))
        if self.norm_eps is not None:
            keys = self.key_norm(keys)
        return jnp.transpose(rotate(keys, by), (0, 2, 3, 1)), jnp.swapaxes(values, 1, 2)

    def __call__(
        self,
        states: Float[Array, "G N width"],
        by: Rotation,
        contexts: Sequence[Context],
        packed: PackedInputs | None = None,
    ) -> Float[Array, "G N width"]:
        """Attend from `states` to all positions that the contexts' masks allow; the softmax is float32."""
        queries = self._split(to_rows(packed, self.query(states)))
        if self.norm_eps is not None:
            queries = self.query_norm(queries)
        queries = jnp.swapaxes(rotate(queries, by), 1, 2)
        if self.fused and len(contexts) == 1 and may_be_fused(queries.shape[2]):
            keys, values, mask, _ = contexts[0]
            return self._out(fused_attention(queries, keys, values, mask, self.head_width**-0.5), packed)
        queries *= self.head_width**-0.5
        ranges = _in_parts(contexts, queries.shape[2])
        parts = [self._attend(queries[:, :, start:end], seen) for start, end, seen in ranges]
        return self._out(jnp.swapaxes(jnp.concatenate(parts, axis=2), 1, 2), packed)

    def _attend(self, queries: Float[Array, "R H T d"], contexts: Sequence[Context]) -> Float[Array, "R H T d"]:
        """Attend to several contexts by one softmax."""
        rows, _, length, _ = queries.shape
        grouped = queries.reshape(rows, self.kv_heads, -1, self.head_width)
        scores = [self._scores(grouped, context, length) for context in contexts]
        weights = jax.nn.softmax(jnp.concatenate(scores, axis=3), axis=3).astype(self.dtype)
        ends = [0, *(sum(each.mask.shape[2] for each in contexts[: n + 1]) for n in range(len(contexts)))]
        mixed = sum(
            multiply(weights[..., start:end], context.values, self.dtype)
            for start, end, context in zip(ends, ends[1:], contexts, strict=False)
        )
        return jnp.asarray(mixed).reshape(queries.shape)

    def _scores(self, queries: Float[Array, "R G Q d"], context: Context, length: int) -> Float[Array, "R G Q S"]:
        """Masked scores of one context; Q is the T queries of each head that shares the keys."""
        scores = multiply(queries, context.keys)
        by_head = scores.reshape(*scores.shape[:2], -1, length, scores.shape[3])
        masked = jnp.where(context.mask[:, None, None, :, :], by_head, jnp.finfo(scores.dtype).min)
        return masked.reshape(scores.shape)

    def _out(self, heads: Float[Array, "R T H d"], packed: PackedInputs | None) -> Float[Array, "G N width"]:
        return self.out(to_packs(packed, heads.reshape(*heads.shape[:2], -1)))

    def _split(self, projected: Float[Array, "R T features"]) -> Float[Array, "R T H d"]:
        return projected.reshape(*projected.shape[:2], -1, self.head_width)


def _in_parts(contexts: Sequence[Context], length: int) -> Iterator[tuple[int, int, Sequence[Context]]]:
    """Ranges of the queries, and what each attends to. Four causal ranges save three eighths of the scores."""
    if len(contexts) > 1 or not contexts[0].is_causal or length < SHORTEST_SPLIT:
        yield 0, length, contexts
        return
    keys, values, mask, _ = contexts[0]
    size = -(-length // 4)
    for start in range(0, length, size):
        end = min(start + size, length)
        yield start, end, [Context(keys[..., :end], values[:, :, :end], mask[:, start:end, :end])]
