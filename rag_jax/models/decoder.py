"""The Llama family of decoder-only generators (Touvron et al. 2023, Jiang et al. 2023, Yang et al. 2025).

RMSNorm, rotary positions, grouped queries, SwiGLU; with Mistral's sliding window, Qwen2's biases and Qwen3's norms of
queries and keys. `encode` is the prefill: the keys and values of the prompt, which all answers of a row share. `decode`
appends tokens of answers, whose own keys and values are in the cache; one softmax runs over both.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.packing import to_packs
from rag_jax.models import rolling_buffer
from rag_jax.models.architecture import Architecture, PromptTemplates, SpecialTokens
from rag_jax.models.grouped_attention import Context, GroupedAttention, KeysValues
from rag_jax.models.layers import Remat, constrain, map_layers
from rag_jax.models.norm import RMSNorm
from rag_jax.models.rolling_buffer import RollingBuffer
from rag_jax.models.rope import Rope, Rotation, rotation
from rag_jax.types import DecoderPositions, DropoutKey, Generator, PackedInputs, Params, Tokens


@dataclass(frozen=True)
class DecoderConfig:
    """The family's sizes. The defaults are Mistral 7B v0.3."""

    vocab_size: int = 32_768
    width: int = 4_096
    decoder_layers: int = 32
    heads: int = 32
    kv_heads: int | None = 8  # of keys and values; None: as many as of queries
    head_width: int | None = 128  # None: width / heads
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
    model_type: str = "mistral"  # of config.json: under which name the checkpoint is written
    dtype: Any = jnp.float32  # of activations; parameters are float32
    remat: Remat = "none"  # see `rag_jax.models.layers`
    scan: bool = False
    attention: Literal["plain", "fused"] = "plain"
    prefill_chunk: int | None = None  # tokens of a prompt that are read at once; None: all, or a window's
    sharding: NamedSharding | None = None  # of activations, see `rag_jax.models.layers.constrain`

    @property
    def is_for_training(self) -> bool:
        """Whether the layers run without a cache, so that they can train but not decode."""
        return self.scan or self.remat != "none"

    @property
    def d(self) -> int:
        """The width of a head."""
        return self.head_width or self.width // self.heads

    @property
    def num_kv_heads(self) -> int:
        return self.kv_heads or self.heads


class Prompt(NamedTuple):
    """The encoded prompts: each layer's keys and values, stacked with a config for training."""

    layers: tuple[KeysValues, ...] | KeysValues
    position: Int[Array, "R S"]  # of each key; -1: none
    lengths: Int[Array, " R"]


class Cache(NamedTuple):
    """Each layer's keys and values of the answers' tokens; the first `length` slots are filled."""

    layers: tuple[KeysValues, ...]
    position: Int[Array, "R slots"]  # in the whole text; siblings in a tree have the same
    length: Int[Array, ""]


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): a product of two projections, one through SiLU."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, states: Float[Array, "R T width"]) -> Float[Array, "R T width"]:
        gate, up = _dense(self.config, self.config.ffn_width, "gate"), _dense(self.config, self.config.ffn_width, "up")
        return _dense(self.config, self.config.width, "down")(nn.silu(gate(states)) * up(states))


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
            fused=c.attention == "fused",
        )
        self.ffn = FeedForward(c)
        self.attention_norm, self.ffn_norm = (RMSNorm(c.norm_eps, c.dtype) for _ in range(2))

    def keys_values(
        self, states: Float[Array, "G N width"], by: Rotation, packed: PackedInputs | None = None
    ) -> KeysValues:
        """The keys and values of the states."""
        return self.attention.project(self.attention_norm(states), by, packed)

    def __call__(
        self,
        states: Float[Array, "G N width"],
        by: Rotation,
        contexts: list[Context],
        packed: PackedInputs | None = None,
    ) -> Float[Array, "G N width"]:
        """The states after the layer, which attends to the contexts; they hold the states' own keys and values."""
        states = constrain(states, self.config.sharding)
        states = states + self.attention(self.attention_norm(states), by, contexts, packed)
        states = constrain(states, self.config.sharding)
        return states + self.ffn(self.ffn_norm(states))


class Decoder(nn.Module):
    """The network."""

    config: DecoderConfig

    def setup(self):
        c = self.config
        init = nn.initializers.normal(c.init_std)
        self.word = nn.Embed(c.vocab_size, c.width, dtype=c.dtype, embedding_init=init)
        self.layers = [Layer(c) for _ in range(c.decoder_layers)]
        self.norm = RMSNorm(c.norm_eps, c.dtype)
        if not c.tied_head:
            self.head = _dense(c, c.vocab_size, None)

    def __call__(self, inputs: Tokens, ids: Int[Array, "R T"]):
        """Read and continue, to initialise the parameters."""
        return self.logits(self.decode(ids, self.encode(inputs), None, None)[0])

    def encode(self, inputs: Tokens | PackedInputs) -> Prompt:
        """The keys and values of the prompts; of their last `window` tokens where they are longer."""
        packed = inputs if isinstance(inputs, PackedInputs) else None
        rows = inputs.inputs if isinstance(inputs, PackedInputs) else inputs
        chunk = None if self.is_initializing() else self.config.prefill_chunk or self.config.window
        if packed is None and not self._stacks and chunk is not None and chunk < rows.ids.shape[1]:
            return self._encode_in_chunks(rows, chunk)
        size = rows.ids.shape[1]
        position = jnp.arange(size, dtype=jnp.int32)
        by = rotation(self.config.rope, self.config.d, position[None, :])
        mask = _before(self.config, position[None, :], position[None, :]) & rows.mask[:, None, :]

        def call(layer: Layer, states: Array, _: None) -> tuple[Array, KeysValues]:
            keys_values = layer.keys_values(states, by, packed)
            return layer(states, by, [Context(*keys_values, mask)], packed), keys_values

        states = self.word(to_packs(packed, rows.ids))
        if self._stacks:
            _, layers = self._map_layers(call, states, None)
        else:
            layers = []
            for layer in self.layers:
                states, keys_values = call(layer, states, None)
                layers.append(keys_values)
            layers = tuple(layers)
        return Prompt(layers, jnp.where(rows.mask, position[None, :], -1), rows.lengths)

    def _encode_in_chunks(self, prompts: Tokens, chunk: int) -> Prompt:
        """Read the prompts in pieces: each attends to itself and to a buffer of the tokens before it."""
        c = self.config
        window = min(c.window or prompts.ids.shape[1], prompts.ids.shape[1])
        chunk = min(chunk, window)
        heads = (prompts.ids.shape[0], c.num_kv_heads, window, c.d)
        empty = rolling_buffer.empty(heads, c.decoder_layers, c.dtype)
        unbound = [each.clone(parent=None, name=None) for each in (self.word, *self.layers)]
        params = [each.variables for each in (self.word, *self.layers)]

        def read(buffer: RollingBuffer, piece: Tokens, start: Int[Array, ""]) -> RollingBuffer:
            word, *stack = (each.bind(own) for each, own in zip(unbound, params, strict=True))  # inside the scan
            position = start + jnp.arange(piece.ids.shape[1], dtype=jnp.int32)
            position = jnp.where(piece.mask, position[None, :], -1)
            by = rotation(c.rope, c.d, position)
            own = _before(c, position, position)
            past = _before(c, position, buffer.position)
            states, layers = word(piece.ids), []
            for layer, (keys, values) in zip(stack, buffer.layers, strict=True):
                new = layer.keys_values(states, by)
                states = layer(states, by, [Context(keys, values, past), Context(*new, own)])
                layers.append(new)
            return rolling_buffer.write(buffer, tuple(layers), position)

        buffer = rolling_buffer.scan_chunks(read, empty, prompts, chunk)
        return Prompt(buffer.layers, buffer.position, prompts.lengths)

    def decode(
        self, ids: Int[Array, "R T"], prompt: Prompt, cache: Cache | None, positions: DecoderPositions | None
    ) -> tuple[Float[Array, "R T width"], Cache]:
        """The states of `ids`, which follow the cache's tokens or are placed by `positions`, and the extended cache.

        Their positions in the text begin behind each row's own prompt. With a config for training the returned cache is
        empty, and passing one raises `ValueError`.
        """
        if cache is not None and self.config.is_for_training:
            raise ValueError("with scan or remat there is no cache to decode with: take them out of the config")
        rows, length = ids.shape
        offset = jnp.int32(0) if cache is None else cache.length
        slots = length if cache is None else cache.position.shape[1]
        behind_prompt, visible = _sequential(offset, length, slots) if positions is None else positions
        position = jnp.broadcast_to(prompt.lengths[:, None] + behind_prompt, (rows, length)).astype(jnp.int32)
        slot_position = position if cache is None else _write(cache.position, position, offset, axis=1)
        by = rotation(self.config.rope, self.config.d, position)
        prompt_mask = _before(self.config, position, prompt.position)
        mask = visible & _within_window(self.config, position, slot_position)
        states = self.word(ids)

        def call(layer: Layer, states: Array, own: tuple[KeysValues, KeysValues | None]) -> tuple[Array, KeysValues]:
            prompt_keys_values, past = own
            new = layer.keys_values(states, by)
            present = new if past is None else _append(past, new, offset)
            contexts = [Context(*prompt_keys_values, prompt_mask), Context(*present, mask)]
            return layer(states, by, contexts), present

        if self._stacks:

            def teacher_forced(layer: Layer, states: Array, own: KeysValues) -> tuple[Array, None]:
                return call(layer, states, (own, None))[0], None

            states, _ = self._map_layers(teacher_forced, states, prompt.layers)
            return self.norm(states), Cache((), slot_position, offset + length)
        past = (None,) * len(self.layers) if cache is None else cache.layers
        present = []
        for layer, own in zip(self.layers, zip(prompt.layers, past, strict=True), strict=True):
            states, keys_values = call(layer, states, own)
            present.append(keys_values)
        return self.norm(states), Cache(tuple(present), slot_position, offset + length)

    def logits(self, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]:
        """Logits of the token after each state."""
        states = constrain(states, self.config.sharding)
        return self.word.attend(states) if self.config.tied_head else self.head(states)

    @property
    def _stacks(self) -> bool:
        """Whether the layers run as in training, with their keys and values stacked."""
        return self.config.is_for_training and not self.is_initializing()

    def _map_layers(self, call: Any, states: Array, inputs: Any) -> Any:
        c = self.config
        return map_layers(self.layers, call, states, inputs, scan=c.scan, remat=c.remat, key=None, dtype=c.dtype)


@lru_cache
def generator(config: DecoderConfig) -> Generator:
    """The network as pure functions of its parameters; the same ones per config, so that they compile once.

    The family is trained without dropout: keys are ignored.
    """
    module = Decoder(config)

    def encode(params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None) -> Any:
        del key
        return module.apply({"params": params}, inputs, method=Decoder.encode)

    def decode(params, decoder_inputs, encoded, cache=None, positions=None, key: DropoutKey = None):
        del key
        return module.apply({"params": params}, decoder_inputs, encoded, cache, positions, method=Decoder.decode)

    def logits(params: Params, states: Array) -> Any:
        return module.apply({"params": params}, states, method=Decoder.logits)

    def empty_cache(rows: int, slots: int) -> Cache:
        values = jnp.zeros((rows, config.num_kv_heads, slots, config.d), config.dtype)
        layers = ((jnp.swapaxes(values, 2, 3), values),) * config.decoder_layers
        return Cache(layers, jnp.zeros((rows, slots), jnp.int32), jnp.int32(0))

    return Generator(encode, decode, logits, empty_cache)


def init(config: DecoderConfig, key: Array) -> Params:
    """Random parameters."""
    ids = jnp.zeros((1, 2), jnp.int32)
    return Decoder(config).init(key, Tokens(ids, jnp.full(1, 2, jnp.int32)), ids)["params"]


def _before(config: DecoderConfig, query: Int[Array, "#R T"], key: Int[Array, "#R S"]) -> Bool[Array, "#R T S"]:
    """Whether each query attends to each key of a sequence, by their positions; -1: there is no key."""
    exists = (key >= 0)[:, None, :] & (key[:, None, :] <= query[:, :, None])
    return exists & _within_window(config, query, key)


def _within_window(config: DecoderConfig, query: Int[Array, "#R T"], key: Int[Array, "#R S"]) -> Bool[Array, "#R T S"]:
    """Whether each key is among the last `window` positions of each query."""
    distance = query[:, :, None] - key[:, None, :]
    return distance < (jnp.iinfo(jnp.int32).max if config.window is None else config.window)


def _sequential(offset: Int[Array, ""], length: int, slots: int) -> DecoderPositions:
    """Positions of a sequence that follows the first `offset` slots, with a causal mask."""
    position = offset + jnp.arange(length, dtype=jnp.int32)
    return DecoderPositions(position[None, :], (jnp.arange(slots)[None, :] <= position[:, None])[None, :, :])


def _append(past: KeysValues, new: KeysValues, offset: Int[Array, ""]) -> KeysValues:
    """Write new keys and values into the slots from `offset` on."""
    return _write(past[0], new[0], offset, axis=3), _write(past[1], new[1], offset, axis=2)


def _write(old: Array, update: Array, offset: Int[Array, ""], axis: int) -> Any:
    return jax.lax.dynamic_update_slice_in_dim(old, update.astype(old.dtype), offset, axis=axis)


def _dense(config: DecoderConfig, features: int, name: str | None) -> nn.Dense:
    init = nn.initializers.normal(config.init_std)
    return nn.Dense(features, use_bias=False, dtype=config.dtype, kernel_init=init, name=name)


def flops(config: DecoderConfig, inputs: float, targets: float) -> float:
    """FLOPs of one row's forward pass in matrix products: two per weight and token, and those of attention.

    The last layer computes only keys and values of a prompt, since nothing reads its states.
    """
    c, s, t = config, inputs, targets
    queries, keys_values = 4 * c.width * c.heads * c.d, 4 * c.width * c.num_kv_heads * c.d  # per token, with `out`
    token = queries + keys_values + 6 * c.width * c.ffn_width
    attended = min(s, c.window or s) / 2
    prompt = (c.decoder_layers - 1) * s * (token + 4 * attended * c.heads * c.d) + s * keys_values
    answer = c.decoder_layers * t * (token + 4 * (2 * attended + t / 2) * c.heads * c.d)
    return prompt + answer + 2 * t * c.width * c.vocab_size


def describe(config: DecoderConfig) -> str:
    """Family, number of layers, and width."""
    return f"{config.model_type} {config.decoder_layers} x {config.width}"


PARTITION_RULES = (
    (r"word/embedding$", PartitionSpec("tensor", "fsdp")),
    (r"(query|key|value|gate|up|head)/kernel$", PartitionSpec("fsdp", "tensor")),  # by columns
    (r"(query|key|value)/bias$", PartitionSpec("tensor")),
    (r"(out|down)/kernel$", PartitionSpec("tensor", "fsdp")),  # by rows
)
ARCHITECTURE = Architecture(
    "llama",
    DecoderConfig,
    init,
    generator,
    flops,
    describe,
    PARTITION_RULES,
    SpecialTokens(bos=None, pad="</s>", eos="</s>", start="</s>", others=("<unk>",)),  # of a new vocabulary
    PromptTemplates("{title}\n{text}", "\n\nQuestion: {question}\nAnswer:"),
    is_decoder_only=True,
)
