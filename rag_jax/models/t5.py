"""T5, the generator (Raffel et al. 2020; 1.1: Shazeer 2020; Flan: Chung et al. 2022), as pure functions.

`decode` takes and returns a `Cache`; training calls it without one. Positions enter attention as a bias only, so inputs
may be of any length.
"""

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.packing import to_packs, to_rows, unpacked
from rag_jax.models import cache_slots, encoder_decoder
from rag_jax.models.architecture import Architecture, SpecialTokens
from rag_jax.models.attention import Attention, initializer
from rag_jax.models.dense import Dense, attend
from rag_jax.models.dropout import Dropout
from rag_jax.models.encoder_decoder import CrossKeysValues, Memory
from rag_jax.models.gelu import tanh_gelu
from rag_jax.models.layers import Remat, constrain, run_layers
from rag_jax.models.norm import RMSNorm
from rag_jax.models.relative_position import RelativePositionBias
from rag_jax.types import DecoderPositions, Generator, PackedInputs, Params, Tokens


@dataclass(frozen=True)
class T5Config:
    """T5's sizes. The defaults are T5-base, version 1.0."""

    vocab_size: int = 32_128
    width: int = 768
    encoder_layers: int = 12
    decoder_layers: int = 12
    heads: int = 12
    head_width: int | None = None  # None: width / heads
    ffn_width: int = 3_072
    gated: bool = False  # feed-forward: ReLU (1.0), or a linear layer gated by GELU (1.1, Flan)
    tied_head: bool = True  # the token table, with logits scaled by 1 / sqrt(width) (1.0), or its own weights (1.1)
    position_buckets: int = 32
    max_distance: int = 128
    dropout: float = 0.1  # of states, of attention weights and inside the feed-forward layers
    layer_norm_eps: float = 1e-6
    dtype: Any = jnp.float32  # of activations; parameters are float32
    remat: Remat = "none"  # see `rag_jax.models.layers`
    scan: bool = False
    sharding: NamedSharding | None = None  # of activations, see `rag_jax.models.layers.constrain`

    @property
    def max_positions(self) -> None:
        """Inputs and answers may be of any length."""
        return None

    @property
    def d(self) -> int:
        """The width of a head."""
        return self.head_width or self.width // self.heads

    @property
    def is_for_training(self) -> bool:
        """Whether the layers run without a cache, so that they can train but not decode."""
        return self.scan or self.remat != "none"


SPECIAL_TOKENS = SpecialTokens(bos=None, pad="<pad>", eos="</s>", start="<pad>", others=("<unk>",))


class Cache(NamedTuple):
    """Each decoder layer's self-attention keys and values; the first `length` slots are filled.

    Answers in a tree have several slots at one position, so the position of each slot's token is kept.
    """

    layers: tuple[cache_slots.KeysValues, ...]
    position: Int[Array, "R slots"]
    length: Int[Array, ""]


class FeedForward(nn.Module):
    """Two linear layers around a ReLU or, `gated`, around the product of a GELU and a linear layer (GEGLU)."""

    config: T5Config

    @nn.compact
    def __call__(
        self, states: Float[Array, "R T width"], deterministic: bool, packed: PackedInputs | None = None
    ) -> Float[Array, "R T width"]:
        c = self.config
        if c.gated:  # the names differ because those in checkpoints do
            gate = tanh_gelu(_dense(c, c.ffn_width, "gate")(states))
            hidden = gate * _dense(c, c.ffn_width, "gated_up")(states)
        else:
            hidden = jax.nn.relu(_dense(c, c.ffn_width, "up")(states))
        return _dense(c, c.width, "down")(Dropout(c.dropout)(hidden, deterministic, packed))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each of the normalised states and added to them (pre-norm)."""

    config: T5Config

    def setup(self):
        c = self.config
        self.attention, self.ffn = _attention(c), FeedForward(c)
        self.attention_norm, self.ffn_norm = _norm(c), _norm(c)
        self.drop = Dropout(c.dropout)

    def __call__(
        self,
        states: Float[Array, "G N width"],
        mask: Bool[Array, "R 1 S"],
        bias: Float[Array, "1 H S S"],
        deterministic: bool,
        packed: PackedInputs | None,
    ) -> Float[Array, "G N width"]:
        states = constrain(states, self.config.sharding)
        normed = self.attention_norm(states)
        mixed = self.attention(
            normed, *self.attention.project(normed, packed), mask, deterministic, packed, position_bias=bias
        )
        states = constrain(states + self.drop(mixed, deterministic, packed), self.config.sharding)
        hidden = self.ffn(self.ffn_norm(states), deterministic, packed)
        return states + self.drop(hidden, deterministic, packed)


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention to the encoded inputs, feed-forward (pre-norm)."""

    config: T5Config

    def setup(self):
        c = self.config
        self.attention, self.cross, self.ffn = _attention(c), _attention(c), FeedForward(c)
        self.attention_norm, self.cross_norm, self.ffn_norm = _norm(c), _norm(c), _norm(c)
        self.drop = Dropout(c.dropout)

    def __call__(
        self,
        states: Float[Array, "R T width"],
        past: cache_slots.KeysValues | None,
        offset: Int[Array, ""],
        visible: Bool[Array, "#R T slots"],
        bias: Float[Array, "#R H T slots"],
        encoded: CrossKeysValues | Float[Array, "R S width"],
        encoded_mask: Bool[Array, "R 1 S"],
        deterministic: bool,
    ) -> tuple[Float[Array, "R T width"], cache_slots.KeysValues]:
        states = constrain(states, self.config.sharding)
        normed = self.attention_norm(states)
        new = self.attention.project(normed)
        present = cache_slots.write(past, new, offset)
        mixed = self.attention(normed, *present, visible, deterministic, position_bias=bias)
        states = constrain(states + self.drop(mixed, deterministic), self.config.sharding)
        keys_values = encoded if isinstance(encoded, tuple) else self.cross.project(encoded)
        mixed = self.cross(self.cross_norm(states), *keys_values, encoded_mask, deterministic)
        states = constrain(states + self.drop(mixed, deterministic), self.config.sharding)
        hidden = self.ffn(self.ffn_norm(states), deterministic)
        return states + self.drop(hidden, deterministic), present


class T5(nn.Module):
    """T5 with a tied head or its own."""

    config: T5Config

    def setup(self):
        c = self.config
        self.word = nn.Embed(c.vocab_size, c.width, dtype=c.dtype, embedding_init=nn.initializers.normal(1.0))
        self.encoder_position, self.decoder_position = _position_bias(c, False), _position_bias(c, True)
        self.encoder_layers = [EncoderLayer(c) for _ in range(c.encoder_layers)]
        self.decoder_layers = [DecoderLayer(c) for _ in range(c.decoder_layers)]
        self.encoder_norm, self.decoder_norm = _norm(c), _norm(c)
        self.drop = Dropout(c.dropout)
        if not c.tied_head:
            self.head = _dense(c, c.vocab_size)

    def __call__(self, inputs: Tokens, decoder_ids: Int[Array, "R T"]):
        """Encode and decode, to initialise the parameters."""
        return self.logits(self.decode(decoder_ids, self.encode(inputs, True), None, None, True)[0])

    def encode(self, inputs: Tokens | PackedInputs, deterministic: bool) -> Memory:
        """Encode the inputs and project them for every decoder layer's cross-attention."""
        packed = inputs if isinstance(inputs, PackedInputs) else None
        rows = unpacked(inputs)
        position = jnp.arange(rows.ids.shape[1], dtype=jnp.int32)[None, :]
        bias = self.encoder_position(position, position)
        states = self.drop(self.word(to_packs(packed, rows.ids)), deterministic, packed)

        def call(layer: EncoderLayer, states: Float[Array, "G N width"]) -> Float[Array, "G N width"]:
            return layer(states, rows.mask[:, None, :], bias, deterministic, packed)

        is_for_training = self.config.is_for_training and not self.is_initializing()
        if is_for_training:
            states = self._run_layers(self.encoder_layers, call, states, deterministic)
        else:
            states = reduce(lambda states, layer: call(layer, states), self.encoder_layers, states)
        states = self.drop(self.encoder_norm(states), deterministic, packed)
        if is_for_training:
            return Memory(to_rows(packed, states), rows.mask)
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
        slot_position = position if cache is None else cache_slots.write_positions(cache.position, position, offset)
        bias = self.decoder_position(position, slot_position)
        encoded_mask = encoded.mask[:, None, :]
        states = self.drop(self.word(ids), deterministic)
        present = []
        if isinstance(encoded.layers, tuple):
            for layer, layer_past, cross in zip(self.decoder_layers, past, encoded.layers, strict=True):
                states, layer_present = layer(
                    states, layer_past, offset, visible, bias, cross, encoded_mask, deterministic
                )
                present.append(layer_present)
        else:  # all target tokens at once, where each layer projects the encoder's states itself
            encoder_states = encoded.layers

            def call(layer: DecoderLayer, states: Float[Array, "R T width"]) -> Float[Array, "R T width"]:
                return layer(states, None, offset, visible, bias, encoder_states, encoded_mask, deterministic)[0]

            states = self._run_layers(self.decoder_layers, call, states, deterministic)
        states = self.drop(self.decoder_norm(states), deterministic)
        slot_position = jnp.broadcast_to(slot_position, (ids.shape[0], visible.shape[2]))
        return states, Cache(tuple(present), slot_position, offset + ids.shape[1])

    def logits(self, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]:
        """Logits of the token after each state."""
        states = constrain(states, self.config.sharding)
        return attend(self.word, states * self.config.width**-0.5) if self.config.tied_head else self.head(states)

    def _run_layers(self, layers: Any, call: Any, states: Array, deterministic: bool) -> Array:
        c, key = self.config, None if deterministic else self.make_rng("dropout")
        return run_layers(layers, call, states, scan=c.scan, remat=c.remat, key=key, dtype=c.dtype)


@lru_cache
def generator(config: T5Config) -> Generator:
    """T5 as pure functions of its parameters; the same ones per config, so that they compile once."""

    def empty_cache(rows: int, slots: int) -> Cache:
        layer = cache_slots.empty_slots(rows, config.heads, slots, config.d, config.dtype)
        return Cache((layer,) * config.decoder_layers, jnp.zeros((rows, slots), jnp.int32), jnp.int32(0))

    return encoder_decoder.functions(T5(config), empty_cache)


def init(config: T5Config, key: Array) -> Params:
    """Random parameters, of the published standard deviations."""
    return encoder_decoder.init(T5(config), key)


def _attention(config: T5Config) -> Attention:
    c = config
    return Attention(c.width, c.heads, c.dropout, None, c.dtype, head_width=c.head_width, use_bias=False, scaled=False)


def _position_bias(config: T5Config, is_causal: bool) -> RelativePositionBias:
    c = config
    return RelativePositionBias(c.heads, c.position_buckets, c.max_distance, is_causal, c.width**-0.5)


def _norm(config: T5Config) -> RMSNorm:
    return RMSNorm(epsilon=config.layer_norm_eps, dtype=config.dtype)


def _dense(config: T5Config, width: int, name: str | None = None) -> nn.Dense:
    return Dense(width, use_bias=False, dtype=config.dtype, kernel_init=initializer(None), name=name)


def flops(config: T5Config, inputs: float, targets: float) -> float:
    """FLOPs of one row's forward pass in matrix products: two per weight and token, and those of attention."""
    s, t, width, inner = inputs, targets, config.width, config.heads * config.d
    feed_forward = (6 if config.gated else 4) * width * config.ffn_width
    encoder = config.encoder_layers * s * (8 * width * inner + feed_forward + 4 * s * inner)
    self_attention = 8 * width * inner + 4 * t * inner
    cross_attention = 4 * width * inner + 4 * s * inner
    decoder_token = self_attention + cross_attention + feed_forward
    decoder = config.decoder_layers * (t * decoder_token + 4 * s * width * inner)
    return encoder + decoder + 2 * t * width * config.vocab_size


def describe(config: T5Config) -> str:
    """Number of encoder and decoder layers, and width."""
    return f"T5 {config.encoder_layers} + {config.decoder_layers} x {config.width}"


ARCHITECTURE = Architecture("t5", T5Config, init, generator, flops, describe, special_tokens=SPECIAL_TOKENS)
