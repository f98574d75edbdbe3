"""BART, the generator (Lewis et al. 2019), as pure functions: the caller holds all state of decoding.

`decode` takes and returns a `Cache`; training calls it without one.
"""

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.packing import row_positions, to_packs, to_rows, unpacked
from rag_jax.models import cache_slots, encoder_decoder
from rag_jax.models.architecture import Architecture
from rag_jax.models.attention import Attention, is_fused
from rag_jax.models.dense import Dense, attend
from rag_jax.models.dropout import Dropout
from rag_jax.models.encoder_decoder import CrossKeysValues, Memory
from rag_jax.models.gelu import gelu
from rag_jax.models.layers import Remat, constrain, run_layers
from rag_jax.models.norm import LayerNorm
from rag_jax.types import DecoderPositions, Generator, PackedInputs, Params, Tokens


@dataclass(frozen=True)
class BartConfig:
    """BART's sizes. The defaults are BART-large."""

    vocab_size: int = 50_265
    width: int = 1_024
    encoder_layers: int = 12
    decoder_layers: int = 12
    heads: int = 16
    ffn_width: int = 4_096
    max_positions: int = 1_024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    scale_embedding: bool = False
    init_std: float = 0.02
    dtype: Any = jnp.float32  # of activations; parameters are float32
    remat: Remat = "none"  # see `rag_jax.models.layers`
    scan: bool = False
    attention: Literal["plain", "fused"] = "plain"
    sharding: NamedSharding | None = None  # of activations, see `rag_jax.models.layers.constrain`

    @property
    def is_for_training(self) -> bool:
        """Whether the layers run without a cache, so that they can train but not decode."""
        return self.scan or self.remat != "none"


POSITION_OFFSET = 2  # BART's position tables begin with two unused rows
LAYER_NORM_EPS = 1e-5


class Cache(NamedTuple):
    """Each decoder layer's self-attention keys and values; the first `length` slots are filled."""

    layers: tuple[cache_slots.KeysValues, ...]
    length: Int[Array, ""]


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU."""

    config: BartConfig

    @nn.compact
    def __call__(
        self, states: Float[Array, "R T width"], deterministic: bool, packed: PackedInputs | None = None
    ) -> Float[Array, "R T width"]:
        c = self.config
        init = nn.initializers.normal(c.init_std)
        hidden = Dense(c.ffn_width, dtype=c.dtype, kernel_init=init, name="up")(states)
        hidden = gelu(hidden)
        hidden = Dropout(c.activation_dropout)(hidden, deterministic, packed)
        return Dense(c.width, dtype=c.dtype, kernel_init=init, name="down")(hidden)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, residual and LayerNorm (post-LN)."""

    config: BartConfig

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "G N width"],
        mask: Bool[Array, "R 1 S"],
        deterministic: bool,
        packed: PackedInputs | None,
    ) -> Float[Array, "G N width"]:
        c = self.config
        drop, attention = Dropout(c.dropout), _attention(c, "attention")
        states = constrain(states, c.sharding)
        mixed = attention(states, *attention.project(states, packed), mask, deterministic, packed)
        states = constrain(_layer_norm(c, "attention_norm")(states + drop(mixed, deterministic, packed)), c.sharding)
        hidden = FeedForward(c, name="ffn")(states, deterministic, packed)
        return _layer_norm(c, "ffn_norm")(states + drop(hidden, deterministic, packed))


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention to the encoded inputs, feed-forward (post-LN)."""

    config: BartConfig

    def setup(self):
        c = self.config
        self.attention, self.cross = _attention(c, None), _attention(c, None)
        self.ffn = FeedForward(c)
        self.attention_norm, self.cross_norm, self.ffn_norm = (_layer_norm(c, None) for _ in range(3))
        self.drop = Dropout(c.dropout)

    def __call__(
        self,
        states: Float[Array, "R T width"],
        past: cache_slots.KeysValues | None,
        offset: Int[Array, ""],
        visible: Bool[Array, "#R T slots"],
        encoded: CrossKeysValues | Float[Array, "R S width"],
        encoded_mask: Bool[Array, "R 1 S"],
        deterministic: bool,
    ) -> tuple[Float[Array, "R T width"], cache_slots.KeysValues]:
        states = constrain(states, self.config.sharding)
        new = self.attention.project(states)
        present = cache_slots.write(past, new, offset)
        mixed = self.attention(states, *present, visible, deterministic)
        states = constrain(self.attention_norm(states + self.drop(mixed, deterministic)), self.config.sharding)
        keys_values = encoded if isinstance(encoded, tuple) else self.cross.project(encoded)
        mixed = self.cross(states, *keys_values, encoded_mask, deterministic)
        states = constrain(self.cross_norm(states + self.drop(mixed, deterministic)), self.config.sharding)
        hidden = self.drop(self.ffn(states, deterministic), deterministic)
        return self.ffn_norm(states + hidden), present


class Bart(nn.Module):
    """BART with a tied head."""

    config: BartConfig

    def setup(self):
        c = self.config
        init = nn.initializers.normal(c.init_std)
        table = {"features": c.width, "dtype": c.dtype, "embedding_init": init}
        self.word = nn.Embed(c.vocab_size, **table)
        self.encoder_position = nn.Embed(c.max_positions + POSITION_OFFSET, **table)
        self.decoder_position = nn.Embed(c.max_positions + POSITION_OFFSET, **table)
        self.encoder_norm, self.decoder_norm = _layer_norm(c, None), _layer_norm(c, None)
        self.encoder_layers = [EncoderLayer(c) for _ in range(c.encoder_layers)]
        self.decoder_layers = [DecoderLayer(c) for _ in range(c.decoder_layers)]
        self.drop = Dropout(c.dropout)
        self.final_logits_bias = self.param("final_logits_bias", nn.initializers.zeros, (c.vocab_size,))

    def __call__(self, inputs: Tokens, decoder_ids: Int[Array, "R T"]):
        """Encode and decode, to initialise the parameters."""
        return self.logits(self.decode(decoder_ids, self.encode(inputs, True), None, None, True)[0])

    def encode(self, inputs: Tokens | PackedInputs, deterministic: bool) -> Memory:
        """Encode the inputs and project them for every decoder layer's cross-attention."""
        packed = inputs if isinstance(inputs, PackedInputs) else None
        rows = unpacked(inputs)
        position = jnp.arange(rows.ids.shape[1], dtype=jnp.int32)[None, :] if packed is None else row_positions(packed)
        states = self._embed(to_packs(packed, rows.ids), self.encoder_position, position)
        states = self.drop(self.encoder_norm(states), deterministic, packed)

        def call(layer: EncoderLayer, states: Float[Array, "G N width"]) -> Float[Array, "G N width"]:
            return layer(states, rows.mask[:, None, :], deterministic, packed)

        if self.config.is_for_training and not self.is_initializing():
            states = self._run_layers(self.encoder_layers, call, states, deterministic)
            return Memory(to_rows(packed, states), rows.mask)
        states = reduce(lambda states, layer: call(layer, states), self.encoder_layers, states)
        return self.project(states, rows.mask, packed)

    def project(
        self, states: Float[Array, "G N width"], mask: Bool[Array, "R S"], packed: PackedInputs | None = None
    ) -> Memory:
        """The encoder's states as every decoder layer's cross-attention keys and values."""
        return Memory(tuple(layer.cross.project(states, packed) for layer in self.decoder_layers), mask)

    def decode(
        self,
        ids: Int[Array, "R T"],
        encoded: Memory,
        cache: Cache | None,
        positions: DecoderPositions | None,
        deterministic: bool,
    ) -> tuple[Float[Array, "R T width"], Cache]:
        """The states of `ids`, which follow the cache's tokens or are placed by `positions`, and the extended cache.

        With a config for training the returned cache is empty, and passing one raises `ValueError`.
        """
        offset, past, (position, visible) = cache_slots.begin(
            cache, ids.shape[1], len(self.decoder_layers), positions, self.config.is_for_training
        )
        states = self._embed(ids, self.decoder_position, position)
        states = self.drop(self.decoder_norm(states), deterministic)
        if not isinstance(encoded.layers, tuple):
            states = self._teacher_forced(states, visible, encoded.layers, encoded.mask, deterministic)
            return states, Cache((), offset + ids.shape[1])
        present = []
        for layer, layer_past, cross in zip(self.decoder_layers, past, encoded.layers, strict=True):
            states, layer_present = layer(
                states, layer_past, offset, visible, cross, encoded.mask[:, None, :], deterministic
            )
            present.append(layer_present)
        return states, Cache(tuple(present), offset + ids.shape[1])

    def _teacher_forced(
        self,
        states: Float[Array, "R T width"],
        visible: Bool[Array, "#R T T"],
        encoder_states: Float[Array, "R S width"],
        mask: Bool[Array, "R S"],
        deterministic: bool,
    ) -> Float[Array, "R T width"]:
        """All target tokens at once, where each layer projects the encoder's states itself."""

        def call(layer: DecoderLayer, states: Float[Array, "R T width"]) -> Float[Array, "R T width"]:
            return layer(states, None, jnp.int32(0), visible, encoder_states, mask[:, None, :], deterministic)[0]

        return self._run_layers(self.decoder_layers, call, states, deterministic)

    def _run_layers(self, layers: Any, call: Any, states: Array, deterministic: bool) -> Array:
        c, key = self.config, None if deterministic else self.make_rng("dropout")
        return run_layers(layers, call, states, scan=c.scan, remat=c.remat, key=key, dtype=c.dtype)

    def logits(self, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]:
        """Logits of the token after each state, by the tied head."""
        bias = jax.lax.stop_gradient(self.final_logits_bias).astype(states.dtype)
        return attend(self.word, constrain(states, self.config.sharding)) + bias[None, None, :]

    def _embed(
        self, ids: Int[Array, "R T"], positions: nn.Embed, position: Int[Array, "#R T"]
    ) -> Float[Array, "R T width"]:
        scale = self.config.width**0.5 if self.config.scale_embedding else 1.0
        return self.word(ids) * scale + positions(POSITION_OFFSET + position)


@lru_cache
def generator(config: BartConfig) -> Generator:
    """BART as pure functions of its parameters; the same ones per config, so that they compile once."""

    def empty_cache(rows: int, slots: int) -> Cache:
        layer = cache_slots.empty_slots(rows, config.heads, slots, config.width // config.heads, config.dtype)
        return Cache((layer,) * config.decoder_layers, jnp.int32(0))

    return encoder_decoder.functions(Bart(config), empty_cache)


def init(config: BartConfig, key: Array) -> Params:
    """Random parameters."""
    return encoder_decoder.init(Bart(config), key)


def _attention(config: BartConfig, name: str | None) -> Attention:
    c = config
    return Attention(c.width, c.heads, c.attention_dropout, c.init_std, c.dtype, is_fused(c.attention), name=name)


def _layer_norm(config: BartConfig, name: str | None) -> LayerNorm:
    return LayerNorm(epsilon=LAYER_NORM_EPS, dtype=config.dtype, name=name)


def flops(config: BartConfig, inputs: float, targets: float) -> float:
    """FLOPs of one row's forward pass in matrix products: two per weight and token, and those of attention."""
    s, t, width, wide = inputs, targets, config.width, config.ffn_width
    encoder = config.encoder_layers * s * (8 * width**2 + 4 * width * wide + 4 * s * width)
    self_attention = 8 * width**2 + 4 * t * width
    cross_attention = 4 * width**2 + 4 * s * width
    decoder = config.decoder_layers * (t * (self_attention + cross_attention + 4 * width * wide) + 4 * s * width**2)
    return encoder + decoder + 2 * t * width * config.vocab_size


def describe(config: BartConfig) -> str:
    """Number of encoder and decoder layers, and width."""
    return f"BART {config.encoder_layers} + {config.decoder_layers} x {config.width}"


ARCHITECTURE = Architecture("bart", BartConfig, init, generator, flops, describe)
