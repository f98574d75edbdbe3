"""Changing a store's passages without rebuilding it: add, remove, replace, swap.

Each change writes new parts and then replaces the manifest atomically; a crash before that leaves unreferenced parts.
Processes that have an older version open continue to read it. Documents are removed and replaced with all their chunks.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from rag_jax.corpus.passage import Passage
from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.index import building, documents, manifest, part_files, pending_build
from rag_jax.index.columns import as_table
from rag_jax.index.encoder import ProgressCallback, TextEncoder, no_progress
from rag_jax.index.manifest import Manifest, Segment
from rag_jax.index.store import check_tower, read_passages
from rag_jax.index.truncation import Truncation

Encode = Callable[[Sequence[Passage]], tuple[np.ndarray, Truncation]]


def add(
    folder: Path, passages: Iterable[Passage], encoder: TextEncoder, on_progress: ProgressCallback = no_progress
) -> Manifest:
    """Add passages to a store; `on_progress` receives the number of passages just encoded.

    Raises `InputError` for an id that exists already, and for another tower than the store's.
    """
    with _transaction(folder, encoder) as old:
        more = list(passages)
        documents.check_new(read_passages(folder, old), _alive(folder, old), more, str(folder))
        return _commit(
            folder,
            old,
            "add",
            removing=(),
            more=more,
            encode=partial(encoder.encode_and_count_truncation, on_progress=on_progress),
        )


def remove(folder: Path, ids: Sequence[str]) -> Manifest:
    """Remove documents, with all their chunks, or single chunks from a store.

    Raises `InputError` for an unknown id, and if no passage would remain.
    """
    with _transaction(folder, None) as old:
        rows = documents.find_rows(read_passages(folder, old), _alive(folder, old), ids, str(folder))
        return _commit(folder, old, "remove", removing=rows.tolist())


def replace(
    folder: Path, passages: Iterable[Passage], encoder: TextEncoder, on_progress: ProgressCallback = no_progress
) -> Manifest:
    """Replace documents by their ids: all chunks of a document are removed, and the new ones are added.

    A chunk that is given alone replaces that chunk. Raises `InputError` for an unknown id, and as `add`.
    """
    with _transaction(folder, encoder) as old:
        texts, alive = read_passages(folder, old), _alive(folder, old)
        rows, new = documents.plan_replacement(texts, alive, list(passages), str(folder))
        return _commit(
            folder,
            old,
            "replace",
            rows.tolist(),
            new,
            partial(encoder.encode_and_count_truncation, on_progress=on_progress),
        )


def swap(folder: Path, other: Path) -> Manifest:
    """Replace the contents of a store by those of another, which stays unchanged."""
    with _transaction(folder, None) as old:
        while True:
            new = manifest.read(other)
            try:
                swapped = _copy_contents(folder, old, other, new)
            except (InputError, OSError):
                if manifest.read(other) == new:
                    raise
            else:
                if manifest.read(other) == new:
                    return manifest.commit(folder, old, swapped)
            manifest.delete_unreferenced(folder, old)  # another process changed the other store: copy again


def _commit(
    folder: Path,
    old: Manifest,
    change: str,
    removing: Sequence[int],
    more: Sequence[Passage] = (),
    encode: Encode | None = None,
) -> Manifest:
    """Write the changed parts, then the manifest. Requires the store's lock."""
    remaining = old.passages - len(removing) + len(more)
    if not remaining:
        raise InputError(f"{folder}: would hold no passage any more; leave one, or build another store")
    segments, removed = old.segments, old.removed
    if encode is not None and more:
        segments = (*segments, _write_segment(folder, old, more, encode))
    if removing:
        before = set(manifest.removed_rows(folder, old).tolist())
        removed = f"removed/{old.version + 1:06d}"
        part_files.write_part(folder / removed, {"rows": np.asarray(sorted(before | set(removing)), np.int64)})
    new = old.next_version(change, segments=segments, removed=removed, passages=remaining, build_spec=None)
    return manifest.commit(folder, old, new)


def _write_segment(folder: Path, old: Manifest, more: Sequence[Passage], encode: Encode) -> Segment:
    """Write new passages as a segment; generators tokenise it when they open the store."""
    name = f"{manifest.next_segment_number(folder, old):06d}"
    found, cut = encode(more)
    if found.shape[1] != old.width:
        raise InputError(f"{folder}: vectors of width {old.width}, the new ones have {found.shape[1]}; name its tower")
    vectors = building.as_stored(found, more, old.dtype)
    part_files.write_part(folder / "passages" / name, table=as_table(more))
    part_files.write_part(folder / "vectors" / name, {"vectors": vectors, "truncated": cut.array})
    return manifest.make_segment(folder, name, len(more), ("passages", "vectors"))


def _copy_contents(folder: Path, old: Manifest, other: Path, new: Manifest) -> Manifest:
    """Copy another store's parts, and return the version that consists of them."""
    segments = []
    for number, each in enumerate(new.segments, start=manifest.next_segment_number(folder, old)):
        name = f"{number:06d}"
        known = {}
        for part, checksum in each.parts.items():
            copy = f"{Path(part).parent}/{name}"
            _copy_part(other / part, folder / copy)
            known[copy] = checksum
        segments.append(manifest.make_segment(folder, name, each.passages, each.kinds, known))
    removed = None
    if new.removed:
        manifest.removed_rows(other, new)  # checks them
        removed = f"removed/{old.version + 1:06d}"
        _copy_part(other / new.removed, folder / removed)
    return old.next_version(
        "swap",
        tower=new.tower,
        width=new.width,
        dtype=new.dtype,
        passages=new.passages,
        segments=tuple(segments),
        generators=new.generators,
        removed=removed,
        engines={},
        cut=new.cut,
        build_spec=new.build_spec,
    )


def _copy_part(source: Path, target: Path) -> None:
    """Copy a part, by hard links where the file system supports them: parts never change."""
    names = [facts.file for facts in part_files.read_description(source).values()]
    with files.disk_errors(target), files.staged_folder(target) as side:
        for name in (*names, part_files.DESCRIPTION_FILE):
            try:
                os.link(source / name, side / name)
            except OSError:
                shutil.copyfile(source / name, side / name)


@contextmanager
def _transaction(folder: Path, encoder: TextEncoder | None) -> Iterator[Manifest]:
    """Lock the store and yield the version to change. Raises `InputError` for an unfinished build or another tower."""
    with manifest.transaction(folder) as found:
        if manifest.find_pending_build(folder, found) is not None:
            remedy = f"finish it with the command that started it, or discard it: delete {folder / pending_build.FILE}"
            raise InputError(f"{folder}: a build is unfinished there; {remedy}")
        check_tower(folder, found, encoder)
        yield found


def _alive(folder: Path, found: Manifest) -> np.ndarray:
    alive = np.ones(found.rows, bool)
    alive[manifest.removed_rows(folder, found)] = False
    return alive
