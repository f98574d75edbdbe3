"""Batches as arrays: conversations in packed groups of similar length, with the places of what is predicted.

All batches have the usual sizes, or twice them, or four times …: a new size is a new compilation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from rag_jax.config.instruction import InstructionConfig
from rag_jax.data.chats import Example
from rag_jax.data.length_groups import fullest, grouped, packed
from rag_jax.data.tokenizers import pad
from rag_jax.types import Conversations, host

BATCHES = 256  # random batches, of whose sizes the usual ones are taken
FITTING = 0.99  # of the batches have the usual size of a group
NO_EXAMPLE = Example("", "", np.zeros(1, np.int32), np.zeros(0, np.int32))  # fills up a batch


class Size(NamedTuple):
    """Sizes of a group of conversations, in tokens."""

    longest: int  # that each is padded to
    mean: int  # of each that a pack has room for, in the mean
    targets: int  # of each that are predicted, in the mean


class Layout(NamedTuple):
    """The usual sizes of a batch."""

    groups: tuple[Size, ...]  # ascending
    num_packs: int  # of each group: the devices that a batch is spread over, times the microbatches
    num_microbatches: int
    max_length: int

    def __call__(self, examples: Sequence[Example]) -> tuple[Conversations, ...]:
        """The batch of some examples, in any order."""
        groups, _ = grouped(examples, len(self.groups), self.num_packs)
        needed = [_size(group, self.num_packs) for group in groups]
        ratio = max(np.max(np.divide(*sizes)) for sizes in zip(needed, self.groups, strict=True))
        times = 2 ** max(0, int(np.ceil(np.log2(ratio))))
        return tuple(
            self._conversations(group, self._scaled(size, times))
            for group, size in zip(groups, self.groups, strict=True)
        )

    def _scaled(self, size: Size, times: int) -> Size:
        longest = min(times * size.longest, self.max_length)
        return Size(longest, *(min(times * each, longest) for each in size[1:]))

    def _conversations(self, examples: Sequence[Example], size: Size) -> Conversations:
        rows = pad([example.tokens.tolist() for example in examples], size.longest, 0)
        of_pack = len(examples) // self.num_packs
        before, targets = np.zeros((2, self.num_packs, of_pack * size.targets), np.int32)
        mask = np.zeros(before.shape, bool)
        for pack in range(self.num_packs):
            own = examples[pack * of_pack : (pack + 1) * of_pack]
            places = np.concatenate([row * size.longest + each.targets - 1 for row, each in enumerate(own)])
            before[pack, : len(places)], mask[pack, : len(places)] = places, True
            targets[pack, : len(places)] = np.concatenate([each.tokens[each.targets] for each in own])
        found = Conversations(packed(rows, self.num_packs, size.mean), host(before), host(targets), host(mask))
        return jax.tree.map(self._interleaved, found)

    def _interleaved(self, leaf: np.ndarray) -> np.ndarray:
        """The packs of the microbatches by turns, as `rag_jax.core.microbatches.split` takes them apart."""
        by_part = np.reshape(leaf, (self.num_microbatches, -1, *leaf.shape[1:]))
        return np.ascontiguousarray(np.swapaxes(by_part, 0, 1)).reshape(leaf.shape)


def usual_layout(config: InstructionConfig, examples: Sequence[Example]) -> Layout:
    """The layout that nearly all batches fit, of examples such as these."""
    parts = config.compute.accumulate
    num_packs = config.mesh.data * config.mesh.fsdp * parts
    rng, sizes = np.random.default_rng(0), []
    for _ in range(BATCHES):
        drawn = [examples[i] for i in rng.integers(len(examples), size=config.batch_size)]
        sizes.append([_size(group, num_packs) for group in grouped(drawn, config.length_groups, num_packs)[0]])
    usual = np.ceil(np.quantile(np.asarray(sizes), FITTING, axis=0)).astype(int)
    return Layout(tuple(Size(*each) for each in usual.tolist()), num_packs, parts, config.generator.max_length)


def batched(examples: Sequence[Example], size: int) -> list[list[Example]]:
    """Examples in batches of a size, the last one filled up."""
    filled = [*examples, *[NO_EXAMPLE] * (-len(examples) % size)]
    return [filled[start : start + size] for start in range(0, len(filled), size)]


def _size(group: Sequence[Example], num_packs: int) -> Size:
    """The sizes that a group needs, one token of each kind at least."""
    lengths, targets = np.asarray([(len(each), len(each.targets)) for each in group]).T
    return Size(int(lengths.max()), fullest(lengths, num_packs), max(1, fullest(targets, num_packs)))
