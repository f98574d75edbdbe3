"""Placing a store on one device, or sharding it over several, as the pytree that compiled programs search and read.

The number of rows is rounded up, so that a store of about the same size fits the programs that are compiled already; no
search returns the padding. Vectors are transferred in blocks: the host holds one block besides the memory maps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from rag_jax.core import retrieval
from rag_jax.core.sharding import sharded
from rag_jax.core.vectors import quantize_int8
from rag_jax.index.columns import SegmentedArray
from rag_jax.index.store import Store
from rag_jax.types import Knowledge, Tokens, Vectors

Precision = Literal["float32", "bfloat16", "int8"]
TRANSFER_ROWS = 65_536  # rows transferred at once
SIZES_PER_OCTAVE = 32  # padded sizes between one power of two and the next


@dataclass(frozen=True)
class Placement:
    """The devices that an index is sharded over, by all axes of their mesh, and the precision of its vectors."""

    mesh: Mesh | None = None  # None: one device, the default
    precision: Precision = "float32"
    batch: tuple[str, ...] = ()  # the mesh axes that shard the questions of a batch, if they divide it

    @property
    def shards(self) -> int:
        """The number of devices."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def index(self) -> retrieval.Index:
        """The search functions for knowledge with this placement."""
        return retrieval.LOCAL if self.mesh is None else _sharded(self.mesh, self.batch)

    @property
    def replicated(self) -> NamedSharding | None:
        """The sharding of results that every process reads; None: no constraint."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    def knowledge(self, store: Store) -> Knowledge:
        """Load a store onto the devices."""
        tokens = self.tokens(store.passage_tokens, store.passage_lengths)
        return self.search_arrays(store)._replace(passage_tokens=tokens)

    def search_arrays(self, store: Store) -> Knowledge:
        """Load a store onto the devices without its tokens, for searches."""
        no_tokens = Tokens(jnp.zeros((1, 0), jnp.int32), jnp.zeros(1, jnp.int32))
        return Knowledge(self.vectors(store), no_tokens, self.rows(store.alive))

    def vectors(self, store: Store) -> Vectors:
        """Load the vectors of a store onto the devices."""
        return self._load(padded_rows(store.size, self.shards), store.passage_vectors, CONVERT[self.precision])

    def tokens(self, ids: SegmentedArray, lengths: SegmentedArray) -> Tokens:
        """Load the tokens of passages onto the devices."""
        rows = padded_rows(len(ids), self.shards)
        return Tokens(self._load(rows, ids, jnp.asarray), self._load(rows, lengths, jnp.asarray))

    def rows(self, values: np.ndarray) -> jax.Array:
        """Load a number of each row onto the devices."""
        return self._load(padded_rows(len(values), self.shards), SegmentedArray([values]), jnp.asarray)

    def replicate(self, tree: PyTree) -> PyTree:
        """Replicate arrays of this process's device over the mesh; arrays that are on the mesh already are kept."""
        if self.mesh is None:
            return tree
        devices, sharding = set(self.mesh.devices.flat), NamedSharding(self.mesh, PartitionSpec())

        def replicated(leaf: Any) -> jax.Array:
            if isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices:
                return leaf
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

        return jax.tree.map(replicated, tree)

    def _load(self, rows: int, stored: SegmentedArray, convert: Callable) -> PyTree:
        share, process = rows // self.shards, jax.process_index()
        if self.mesh is None:
            return _load_rows(stored, 0, share, convert, jax.local_devices()[0])
        own = [(n, device) for n, device in enumerate(self.mesh.devices.flat) if device.process_index == process]
        shares = [jax.device_put(_load_rows(stored, n * share, share, convert, device), device) for n, device in own]
        spread = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))

        def joined(*each: jax.Array) -> jax.Array:
            return jax.make_array_from_single_device_arrays((rows, *each[0].shape[1:]), spread, list(each))

        return jax.tree.map(joined, *shares)


def padded_rows(size: int, shards: int = 1) -> int:
    """The number of rows after padding: at most 1/SIZES_PER_OCTAVE more than `size`, and equal on every shard."""
    step = max(1, 2 ** (size.bit_length() - 1) // SIZES_PER_OCTAVE)
    step = shards * -(-step // shards)
    return -(-size // step) * step


def _load_rows(stored: SegmentedArray, start: int, count: int, convert: Callable, device: Any) -> PyTree:
    """Load `count` rows from `start` on onto one device; zeros after the last row."""
    with jax.default_device(device):
        like = jax.eval_shape(convert, stored.between(0, min(1, len(stored))))
        held = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), like)
        for first in range(start, min(start + count, len(stored)), TRANSFER_ROWS):
            piece = convert(jnp.asarray(stored.between(first, min(first + TRANSFER_ROWS, start + count, len(stored)))))
            held = _put(held, piece, first - start)
    return held


@partial(jax.jit, donate_argnums=0)
def _put(held: Any, piece: Any, start: int) -> Any:
    return jax.tree.map(lambda whole, some: jax.lax.dynamic_update_slice_in_dim(whole, some, start, 0), held, piece)


@lru_cache
def _sharded(mesh: Mesh, batch: tuple[str, ...]) -> retrieval.Index:
    return sharded(mesh, mesh.axis_names, batch)


CONVERT = {
    "float32": jax.jit(lambda vectors: vectors.astype(jnp.float32)),
    "bfloat16": jax.jit(lambda vectors: vectors.astype(jnp.bfloat16)),
    "int8": jax.jit(quantize_int8),
}
