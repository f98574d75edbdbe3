"""What encoder-decoder networks share: the encoded inputs and their fusion, and pure functions of the parameters.

`encode` returns a `Memory`: the keys and values of cross-attention, computed once per row. `decode` takes and returns a
cache with the keys and values of the decoder's self-attention (`rag_jax.models.cache_slots`).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.models.attention import WEIGHTS
from rag_jax.types import DropoutKey, EmptyCache, Generator, PackedInputs, Params, Tokens

CrossKeysValues = tuple[Float[Array, "R H d S"], Float[Array, "R H S d"]]  # of the encoded inputs


class Memory(NamedTuple):
    """The encoded inputs: each decoder layer's cross-attention keys and values.

    With a config for training: the encoder's states, from which each layer computes its own.
    """

    layers: tuple[CrossKeysValues, ...] | Float[Array, "R S width"]
    mask: Bool[Array, "R S"]


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
    """A module with the methods `encode`, `decode`, `project` and `logits` as pure functions of its parameters.

    Cross-attention is the submodule `cross` of each decoder layer.
    """

    def encode(params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None) -> Any:
        return module.apply({"params": params}, inputs, key is None, rngs=_rngs(key), method="encode")

    def decode(params, decoder_inputs, encoded, cache=None, positions=None, key: DropoutKey = None):
        arguments = decoder_inputs, encoded, cache, positions, key is None
        return module.apply({"params": params}, *arguments, rngs=_rngs(key), method="decode")

    def logits(params: Params, states: Array) -> Any:
        return module.apply({"params": params}, states, method="logits")

    def cross_attention(params: Params, decoder_inputs: Int[Array, "R T"], encoded: Memory) -> Float[Array, "R T S"]:
        variables = {"params": params}
        if not isinstance(encoded.layers, tuple):  # only layers one by one keep their weights
            encoded = module.apply(variables, *encoded, method="project")  # pyright: ignore[reportAssignmentType]
        arguments = decoder_inputs, encoded, None, None, True
        _, kept = module.apply(variables, *arguments, method="decode", mutable=WEIGHTS)
        layers = (layer["cross"]["weights"][0] for layer in kept[WEIGHTS].values())
        return jnp.mean(jnp.stack([jnp.mean(weights, axis=1) for weights in layers]), axis=0)

    return Generator(encode, decode, logits, empty_cache, fuse, cross_attention)


def init(module: nn.Module, key: Array) -> Params:
    """Random parameters of a module that encodes and decodes when it is called."""
    ids = jnp.zeros((1, 2), jnp.int32)
    return module.init(key, Tokens(ids, jnp.full(1, 2, jnp.int32)), ids)["params"]


def _rngs(key: DropoutKey) -> dict[str, Array]:
    return {} if key is None else {"dropout": key}
