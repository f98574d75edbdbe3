"""Inputs without their padding: what is done to each token alone is done in lines, attention in rows.

Passages differ in length, and most of an encoder's products are of one token each. Rows `[R, S]` are laid one after the
other into `G` lines of `N` places, each line with its share of the rows, so that a mesh keeps every token on the device
of its question. Only attention, which is between the tokens of a row, is computed in rows.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from rag_jax.types import PackedInputs, Tokens


def pack(inputs: Tokens, num_packs: int, size: int) -> PackedInputs:
    """Rows `[R, S]` as `lines` of `size` places. The caller sees to it that no line's rows hold more tokens."""
    count = jnp.cumsum(inputs.mask.reshape(num_packs, -1), axis=1, dtype=jnp.int32)
    ordinal = jnp.arange(1, size + 1, dtype=jnp.int32)
    token = jax.vmap(lambda each: jnp.searchsorted(each, ordinal))(count).astype(jnp.int32)
    last = jnp.int32(count.shape[1] - 1)
    return PackedInputs(inputs, jnp.minimum(token, last), (count - 1).reshape(inputs.ids.shape), count[:, -1])


def pack_at_lengths(
    inputs: Tokens, num_packs: int, lengths: tuple[int, ...]
) -> tuple[list[Tokens | PackedInputs], Int[Array, ""]]:
    """Inputs `[B, K, S]` packed with room for each of the `lengths` per row, then unpacked; which is the shortest.

    `lengths` ascend; those of S or more are left out. The returned index is that of the first in which all tokens fit.
    """
    rows = Tokens(inputs.ids.reshape(-1, inputs.ids.shape[-1]), inputs.lengths.reshape(-1))
    rows_per_pack = rows.lengths.shape[0] // num_packs
    sizes = [rows_per_pack * length for length in lengths if length < inputs.ids.shape[2]]
    longest = jnp.max(jnp.sum(rows.lengths.reshape(num_packs, rows_per_pack), axis=1))
    shortest = jnp.sum(longest > jnp.asarray(sizes, longest.dtype))
    return [*(pack(rows, num_packs, size) for size in sizes), inputs], shortest


def to_packs(packed: PackedInputs | None, rows: Shaped[Array, "R S *rest"]) -> Shaped[Array, "G N *rest"]:
    """Of each place in a line what stands in the rows; zeros behind the last token. None: rows are lines."""
    if packed is None:
        return rows
    groups = packed.source.shape[0]
    flat = rows.reshape(groups, -1, *rows.shape[2:])
    return _moved(flat, packed.source, _filled(packed), _place(packed), packed.inputs.mask.reshape(groups, -1))


def to_rows(packed: PackedInputs | None, lines: Shaped[Array, "G N *rest"]) -> Shaped[Array, "R S *rest"]:
    """Of each token in the rows what stands in its line; zeros on padding. None: lines are rows."""
    if packed is None:
        return lines
    shape, groups = packed.inputs.ids.shape, packed.source.shape[0]
    found = _moved(lines, _place(packed), packed.inputs.mask.reshape(groups, -1), packed.source, _filled(packed))
    return found.reshape(*shape, *lines.shape[2:])


def row_positions(packed: PackedInputs) -> Int[Array, "G N"]:
    """How many tokens of its row come before each token of a line."""
    return packed.source % packed.inputs.ids.shape[1]


def row_indices(packed: PackedInputs) -> Int[Array, "G N"]:
    """The number of each token in a line among all places of the rows."""
    groups, places = packed.source.shape[0], packed.inputs.ids.size // packed.source.shape[0]
    return packed.source + places * jnp.arange(groups, dtype=jnp.int32)[:, None]


def _place(packed: PackedInputs) -> Int[Array, "G rows"]:
    """Padding is given the place of the token before it, or the first one."""
    return jnp.maximum(packed.slot.reshape(packed.source.shape[0], -1), 0)


def _filled(packed: PackedInputs) -> Bool[Array, "G N"]:
    return jnp.arange(packed.source.shape[1])[None, :] < packed.num_tokens[:, None]


@jax.custom_vjp
def _moved(
    values: Shaped[Array, "G old *rest"],
    source: Int[Array, "G new"],
    kept: Bool[Array, "G new"],
    target: Int[Array, "G old"],
    used: Bool[Array, "G old"],
) -> Shaped[Array, "G new *rest"]:
    """`values[source]` where `kept`. Each value that is `used` goes to one place, its `target`.

    So that the gradient is gathered as well: a compiler that knows only `source` would have to add up.
    """
    del target, used
    return _gathered(values, source, kept)


def _gathered(
    values: Shaped[Array, "G old *rest"], source: Int[Array, "G new"], kept: Bool[Array, "G new"]
) -> Shaped[Array, "G new *rest"]:
    found = jax.vmap(lambda each, at: each.at[at].get(mode="promise_in_bounds"))(values, source)
    return jnp.where(kept.reshape(*kept.shape, *(1,) * (values.ndim - 2)), found, jnp.zeros((), found.dtype))


def _forward(values, source, kept, target, used):
    return _gathered(values, source, kept), (target, used)


def _backward(kept, gradient):
    target, used = kept
    return _gathered(gradient, target, used), None, None, None, None


_moved.defvjp(_forward, _backward)
