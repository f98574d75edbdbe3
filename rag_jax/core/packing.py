"""Pack inputs of different lengths without padding: token-wise layers run on packs, attention runs on rows.

Rows `[R, S]` are concatenated into `G` packs of `N` slots, `R / G` consecutive rows to a pack, so that on a mesh every
token stays on the device of its question. Most of an encoder's work is token-wise; only attention, which mixes the
tokens of a row, unpacks them.

    rows   `[R, S]`, padded
    packs  `[G, N]`, with padding only at the end; `source` maps a slot to its token, `slot` a token to its slot
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

from rag_jax.types import PackedInputs, Tokens


def pack(inputs: Tokens, num_packs: int, size: int) -> PackedInputs:
    """Pack rows `[R, S]` into `num_packs` packs of `size` slots. No pack's rows may have more tokens than that."""
    count = jnp.cumsum(inputs.mask.reshape(num_packs, -1), axis=1, dtype=jnp.int32)
    ordinal = jnp.arange(1, size + 1, dtype=jnp.int32)
    token = jax.vmap(lambda each: jnp.searchsorted(each, ordinal))(count).astype(jnp.int32)
    last = jnp.int32(count.shape[1] - 1)
    return PackedInputs(inputs, jnp.minimum(token, last), (count - 1).reshape(inputs.ids.shape), count[:, -1])


def pack_at_lengths(
    inputs: Tokens, num_packs: int, lengths: tuple[int, ...]
) -> tuple[list[Tokens | PackedInputs], Int[Array, ""]]:
    """Inputs `[B, K, S]` packed with room for each of the `lengths` per row, then unpacked; and the shortest of these.

    `lengths` ascend; those of S or more are left out. The returned index is that of the first in which all tokens fit.
    """
    shorter = [length for length in lengths if length < inputs.ids.shape[2]]
    if not shorter:
        return [inputs], jnp.int32(0)  # any number of rows, on any mesh
    rows = Tokens(inputs.ids.reshape(-1, inputs.ids.shape[-1]), inputs.lengths.reshape(-1))
    rows_per_pack = rows.lengths.shape[0] // num_packs
    sizes = [rows_per_pack * length for length in shorter]
    longest = jnp.max(jnp.sum(rows.lengths.reshape(num_packs, rows_per_pack), axis=1))
    shortest = jnp.sum(longest > jnp.asarray(sizes, longest.dtype))
    return [*(pack(rows, num_packs, size) for size in sizes), inputs], shortest


def unpacked(inputs: Tokens | PackedInputs) -> Tokens:
    """The rows, whether they are packed or not."""
    return inputs.inputs if isinstance(inputs, PackedInputs) else inputs


def append(inputs: Tokens | PackedInputs, targets: Int[Array, "R T"]) -> Tokens | PackedInputs:
    """A target behind the tokens of every row; packs have as much more room."""
    rows = unpacked(inputs)
    count, length = targets.shape
    at = rows.lengths[:, None] + jnp.arange(length, dtype=rows.lengths.dtype)[None, :]
    room = jnp.pad(rows.ids, ((0, 0), (0, length)))
    ids = room.at[jnp.arange(count)[:, None], at].set(targets.astype(room.dtype))
    longer = Tokens(ids, rows.lengths + length)
    if not isinstance(inputs, PackedInputs):
        return longer
    num_packs, size = inputs.source.shape
    return pack(longer, num_packs, size + count // num_packs * length)


def to_packs(packed: PackedInputs | None, rows: Shaped[Array, "R S *rest"]) -> Shaped[Array, "G N *rest"]:
    """Gather values of rows into packs; zeros on padding. None: inputs are not packed, and rows are packs."""
    if packed is None:
        return rows
    num_packs = packed.source.shape[0]
    flat = rows.reshape(num_packs, -1, *rows.shape[2:])
    return _permute(flat, packed.source, _mask(packed), _slots(packed), packed.inputs.mask.reshape(num_packs, -1))


def to_rows(packed: PackedInputs | None, packs: Shaped[Array, "G N *rest"]) -> Shaped[Array, "R S *rest"]:
    """Gather values of packs into rows; zeros on padding. None: inputs are not packed, and packs are rows."""
    if packed is None:
        return packs
    shape, num_packs = packed.inputs.ids.shape, packed.source.shape[0]
    rows = _permute(packs, _slots(packed), packed.inputs.mask.reshape(num_packs, -1), packed.source, _mask(packed))
    return rows.reshape(*shape, *packs.shape[2:])


def row_positions(packed: PackedInputs) -> Int[Array, "G N"]:
    """The position in its row of each token of a pack."""
    return packed.source % packed.inputs.ids.shape[1]


def row_indices(packed: PackedInputs) -> Int[Array, "G N"]:
    """The index of each token of a pack in the flattened rows `[R * S]`."""
    num_packs = packed.source.shape[0]
    tokens_per_pack = packed.inputs.ids.size // num_packs
    return packed.source + tokens_per_pack * jnp.arange(num_packs, dtype=jnp.int32)[:, None]


def _slots(packed: PackedInputs) -> Int[Array, "G rows"]:
    """The slot of each token of a pack's rows. Padding has the slot of the token before it, or the first one."""
    return jnp.maximum(packed.slot.reshape(packed.source.shape[0], -1), 0)


def _mask(packed: PackedInputs) -> Bool[Array, "G N"]:
    """True where a slot holds a token."""
    return jnp.arange(packed.source.shape[1])[None, :] < packed.num_tokens[:, None]


@jax.custom_vjp
def _permute(
    values: Shaped[Array, "G old *rest"],
    source: Int[Array, "G new"],
    mask: Bool[Array, "G new"],
    target: Int[Array, "G old"],
    target_mask: Bool[Array, "G old"],
) -> Shaped[Array, "G new *rest"]:
    """`values[source]` where `mask`, else zero; `target` and `target_mask` are the inverse.

    With the inverse the backward pass is a gather too, instead of a scatter-add.
    """
    del target, target_mask
    return _gather(values, source, mask)


def _gather(
    values: Shaped[Array, "G old *rest"], source: Int[Array, "G new"], mask: Bool[Array, "G new"]
) -> Shaped[Array, "G new *rest"]:
    gathered = jax.vmap(lambda each, at: each.at[at].get(mode="promise_in_bounds"))(values, source)
    return jnp.where(mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)), gathered, jnp.zeros((), gathered.dtype))


def _forward(values, source, mask, target, target_mask):
    return _gather(values, source, mask), (target, target_mask)


def _backward(residuals, gradient):
    target, target_mask = residuals
    return _gather(gradient, target, target_mask), None, None, None, None


_permute.defvjp(_forward, _backward)
