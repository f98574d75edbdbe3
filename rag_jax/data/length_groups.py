"""Texts of similar length in one group, and the texts of a group packed.

Texts vary in length: padded to the longest, half of a batch would be padding. Packed (`rag_jax.core.packing`), only
attention sees it, and in groups of similar length it sees little.
"""

from collections.abc import Sequence, Sized
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from rag_jax.types import PackedInputs, Tokens, host

Text = TypeVar("Text", bound=Sized)  # its length is the number of its tokens


def grouped(texts: Sequence[Text], num_groups: int, num_packs: int) -> tuple[list[list[Text]], Int[np.ndarray, " M"]]:
    """Texts sorted by length and cut into groups of equal size, and the place of each in them.

    A group's texts are dealt to its packs in turn, forwards and backwards, so that all are about as full.
    """
    ascending = np.argsort([len(each) for each in texts], kind="stable")
    order = dealt(ascending.reshape(num_groups, -1), num_packs).reshape(num_groups, -1)
    place = np.empty(len(texts), np.int32)
    place[order.reshape(-1)] = np.arange(len(texts), dtype=np.int32)
    return [[texts[i] for i in members] for members in order.tolist()], place


def fullest(lengths: Int[np.ndarray, " R"], num_packs: int) -> int:
    """The mean length of the rows of the fullest pack, rounded up."""
    return -(-int(np.asarray(lengths).reshape(num_packs, -1).sum(axis=1).max()) // (len(lengths) // num_packs))


def packed(rows: Tokens, num_packs: int, mean: int) -> PackedInputs:
    """`rag_jax.core.packing.pack` on the host, with room for `mean` tokens of each row."""
    count, longest = rows.ids.shape
    mask = np.arange(longest)[None, :] < np.asarray(rows.lengths)[:, None]
    by_pack = mask.reshape(num_packs, -1)
    num_tokens = by_pack.sum(axis=1, dtype=np.int32)
    size = count // num_packs * mean
    source = np.full((num_packs, size), by_pack.shape[1] - 1, np.int32)
    for slots, tokens in zip(source, by_pack, strict=True):
        slots[: tokens.sum()] = np.flatnonzero(tokens)
    slot = (np.cumsum(by_pack, axis=1, dtype=np.int32) - 1).reshape(mask.shape)
    return PackedInputs(rows, host(source), host(slot), host(num_tokens))


def dealt(ascending: Int[np.ndarray, "groups size"], num_packs: int) -> Int[np.ndarray, "groups packs rows"]:
    """Each group's values dealt to packs in turn, forwards and backwards."""
    dealt = ascending.reshape(len(ascending), -1, num_packs).copy()
    dealt[:, 1::2] = dealt[:, 1::2, ::-1]
    return dealt.swapaxes(1, 2)
