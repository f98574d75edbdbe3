"""A layer of the Llama family: attention and SwiGLU, each after an RMSNorm; and the family's sizes."""

from dataclasses import dataclass, field
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from rag_jax.models.attention import is_fused
from rag_jax.models.dense import Dense
from rag_jax.models.grouped_attention import Context, GroupedAttention, KeysValues
from rag_jax.models.layers import Remat, constrain
from rag_jax.models.norm import RMSNorm
from rag_jax.models.rope import Rope, Rotation
from rag_jax.types import PackedInputs


@dataclass(frozen=True)
class DecoderConfig:
    """The family's sizes. The defaults are Mistral 7B's, but for its grouped queries."""

    vocab_size: int = 32_768
    width: int = 4_096
    decoder_layers: int = 32
    heads: int = 32
    kv_heads: int | None = None  # of keys and values; None: as many as of queries
    head_width: int | None = None  # None: width / heads
    ffn_width: int = 14_336
    max_positions: int | None = 32_768  # of prompt and answer together
    norm_eps: float = 1e-5
    rope: Rope = field(default_factory=lambda: Rope(theta=1e6))
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = False
    window: int | None = None  # positions that a token attends to, itself included; None: all before it
    init_std: float = 0.02
    model_type: str = "mistral"  # the family's name in config.json
    dtype: Any = jnp.float32  # of activations; parameters are float32
    remat: Remat = "none"  # see `rag_jax.models.layers`
    scan: bool = False
    attention: Literal["plain", "fused"] = "plain"
    prefill_chunk: int | None = None  # tokens of a prompt that are read at once; None: all, or a window of them
    sharding: NamedSharding | None = None  # of activations, see `rag_jax.models.layers.constrain`

    @property
    def d(self) -> int:
        """The width of a head."""
        return self.head_width or self.width // self.heads

    @property
    def num_kv_heads(self) -> int:
        return self.kv_heads or self.heads


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): a product of two projections, one through SiLU."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, states: Float[Array, "R T width"]) -> Float[Array, "R T width"]:
        gate, up = dense(self.config, self.config.ffn_width, "gate"), dense(self.config, self.config.ffn_width, "up")
        return dense(self.config, self.config.width, "down")(nn.silu(gate(states)) * up(states))


class Layer(nn.Module):
    """Attention and feed-forward, each after an RMSNorm and added to the states (pre-LN)."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        self.attention = GroupedAttention(
            width=c.width,
            heads=c.heads,
            kv_heads=c.num_kv_heads,
            head_width=c.d,
            qkv_bias=c.qkv_bias,
            out_bias=c.out_bias,
            norm_eps=c.norm_eps if c.qk_norm else None,
            init_std=c.init_std,
            dtype=c.dtype,
            fused=is_fused(c.attention),
        )
        self.ffn = FeedForward(c)
        self.attention_norm, self.ffn_norm = (RMSNorm(c.norm_eps, c.dtype) for _ in range(2))

    def project(
        self, states: Float[Array, "G N width"], by: Rotation, packed: PackedInputs | None = None
    ) -> tuple[Float[Array, "G N width"], KeysValues]:
        """The normalised states, which attention reads, and their keys and values."""
        normed = self.attention_norm(states)
        return normed, self.attention.project(normed, by, packed)

    def __call__(
        self,
        states: Float[Array, "G N width"],
        normed: Float[Array, "G N width"],
        by: Rotation,
        contexts: list[Context],
        packed: PackedInputs | None = None,
    ) -> Float[Array, "G N width"]:
        """The states after the layer, which attends to the contexts; they hold the states' own keys and values."""
        states = constrain(states, self.config.sharding)
        states = states + self.attention(normed, by, contexts, packed)
        states = constrain(states, self.config.sharding)
        return states + self.ffn(self.ffn_norm(states))


def dense(config: DecoderConfig, features: int, name: str | None) -> nn.Dense:
    init = nn.initializers.normal(config.init_std)
    return Dense(features, use_bias=False, dtype=config.dtype, kernel_init=init, name=name)
