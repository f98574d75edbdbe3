"""Changing a store's passages without building it again: add, remove, replace, swap.

Each change writes its parts beside the old ones and then replaces the manifest: before that moment the store is the old
version, after it the new one, and a crash in between leaves parts that nobody reads. Whoever has an older version open
goes on reading it. What is removed or replaced are whole documents, with all pieces that they were cut into.
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
    """Put more passages into a store; `done` hears how many have their vectors.

    Raises `InputError` for an id that is there already, and for another tower than the store's.
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
    """Take documents, with all their pieces, or single pieces out of a store.

    Raises `InputError` for an id that is not there, and if no passage would be left.
    """
    with _transaction(folder, None) as old:
        rows = documents.find_rows(read_passages(folder, old), _alive(folder, old), ids, str(folder))
        return _commit(folder, old, "remove", removing=rows.tolist())


def replace(
    folder: Path, passages: Iterable[Passage], encoder: TextEncoder, on_progress: ProgressCallback = no_progress
) -> Manifest:
    """Rewrite documents, found by their ids: all their old pieces make way for all the new ones.

    A piece that is given alone takes the place of that piece. Raises `InputError` for an id that is not there, and as
    `add`.
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
    """Put the contents of another store, which stays as it is, in the place of this one's."""
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
            manifest.delete_unreferenced(folder, old)  # the other was changed meanwhile


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
        raise InputError(f"{folder}: would hold no passage any more; leave one, or build another store")
    segments, removed = old.segments, old.removed
    if encode is not None and more:
        segments = (*segments, _write_segment(folder, old, more, encode))
    if removing:
        gone = set(part_files.read_arrays(folder / removed)["rows"].tolist()) if removed else set()
        removed = f"removed/{old.version + 1:06d}"
        part_files.write_part(folder / removed, {"rows": np.asarray(sorted(gone | set(removing)), np.int64)})
    new = old.next_version(change, segments=segments, removed=removed, passages=kept, build_spec=None)
    return manifest.commit(folder, old, new)


def _write_segment(folder: Path, old: Manifest, more: Sequence[Passage], encode: Encode) -> Segment:
    """The new passages as a segment; what generators read of it is made when they open the store."""
    name = f"{manifest.next_segment_number(folder, old):06d}"
    found, cut = encode(more)
    vectors = building.check_finite(found, more).astype(old.dtype)
    part_files.write_part(folder / "passages" / name, table=as_table(more))
    part_files.write_part(folder / "vectors" / name, {"vectors": vectors, "truncated": cut.array})
    return manifest.make_segment(folder, name, len(more), ("passages", "vectors"))


def _copy_contents(folder: Path, old: Manifest, other: Path, new: Manifest) -> Manifest:
    """The version that holds another store's contents, copied beside the old ones."""
    segments = []
    for number, each in enumerate(new.segments, start=manifest.next_segment_number(folder, old)):
        name = f"{number:06d}"
        for part in each.parts:
            _copy_part(other / part, folder / Path(part).parent / name)
        segments.append(manifest.make_segment(folder, name, each.passages, each.kinds))
    removed = None
    if new.removed:
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
        build_spec=new.build_spec,
    )


def _copy_part(source: Path, target: Path) -> None:
    """A part under another name: by hard links where the file system has them, as parts never change."""
    names = [facts["file"] for facts in part_files.read_description(source).values()]
    with files.disk_errors(target), files.staged_folder(target) as side:
        for name in (*names, part_files.DESCRIPTION_FILE):
            try:
                os.link(source / name, side / name)
            except OSError:
                shutil.copyfile(source / name, side / name)


@contextmanager
def _transaction(folder: Path, encoder: TextEncoder | None) -> Iterator[Manifest]:
    """The version that is to be changed, under the store's lock."""
    with manifest.transaction(folder) as found:
        if manifest.find_pending_build(folder, found) is not None:
            how = f"finish it with the command that began it, or give it up: delete {folder / pending_build.FILE}"
            raise InputError(f"{folder}: a build is unfinished there; {how}")
        check_tower(folder, found, encoder)
        yield found


def _alive(folder: Path, found: Manifest) -> np.ndarray:
    alive = np.ones(found.rows, bool)
    if found.removed:
        alive[part_files.read_arrays(folder / found.removed)["rows"]] = False
    return alive
