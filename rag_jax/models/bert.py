"""The BERT tower of a bi-encoder (Devlin et al. 2019; DPR: Karpukhin et al. 2020).

The question tower and the passage tower are this one module with two parameter trees.
"""

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float

from rag_jax.core.packing import row_positions, to_packs, to_rows, unpacked
from rag_jax.models.architecture import Architecture
from rag_jax.models.attention import Attention, is_fused
from rag_jax.models.dense import Dense
from rag_jax.models.dropout import Dropout
from rag_jax.models.gelu import gelu
from rag_jax.models.layers import Remat, constrain, run_layers
from rag_jax.models.norm import LayerNorm
from rag_jax.models.pooling import Pooling, pool, to_vector
from rag_jax.types import DropoutKey, PackedInputs, Params, Tokens, Tower


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
    pooling: Pooling = "cls"
    projection: int | None = None  # D, if not the width: a linear layer after pooling
    vector_norm: float | None = None  # rescale vectors to this norm; scores are then its square times the cosine
    truncated_width: int | None = None  # keep so many components, the first, before rescaling; None: all
    dtype: Any = jnp.float32  # of activations; parameters are float32
    remat: Remat = "none"  # see `rag_jax.models.layers`
    scan: bool = False
    attention: Literal["plain", "fused"] = "plain"
    sharding: NamedSharding | None = None  # of activations, see `rag_jax.models.layers.constrain`

    @property
    def vector_width(self) -> int:
        """D, the retrieval width."""
        return self.truncated_width or self.projection or self.width


class BertLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and LayerNorm (post-LN)."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "G N width"],
        mask: Bool[Array, "R 1 Q"],
        deterministic: bool,
        packed: PackedInputs | None,
    ) -> Float[Array, "G N width"]:
        c = self.config
        init, drop = nn.initializers.normal(c.init_std), Dropout(c.dropout)
        sizes = c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, is_fused(c.attention)
        attention = Attention(*sizes, name="attention")
        states = constrain(states, c.sharding)
        mixed = attention(states, *attention.project(states, packed), mask, deterministic, packed)
        states = constrain(_layer_norm(c, "attention_norm")(states + drop(mixed, deterministic, packed)), c.sharding)
        hidden = Dense(c.ffn_width, dtype=c.dtype, kernel_init=init, name="up")(states)
        hidden = Dense(c.width, dtype=c.dtype, kernel_init=init, name="down")(gelu(hidden))
        return _layer_norm(c, "ffn_norm")(states + drop(hidden, deterministic, packed))


class Bert(nn.Module):
    """BERT with pooling: token sequences to vectors, `q(x)` or `d(z)`."""

    config: BertConfig

    @nn.compact
    def __call__(self, inputs: Tokens | PackedInputs, deterministic: bool = True) -> Float[Array, "R D"]:
        c, rows = self.config, unpacked(inputs)
        packed = inputs if isinstance(inputs, PackedInputs) else None
        states = self._embed(rows, packed, deterministic)
        layers = [BertLayer(c, name=f"layer_{number}") for number in range(c.layers)]

        def call(layer: BertLayer, states: Float[Array, "G N width"]) -> Float[Array, "G N width"]:
            return layer(states, rows.mask[:, None, :], deterministic, packed)

        if self.is_initializing() or not (c.scan or c.remat != "none"):
            states = reduce(lambda states, layer: call(layer, states), layers, states)
        else:
            key = None if deterministic else self.make_rng("dropout")
            states = run_layers(layers, call, states, scan=c.scan, remat=c.remat, key=key, dtype=c.dtype)
        states = constrain(to_rows(packed, states), c.sharding)
        pooled = pool(states, rows.mask, c.pooling)
        if c.projection:
            pooled = Dense(c.projection, dtype=c.dtype, name="projection")(pooled)
        return to_vector(pooled, c.truncated_width, c.vector_norm)

    def _embed(self, rows: Tokens, packed: PackedInputs | None, deterministic: bool) -> Float[Array, "G N width"]:
        c = self.config

        def table(rows: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(c.init_std)
            return nn.Embed(rows, c.width, dtype=c.dtype, embedding_init=init, name=name)

        place = jnp.arange(rows.ids.shape[1], dtype=jnp.int32)[None, :] if packed is None else row_positions(packed)
        positions = table(c.max_positions, "position")(place)
        types = table(c.token_types, "token_type")(jnp.zeros((1, 1), jnp.int32))
        words = table(c.vocab_size, "word")(to_packs(packed, rows.ids))
        states = _layer_norm(c, "embedding_norm")(words + positions + types)
        return Dropout(c.dropout)(states, deterministic, packed)


@lru_cache
def tower(config: BertConfig) -> Tower:
    """The tower as a pure function of its parameters; one function per config, so that it compiles once."""
    module = Bert(config)

    def encode(params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None) -> Any:
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, tokens, key is None, rngs=rngs)

    return encode


def init(config: BertConfig, key: Array) -> Params:
    """Random parameters."""
    return Bert(config).init(key, Tokens(jnp.zeros((1, 2), jnp.int32), jnp.full(1, 2, jnp.int32)))["params"]


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
