"""Digests of what a run and its answers depend on, by content: wherever it lies, and whatever it is called."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from rag_jax.index.store import Store

ROWS = 65_536  # of an index that are digested together


def of(pieces: Iterable[bytes]) -> str:
    """Of all pieces, in their order."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()[:16]


def plain(value: Any) -> bytes:
    """What JSON can hold, as bytes."""
    return json.dumps(value, sort_keys=True).encode()


def leaves(params: PyTree) -> Iterator[bytes]:
    """The parameters of networks, with their names."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        yield jax.tree_util.keystr(path).encode()
        yield np.asarray(leaf).tobytes()


def passages(store: Store) -> Iterator[bytes]:
    """Passages by their rows. A store on the disk has checksums of its parts; another is read."""
    if _on_disk(store):
        yield from _parts(store, "passages")
    else:
        table = store.passages.table
        for start in range(0, len(store.passages), ROWS):
            yield plain(table.slice(start, ROWS).to_pydict())
    yield plain(sorted(store.removed))


def vectors(store: Store) -> Iterator[bytes]:
    """Their vectors, in the same way."""
    if _on_disk(store):
        yield from _parts(store, "vectors")
    else:
        yield str(store.passage_vectors.dtype).encode()
        yield from (np.ascontiguousarray(block).tobytes() for block in store.passage_vectors.blocks(ROWS))


def _on_disk(store: Store) -> bool:
    """Whether all its rows are those of a version on the disk, none added in memory."""
    return store.manifest is not None and store.manifest.rows == store.size


def _parts(store: Store, kind: str) -> Iterator[bytes]:
    """The checksums of a store's parts of one kind, in the order of its rows, whatever they are called."""
    assert store.manifest is not None
    for segment in store.manifest.segments:
        yield segment.parts[f"{kind}/{segment.name}"].encode()
