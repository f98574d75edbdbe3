"""A rolling buffer of keys and values, for prompts that are read in chunks (Jiang et al. 2023, section 2).

The key of position `p` is in slot `p mod W`, so that with a sliding window W the buffer holds the last W positions, and
memory does not grow with the prompt. Without a window W is the prompt's length, and nothing is overwritten.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from rag_jax.models.grouped_attention import KeysValues
from rag_jax.types import Tokens


class RollingBuffer(NamedTuple):
    """Each layer's keys and values of the last W positions."""

    layers: tuple[KeysValues, ...]
    position: Int[Array, "R W"]  # of the key in each slot; -1: none yet


def empty(shape: tuple[int, int, int, int], num_layers: int, dtype: Any) -> RollingBuffer:
    """An empty buffer for values of shape `[R, G, W, d]`."""
    values = jnp.zeros(shape, dtype)
    layers = ((jnp.swapaxes(values, 2, 3), values),) * num_layers
    return RollingBuffer(layers, jnp.full((shape[0], shape[2]), -1, jnp.int32))


def write(buffer: RollingBuffer, new: tuple[KeysValues, ...], position: Int[Array, "R C"]) -> RollingBuffer:
    """Write a chunk's keys and values into their slots; those of position -1, padding, are left out.

    A chunk is not longer than the buffer and its positions follow one another, so that no two share a slot.
    """
    size = buffer.position.shape[1]
    slot = jnp.where(position >= 0, position % size, size)  # beyond the end: dropped

    def put(old: Shaped[Array, "R W *rest"], update: Shaped[Array, "R C *rest"]) -> Shaped[Array, "R W *rest"]:
        return jax.vmap(lambda row, at, each: row.at[at].set(each, mode="drop"))(old, slot, update)

    def put_layer(old: KeysValues, update: KeysValues) -> KeysValues:
        keys = _along(put, old[0], update[0], axis=3)
        return keys, _along(put, old[1], update[1], axis=2)

    layers = tuple(put_layer(old, update) for old, update in zip(buffer.layers, new, strict=True))
    return RollingBuffer(layers, put(buffer.position, position))


def scan_chunks(
    read: Callable[[RollingBuffer, Tokens, Int[Array, ""]], RollingBuffer],
    buffer: RollingBuffer,
    prompts: Tokens,
    chunk: int,
) -> RollingBuffer:
    """`buffer = read(buffer, piece, start)` over pieces of `chunk` tokens; the last one is padded."""
    rows, length = prompts.ids.shape
    count = -(-length // chunk)
    ids = jnp.pad(prompts.ids, ((0, 0), (0, count * chunk - length))).reshape(rows, count, chunk)
    starts = chunk * jnp.arange(count, dtype=jnp.int32)

    def step(buffer: RollingBuffer, piece: tuple[Int[Array, "R chunk"], Int[Array, ""]]):
        ids, start = piece
        return read(buffer, Tokens(ids, jnp.clip(prompts.lengths - start, 0, chunk)), start), None

    return jax.lax.scan(step, buffer, (jnp.moveaxis(ids, 1, 0), starts))[0]


def _along(put: Callable, old: Float[Array, "..."], update: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    return jnp.moveaxis(put(jnp.moveaxis(old, axis, 1), jnp.moveaxis(update, axis, 1)), 1, axis)
