"""The BERT tower of a bi-encoder (Devlin et al. 2019; DPR: Karpukhin et al. 2020).

The question tower and the passage tower are this one module with two parameter trees.
"""

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from rag_jax.models.architecture import Architecture
from rag_jax.models.attention import Attention
from rag_jax.models.dense import Dense
from rag_jax.models.gelu import gelu
from rag_jax.models.layers import Remat, constrain, run_layers
from rag_jax.models.norm import LayerNorm
from rag_jax.types import DropoutKey, Params, Tokens, Tower


@dataclass(frozen=True)
class BertConfig:
    """BERT's sizes and pooling. The defaults are DPR's BERT-base."""

    vocab_size: int = 30_522
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_width: int = 3_072
    max_positions: int = 512
    token_types: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_eps: float = 1e-12
    init_std: float = 0.02
    pooling: Literal["cls", "mean"] = "cls"
    projection: int | None = None  # D, if not the width: a linear layer after pooling
    vector_norm: float | None = None  # rescale vectors to this norm; scores are then its square times the cosine
    dtype: Any = jnp.float32  # of activations; parameters are float32
    remat: Remat = "none"  # see `rag_jax.models.layers`
    scan: bool = False
    attention: Literal["plain", "fused"] = "plain"
    sharding: NamedSharding | None = None  # of activations, see `rag_jax.models.layers.constrain`

    @property
    def vector_width(self) -> int:
        """D, the retrieval width."""
        return self.projection or self.width


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and LayerNorm (post-LN)."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, states: Float[Array, "R Q width"], mask: Bool[Array, "R 1 Q"], deterministic: bool
    ) -> Float[Array, "R Q width"]:
        c = self.config
        init = nn.initializers.normal(c.init_std)
        drop = nn.Dropout(c.dropout, deterministic=deterministic)
        sizes = c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, c.attention == "fused"
        attention = Attention(*sizes, name="attention")
        states = constrain(states, c.sharding)
        mixed = attention(states, *attention.project(states), mask, deterministic)
        states = constrain(_layer_norm(c, "attention_norm")(states + drop(mixed)), c.sharding)
        hidden = Dense(c.ffn_width, dtype=c.dtype, kernel_init=init, name="up")(states)
        hidden = Dense(c.width, dtype=c.dtype, kernel_init=init, name="down")(gelu(hidden))
        return _layer_norm(c, "ffn_norm")(states + drop(hidden))


class Bert(nn.Module):
    """BERT with pooling: token sequences to vectors, `q(x)` or `d(z)`."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, ids: Int[Array, "R Q"], mask: Bool[Array, "R Q"], deterministic: bool = True
    ) -> Float[Array, "R D"]:
        c = self.config
        states = self._embed(ids, deterministic)
        layers = [BertLayer(c, name=f"layer_{number}") for number in range(c.layers)]

        def call(layer: BertLayer, states: Float[Array, "R Q width"]) -> Float[Array, "R Q width"]:
            return layer(states, mask[:, None, :], deterministic)

        if self.is_initializing() or not (c.scan or c.remat != "none"):
            states = reduce(lambda states, layer: call(layer, states), layers, states)
        else:
            key = None if deterministic else self.make_rng("dropout")
            states = run_layers(layers, call, states, scan=c.scan, remat=c.remat, key=key, dtype=c.dtype)
        states = constrain(states, c.sharding)
        pooled = states[:, 0] if c.pooling == "cls" else mean_pool(states, mask)
        if c.projection:
            pooled = Dense(c.projection, dtype=c.dtype, name="projection")(pooled)
        pooled = pooled.astype(jnp.float32)  # small differences between scores determine the prior
        return pooled if c.vector_norm is None else c.vector_norm * normalise(pooled)

    def _embed(self, ids: Int[Array, "R Q"], deterministic: bool) -> Float[Array, "R Q width"]:
        c = self.config

        def table(rows: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(c.init_std)
            return nn.Embed(rows, c.width, dtype=c.dtype, embedding_init=init, name=name)

        positions = table(c.max_positions, "position")(jnp.arange(ids.shape[1])[None, :])
        types = table(c.token_types, "token_type")(jnp.zeros((1, 1), jnp.int32))
        states = _layer_norm(c, "embedding_norm")(table(c.vocab_size, "word")(ids) + positions + types)
        return nn.Dropout(c.dropout, deterministic=deterministic)(states)


def mean_pool(states: Float[Array, "R Q width"], mask: Bool[Array, "R Q"]) -> Float[Array, "R width"]:
    """The mean of the states over the tokens, without padding, in float32."""
    total = jnp.sum(jnp.where(mask[:, :, None], states.astype(jnp.float32), 0.0), axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(jnp.float32)[:, None]


def normalise(vectors: Float[Array, "R D"]) -> Float[Array, "R D"]:
    """Vectors of norm one, in float32; the zero vector stays zero."""
    vectors = vectors.astype(jnp.float32)
    squared = jnp.sum(jnp.square(vectors), axis=1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))


@lru_cache
def tower(config: BertConfig) -> Tower:
    """The tower as a pure function of its parameters; one function per config, so that it compiles once."""
    module = Bert(config)

    def encode(params: Params, tokens: Tokens, key: DropoutKey = None) -> Any:
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, tokens.ids, tokens.mask, key is None, rngs=rngs)

    return encode


def init(config: BertConfig, key: Array) -> Params:
    """Random parameters."""
    ids = jnp.zeros((1, 2), jnp.int32)
    return Bert(config).init(key, ids, jnp.ones((1, 2), bool))["params"]


def _layer_norm(config: BertConfig, name: str) -> LayerNorm:
    return LayerNorm(epsilon=config.layer_norm_eps, dtype=config.dtype, name=name)


def flops(config: BertConfig, question: float) -> float:
    """FLOPs of one input's forward pass in matrix products: two per weight and token, and those of attention."""
    d = config.width
    return config.layers * question * (8 * d**2 + 4 * d * config.ffn_width + 4 * question * d)


def describe(config: BertConfig) -> str:
    """Number of layers, and width."""
    return f"BERT {config.layers} x {config.width}"


ARCHITECTURE = Architecture("bert", BertConfig, init, tower, flops, describe)
