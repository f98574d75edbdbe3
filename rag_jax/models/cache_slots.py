"""The slots of a decoder's cache: the keys and values of the answers' tokens, in the order in which they were read."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.types import DecoderPositions

KeysValues = tuple[Float[Array, "R H d slots"], Float[Array, "R H slots d"]]
"""Of one layer; H is the number of heads that have keys."""


class Slots(NamedTuple):
    """Where new tokens go in a cache, and what they attend to."""

    offset: Int[Array, ""]  # of the first new token's slot
    past: tuple[KeysValues | None, ...]  # each layer's filled slots; None: there is no cache
    positions: DecoderPositions


def begin(
    cache: Any, length: int, num_layers: int, positions: DecoderPositions | None, is_for_training: bool = False
) -> Slots:
    """The slots of `length` tokens that follow those of `cache`, or are placed by `positions`.

    Args:
        cache: has the keys and values of `layers`, of whose slots the first `length` are filled; None: no cache.
        is_for_training: such layers keep no cache; with one `ValueError` is raised.
    """
    if cache is None:
        positions = sequential(jnp.int32(0), length, length) if positions is None else positions
        return Slots(jnp.int32(0), (None,) * num_layers, positions)
    if is_for_training:
        raise ValueError("with scan or remat there is no cache to decode with: take them out of the config")
    slots = cache.layers[0][1].shape[2]
    positions = sequential(cache.length, length, slots) if positions is None else positions
    return Slots(cache.length, cache.layers, positions)


def empty_slots(rows: int, heads: int, slots: int, head_width: int, dtype: Any) -> KeysValues:
    """One layer's keys and values before any token was read."""
    values = jnp.zeros((rows, heads, slots, head_width), dtype)
    return jnp.swapaxes(values, 2, 3), values


def write(past: KeysValues | None, new: tuple[Array, Array], offset: Int[Array, ""]) -> KeysValues:
    """Write new keys and values into the slots from `offset` on; without a cache they are all there is."""
    if past is None:
        return new
    keys, values = (
        jax.lax.dynamic_update_slice_in_dim(old, update.astype(old.dtype), offset, axis=axis)
        for old, update, axis in zip(past, new, (3, 2), strict=True)
    )
    return keys, values


def write_positions(
    slot_position: Int[Array, "R slots"], position: Int[Array, "#R T"], offset: Int[Array, ""]
) -> Int[Array, "R slots"]:
    """Write the positions of new tokens into the slots from `offset` on; siblings in a tree have the same position."""
    rows = jnp.broadcast_to(position, (slot_position.shape[0], position.shape[1])).astype(slot_position.dtype)
    return jax.lax.dynamic_update_slice_in_dim(slot_position, rows, offset, axis=1)  # pyright: ignore[reportReturnType]


def sequential(offset: Int[Array, ""], length: int, slots: int) -> DecoderPositions:
    """Positions of a sequence that follows the first `offset` slots, with a causal mask."""
    position = offset + jnp.arange(length, dtype=jnp.int32)
    return DecoderPositions(position[None, :], (jnp.arange(slots)[None, :] <= position[:, None])[None, :, :])
