"""The slots of a decoder's cache: the keys and values of the answers' tokens, in the order in which they were read."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rag_jax.types import DecoderPositions

KeysValues = tuple[Float[Array, "R H d slots"], Float[Array, "R H slots d"]]
"""Of one layer; H is the number of heads that have keys."""


def empty_slots(rows: int, heads: int, slots: int, head_width: int, dtype: Any) -> KeysValues:
    """One layer's keys and values before any token was read."""
    values = jnp.zeros((rows, heads, slots, head_width), dtype)
    return jnp.swapaxes(values, 2, 3), values


def write(past: KeysValues, new: tuple[Array, Array], offset: Int[Array, ""]) -> KeysValues:
    """Write new keys and values into the slots from `offset` on."""
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
