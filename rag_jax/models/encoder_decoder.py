"""What encoder-decoder networks share: the encoded inputs, the slots of the decoder's cache, and pure functions.

`encode` returns a `Memory`: the keys and values of cross-attention, computed once per row. `decode` takes and returns a
cache with the keys and values of the decoder's self-attention, a slot for each token.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.types import DecoderPositions, DropoutKey, EmptyCache, Generator, PackedInputs, Params, Tokens

CrossKeysValues = tuple[Float[Array, "R H d S"], Float[Array, "R H S d"]]  # of the encoded inputs
SelfKeysValues = tuple[Float[Array, "R H d slots"], Float[Array, "R H slots d"]]  # of the decoder's tokens


class Memory(NamedTuple):
    """The encoded inputs: each decoder layer's cross-attention keys and values.

    With a config for training: the encoder's states, from which each layer computes its own.
    """

    layers: tuple[CrossKeysValues, ...] | Float[Array, "R S width"]
    mask: Bool[Array, "R S"]


def empty_slots(rows: int, heads: int, slots: int, head_width: int, dtype: Any) -> SelfKeysValues:
    """One layer's keys and values before any token is read."""
    values = jnp.zeros((rows, heads, slots, head_width), dtype)
    return jnp.swapaxes(values, 2, 3), values


def write(past: SelfKeysValues, new: tuple[Array, Array], offset: Int[Array, ""]) -> SelfKeysValues:
    """Write new keys and values into the slots from `offset` on."""
    keys, values = (
        jax.lax.dynamic_update_slice_in_dim(old, update.astype(old.dtype), offset, axis=axis)
        for old, update, axis in zip(past, new, (3, 2), strict=True)
    )
    return keys, values


def sequential(offset: Int[Array, ""], length: int, slots: int) -> DecoderPositions:
    """Positions of a sequence that follows the first `offset` slots, with a causal mask."""
    position = offset + jnp.arange(length, dtype=jnp.int32)
    return DecoderPositions(position[None, :], (jnp.arange(slots)[None, :] <= position[:, None])[None, :, :])


def fuse(encoded: Memory, exists: Bool[Array, "B K"]) -> Memory:
    """Join the positions of each question's passages: rows `B * K` of S positions become rows `B` of `K * S`."""

    def join(leaf: Array, axis: int) -> Array:
        by_passage = jnp.moveaxis(leaf.reshape(*exists.shape, *leaf.shape[1:]), 1, axis)
        return by_passage.reshape(*by_passage.shape[:axis], -1, *by_passage.shape[axis + 2 :])

    mask = join(encoded.mask & exists.reshape(-1, 1), 1)
    if isinstance(encoded.layers, tuple):
        return Memory(tuple((join(keys, 3), join(values, 2)) for keys, values in encoded.layers), mask)
    return Memory(join(encoded.layers, 1), mask)


def functions(module: nn.Module, empty_cache: EmptyCache) -> Generator:
    """A module with the methods `encode`, `decode` and `logits` as pure functions of its parameters."""

    def encode(params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None) -> Any:
        return module.apply({"params": params}, inputs, key is None, rngs=_rngs(key), method="encode")

    def decode(params, decoder_inputs, encoded, cache=None, positions=None, key: DropoutKey = None):
        arguments = decoder_inputs, encoded, cache, positions, key is None
        return module.apply({"params": params}, *arguments, rngs=_rngs(key), method="decode")

    def logits(params: Params, states: Array) -> Any:
        return module.apply({"params": params}, states, method="logits")

    return Generator(encode, decode, logits, empty_cache, fuse)


def init(module: nn.Module, key: Array) -> Params:
    """Random parameters of a module that encodes and decodes when it is called."""
    ids = jnp.zeros((1, 2), jnp.int32)
    return module.init(key, Tokens(ids, jnp.full(1, 2, jnp.int32)), ids)["params"]


def _rngs(key: DropoutKey) -> dict[str, Array]:
    return {} if key is None else {"dropout": key}
