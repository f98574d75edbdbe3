"""The Llama family of decoder-only generators (Touvron et al. 2023, Jiang et al. 2023, Yang et al. 2025).

RMSNorm, rotary positions, grouped queries, SwiGLU; with Mistral's sliding window, Qwen2's biases and Qwen3's norms of
queries and keys. `encode` is the prefill: the keys and values of the prompt, which all answers of a row share. `decode`
appends tokens of answers, whose own keys and values are in the cache; one softmax runs over both.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.packing import append, to_packs, to_rows, unpacked
from rag_jax.models import cache_slots, rolling_buffer
from rag_jax.models.architecture import Architecture, PromptTemplates, SpecialTokens
from rag_jax.models.decoder_layer import DecoderConfig, Layer, dense
from rag_jax.models.dense import attend
from rag_jax.models.grouped_attention import Context, KeysValues
from rag_jax.models.layers import constrain, run_layers
from rag_jax.models.norm import RMSNorm
from rag_jax.models.rolling_buffer import RollingBuffer
from rag_jax.models.rope import Rotation, rotation
from rag_jax.types import DecoderPositions, DropoutKey, Generator, PackedInputs, Params, Tokens


class Prompt(NamedTuple):
    """The encoded prompts: each layer's keys and values."""

    layers: tuple[KeysValues, ...]
    position: Int[Array, "R S"]  # of each key; -1: none
    lengths: Int[Array, " R"]


class Causal(NamedTuple):
    """Tokens of which each attends to those before it."""

    packed: PackedInputs | None
    rows: Tokens
    by: Rotation
    position: Int[Array, "1 S"]
    mask: Bool[Array, "R S S"]


class Cache(NamedTuple):
    """Each layer's keys and values of the answers' tokens; the first `length` slots are filled."""

    layers: tuple[KeysValues, ...]
    position: Int[Array, "R slots"]  # in the whole text; siblings in a tree have the same
    length: Int[Array, ""]


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
            self.head = dense(c, c.vocab_size, None)

    def __call__(self, inputs: Tokens, ids: Int[Array, "R T"]):
        """Use every parameter once, to initialise them."""
        self.encode(inputs)
        return self.logits(self.norm(self.word(ids)))

    def encode(self, inputs: Tokens | PackedInputs) -> Prompt:
        """The keys and values of the prompts; of their last `window` tokens where they are longer."""
        sizes = () if self.is_initializing() else (self.config.prefill_chunk, self.config.window)
        chunk = min((each for each in sizes if each is not None), default=None)
        if isinstance(inputs, Tokens) and chunk is not None and chunk < inputs.ids.shape[1]:
            return self._encode_in_chunks(inputs, chunk)
        packed, rows, by, position, mask = self._causal(inputs)
        states, layers = self.word(to_packs(packed, rows.ids)), []
        for layer in self.layers:
            normed, (keys, values) = layer.project(states, by, packed)
            states = layer(states, normed, by, [Context(keys, values, mask, is_causal=True)], packed)
            layers.append((keys, values))
        return Prompt(tuple(layers), jnp.where(rows.mask, position, -1), rows.lengths)

    def read(self, inputs: Tokens | PackedInputs) -> Float[Array, "R S width"]:
        """The states of the tokens, of which no keys or values are kept."""
        return self.norm(self._read(inputs))

    def read_targets(self, inputs: Tokens | PackedInputs, ids: Int[Array, "R T"]) -> Float[Array, "R T width"]:
        """The states of `ids` behind the prompts, of which no keys or values are kept."""
        lengths = unpacked(inputs).lengths
        at = lengths[:, None] + jnp.arange(ids.shape[1], dtype=lengths.dtype)[None, :]
        return self.norm(jnp.take_along_axis(self._read(append(inputs, ids)), at[:, :, None], axis=1))

    def _read(self, inputs: Tokens | PackedInputs) -> Float[Array, "R S width"]:
        """The states after the last layer."""
        c = self.config
        packed, rows, by, _, mask = self._causal(inputs)

        def call(layer: Any, states: Array) -> Array:
            normed, (keys, values) = layer.project(states, by, packed)
            return layer(states, normed, by, [Context(keys, values, mask, is_causal=True)], packed)

        states = self.word(to_packs(packed, rows.ids))
        states = run_layers(self.layers, call, states, scan=c.scan, remat=c.remat, key=None, dtype=c.dtype)
        return to_rows(packed, states)

    def _causal(self, inputs: Tokens | PackedInputs) -> Causal:
        """What every layer needs to know of tokens that each attend to those before them."""
        packed = inputs if isinstance(inputs, PackedInputs) else None
        rows = unpacked(inputs)
        position = jnp.arange(rows.ids.shape[1], dtype=jnp.int32)[None, :]
        mask = _before(self.config, position, position) & rows.mask[:, None, :]
        return Causal(packed, rows, rotation(self.config.rope, self.config.d, position), position, mask)

    def _encode_in_chunks(self, prompts: Tokens, chunk: int) -> Prompt:
        """Read the prompts in pieces: each attends to itself and to a buffer of the tokens before it."""
        c = self.config
        window = min(c.window or prompts.ids.shape[1], prompts.ids.shape[1])
        chunk = min(chunk, window)
        heads = (prompts.ids.shape[0], c.num_kv_heads, window, c.d)
        empty = rolling_buffer.empty(heads, c.decoder_layers, c.dtype)
        modules: tuple[Any, ...] = self.word, *self.layers
        unbound = [each.clone(parent=None, name=None) for each in modules]
        params = [each.variables for each in modules]

        def read(buffer: RollingBuffer, piece: Tokens, start: Int[Array, ""]) -> RollingBuffer:
            # flax modules are bound inside the scan in which they are called.
            word, *layers = (each.bind(own) for each, own in zip(unbound, params, strict=True))
            position = start + jnp.arange(piece.ids.shape[1], dtype=jnp.int32)
            position = jnp.where(piece.mask, position[None, :], -1)
            by = rotation(c.rope, c.d, position)
            own = _before(c, position, position)
            past = _before(c, position, buffer.position)
            states, written = word(piece.ids), []
            layer: Any
            for layer, (keys, values) in zip(layers, buffer.layers, strict=True):
                normed, new = layer.project(states, by)
                states = layer(states, normed, by, [Context(keys, values, past), Context(new[0], new[1], own)])
                written.append(new)
            return rolling_buffer.write(buffer, tuple(written), position)

        buffer = rolling_buffer.scan_chunks(read, empty, prompts, chunk)
        return Prompt(buffer.layers, buffer.position, prompts.lengths)

    def decode(
        self, ids: Int[Array, "R T"], prompt: Prompt, cache: Cache | None, positions: DecoderPositions | None
    ) -> tuple[Float[Array, "R T width"], Cache]:
        """The states of `ids`, which follow the cache's tokens or are placed by `positions`, and the extended cache.

        Their positions in the text begin behind each row's own prompt.
        """
        rows, length = ids.shape
        offset, past, (behind_prompt, visible) = cache_slots.begin(cache, length, len(self.layers), positions)
        position = jnp.broadcast_to(prompt.lengths[:, None] + behind_prompt, (rows, length)).astype(jnp.int32)
        slot_position = position if cache is None else cache_slots.write_positions(cache.position, position, offset)
        by = rotation(self.config.rope, self.config.d, position)
        prompt_mask = _before(self.config, position, prompt.position)
        mask = visible & _within_window(self.config, position, slot_position)
        states, present = self.word(ids), []
        for layer, prompt_keys_values, layer_past in zip(self.layers, prompt.layers, past, strict=True):
            normed, new = layer.project(states, by)
            keys, values = cache_slots.write(layer_past, new, offset)
            contexts = [Context(*prompt_keys_values, prompt_mask), Context(keys, values, mask)]
            states = layer(states, normed, by, contexts)
            present.append((keys, values))
        return self.norm(states), Cache(tuple(present), slot_position, offset + length)

    def logits(self, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]:
        """Logits of the token after each state."""
        states = constrain(states, self.config.sharding)
        return attend(self.word, states) if self.config.tied_head else self.head(states)


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

    def read_targets(
        params: Params, inputs: Tokens | PackedInputs, decoder_inputs: Array, key: DropoutKey = None
    ) -> Any:
        del key
        return module.apply({"params": params}, inputs, decoder_inputs, method=Decoder.read_targets)

    def read(params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None) -> Any:
        del key
        return module.apply({"params": params}, inputs, method=Decoder.read)

    def empty_cache(rows: int, slots: int) -> Cache:
        layer = cache_slots.empty_slots(rows, config.num_kv_heads, slots, config.d, config.dtype)
        return Cache((layer,) * config.decoder_layers, jnp.zeros((rows, slots), jnp.int32), jnp.int32(0))

    return Generator(encode, decode, logits, empty_cache, read_targets=read_targets, read=read)


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


ARCHITECTURE = Architecture(
    "llama",
    DecoderConfig,
    init,
    generator,
    flops,
    describe,
    # of a new vocabulary
    special_tokens=SpecialTokens(bos=None, pad="</s>", eos="</s>", start="</s>", others=("<unk>",)),
    prompt=PromptTemplates("{title}\n{text}", "\n\nQuestion: {question}\nAnswer:", "\n\n"),
    is_decoder_only=True,
)
