"""Changing a store's passages without building it again: add, remove, replace, swap.

Each change writes its parts beside the old ones and then replaces the manifest: before that moment the store is the old
version, after it the new one, and a crash in between leaves parts that nobody reads. Whoever has an older version open
goes on reading it.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rag_jax.errors import InputError
from rag_jax.knowledge import building, disk, manifest
from rag_jax.knowledge.encoder import Encoder, Heard, unheard
from rag_jax.knowledge.manifest import Manifest, Segment
from rag_jax.knowledge.passages import Passage
from rag_jax.knowledge.pieces import as_table
from rag_jax.knowledge.store import check_tower, opened_texts

Encode = Callable[[Sequence[Passage]], np.ndarray]


def add(folder: Path, passages: Iterable[Passage], encoder: Encoder, done: Heard = unheard) -> Manifest:
    """Put more passages into a store; `done` hears how many have their vectors.

    Raises `InputError` for an id that is there already, and for another tower than the store's.
    """
    with manifest.locked(folder):
        old = _of(folder, encoder)
        more = list(passages)
        there = _find(folder, old, [passage.id for passage in more])
        if (there >= 0).any():
            odd = more[int(np.argmax(there >= 0))].id
            raise InputError(f'{folder}: has a passage "{odd}" already; replace it, or give the new one another id')
        return _commit(folder, old, "add", removing=(), more=more, encode=partial(encoder.passages, done=done))


def remove(folder: Path, ids: Sequence[str]) -> Manifest:
    """Take passages out of a store. Raises `InputError` for an id that is not there, and if none would be left."""
    with manifest.locked(folder):
        old = _of(folder, None)
        return _commit(folder, old, "remove", removing=_rows(folder, old, ids))


def replace(folder: Path, passages: Iterable[Passage], encoder: Encoder, done: Heard = unheard) -> Manifest:
    """Rewrite passages, found by their ids. Raises `InputError` for an id that is not there, and as `add`."""
    with manifest.locked(folder):
        old = _of(folder, encoder)
        changed = list(passages)
        removing = _rows(folder, old, [passage.id for passage in changed])
        return _commit(folder, old, "replace", removing, changed, partial(encoder.passages, done=done))


def swap(folder: Path, other: Path) -> Manifest:
    """Put the contents of another store, which stays as it is, in the place of this one's."""
    with manifest.locked(folder):
        old, new = _of(folder, None), manifest.read(other)
        first = old.next_segment
        segments = [
            _copied(folder, other, each, f"{number:06d}") for number, each in enumerate(new.segments, start=first)
        ]
        removed = None
        if new.removed:
            removed = f"removed/{old.version + 1:06d}"
            _copy(other / new.removed, folder / removed)
        swapped = old.changed(
            "swap",
            tower=new.tower,
            width=new.width,
            dtype=new.dtype,
            passages=new.passages,
            segments=tuple(segments),
            generators=new.generators,
            removed=removed,
            engines={},
            made_of=new.made_of,
        )
        return _done(folder, swapped)


def _commit(
    folder: Path,
    old: Manifest,
    change: str,
    removing: Sequence[int],
    more: Sequence[Passage] = (),
    encode: Encode | None = None,
) -> Manifest:
    """Write what changes, then the manifest that says so; called under the store's lock."""
    kept = old.passages - len(removing) + len(more)
    if not kept:
        raise InputError(f"{folder}: would hold no passage any more; leave one, or delete the folder")
    segments, removed = old.segments, old.removed
    if encode is not None and more:
        segments = (*segments, _written(folder, old, more, encode))
    if removing:
        gone = set(disk.read_arrays(folder / removed)["rows"].tolist()) if removed else set()
        removed = f"removed/{old.version + 1:06d}"
        shutil.rmtree(folder / removed, ignore_errors=True)  # of a change that was not finished
        disk.write_part(folder / removed, {"rows": np.asarray(sorted(gone | set(removing)), np.int64)})
    return _done(folder, old.changed(change, segments=segments, removed=removed, passages=kept, made_of=None))


def _done(folder: Path, new: Manifest) -> Manifest:
    manifest.commit(folder, new)
    manifest.clear(folder, new)
    return new


def _written(folder: Path, old: Manifest, more: Sequence[Passage], encode: Encode) -> Segment:
    """The new passages as a segment; what generators read of it is made when they open the store."""
    name = f"{old.next_segment:06d}"
    for kind in ("passages", "vectors", *(f"tokens-{key}" for key in old.generators)):
        shutil.rmtree(folder / kind / name, ignore_errors=True)  # of a change that was not finished
    vectors = building.checked(encode(more), more)
    disk.write_part(folder / "passages" / name, table=as_table(more))
    disk.write_part(folder / "vectors" / name, {"vectors": vectors.astype(old.dtype)})
    return manifest.segment(folder, name, len(more), ("passages", "vectors"))


def _copied(folder: Path, other: Path, segment: Segment, name: str) -> Segment:
    for kind in segment.kinds:
        _copy(other / kind / segment.name, folder / kind / name)
    return manifest.segment(folder, name, segment.passages, segment.kinds)


def _copy(source: Path, target: Path) -> None:
    """A part under another name: by hard links where the file system has them, as parts never change."""
    shutil.rmtree(target, ignore_errors=True)  # of a change that was not finished
    with disk.writing(target), disk.aside(target) as side:
        for file in source.iterdir():
            try:
                os.link(file, side / file.name)
            except OSError:
                shutil.copyfile(file, side / file.name)


def _of(folder: Path, encoder: Encoder | None) -> Manifest:
    """The version that is to be changed."""
    found = manifest.read(folder)
    if (folder / manifest.BUILDING).exists():
        raise InputError(f"{folder}: a build is unfinished there; run it again, or delete {manifest.BUILDING}")
    check_tower(folder, found, encoder)
    return found


def _rows(folder: Path, old: Manifest, ids: Sequence[str]) -> list[int]:
    rows = _find(folder, old, ids)
    if (rows < 0).any():
        odd = ids[int(np.argmax(rows < 0))]
        raise InputError(f'{folder}: no passage has the id "{odd}"; rag-jax search shows the ids that there are')
    return rows.tolist()


def _find(folder: Path, old: Manifest, ids: Sequence[str]) -> np.ndarray:
    twice = [each for each, count in Counter(ids).items() if count > 1]
    if twice:
        raise InputError(f'{folder}: the id "{twice[0]}" is given twice; give each passage once')
    texts, alive = opened_texts(folder, old), None
    if old.removed:
        alive = np.ones(len(texts), bool)
        alive[disk.read_arrays(folder / old.removed)["rows"]] = False
    return texts.find(ids, alive)
