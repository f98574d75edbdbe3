"""Building a knowledge store from a corpus, in three steps that can each be interrupted and resumed.

1. Read: stream the corpus into segments of passages on disk. Errors in the corpus are found here.
2. Encode: compute the vectors and tokens of each segment. Several processes can share the segments. A segment is
   written atomically, with the same bytes by whichever process.
3. Commit: write the manifest that lists all segments; this creates the store, or replaces the old one.

Memory holds one segment, whatever the size of the corpus. All steps hold the store's lock (`claim_and_lock`).
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rag_jax.corpus.chunking import Cut
from rag_jax.corpus.passage import Passage
from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.index import manifest, ownership, part_files, pending_build
from rag_jax.index.columns import as_table
from rag_jax.index.encoder import ProgressCallback, TextEncoder, no_progress
from rag_jax.index.manifest import Manifest
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.pending_build import PendingBuild
from rag_jax.index.store import Store, open_store, read_segment, write_tokens

DISCARD = f"delete {pending_build.FILE} there to discard it"
SEGMENT = 65_536  # passages in a segment: the work that an interruption can lose, and what memory holds
T = TypeVar("T")


def build(
    folder: Path,
    passages: Iterable[Passage],
    encoder: TextEncoder,
    passage_tokenizer: PassageTokenizer | None,
    on_progress: ProgressCallback = no_progress,
    *,
    cut: Cut | None = None,
    restart: bool = False,
) -> Store:
    """Run all three steps in this process, in float32; `on_progress` receives the number of passages just encoded.

    Args:
        cut: how the passages were split, for those that are added later.
        restart: discard an unfinished build by another tower, instead of refusing it.

    An existing store is replaced. Raises `InputError` for a folder that is not empty and not a store, and for an
    unfinished build of other passages.
    """
    with ownership.claim_and_lock(folder):
        build_spec = make_build_spec(encoder, passage_tokenizer, corpus=cut and {"cut": cut.spec})
        pending = manifest.find_pending_build(folder, manifest.read_if_there(folder))
        if pending is not None and restart and pending.build_spec != build_spec:
            (folder / pending_build.FILE).unlink()
            pending = None
        plan = read(folder, passages, build_spec)
        if pending is not None:
            _check_passages(folder, plan, passages)
        encode(folder, plan, encoder, passage_tokenizer, on_progress)
        commit(folder, plan, encoder, passage_tokenizer)
    return open_store(folder, encoder, passage_tokenizer)


def make_build_spec(
    encoder: TextEncoder,
    passage_tokenizer: PassageTokenizer | None,
    dtype: str = "float32",
    corpus: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that a build depends on, as JSON."""
    spec = {
        "tower": encoder.spec,
        "generator": passage_tokenizer and passage_tokenizer.spec,
        "dtype": dtype,
        "corpus": corpus,
    }
    return json.loads(json.dumps(spec))


def read(
    folder: Path,
    passages: Iterable[Passage],
    build_spec: Mapping[str, Any],
    segment: int = SEGMENT,
    on_progress: ProgressCallback = no_progress,
) -> PendingBuild:
    """Step 1: read the corpus, unless an unfinished build of the same spec has read all of it.

    Raises `InputError` for a folder that is not empty and not a store, for an unfinished build of another spec, and for
    a corpus without passages.
    """
    ownership.claim(folder)
    old = manifest.read_if_there(folder)
    found = manifest.find_pending_build(folder, old)
    manifest.delete_unreferenced(folder, old)
    if found is not None:
        return _check_resumable(folder, found, build_spec, old)
    begun = PendingBuild(dict(build_spec), replaces=old.content if old else ())
    pending_build.write(folder, begun)
    try:
        plan = replace(begun, segments=tuple(_write_segments(folder, old, passages, segment, on_progress)))
    except InputError:
        manifest.delete_unreferenced(folder, old)
        raise
    pending_build.write(folder, plan)
    return plan


def encode(
    folder: Path,
    plan: PendingBuild,
    encoder: TextEncoder,
    passage_tokenizer: PassageTokenizer | None,
    on_progress: ProgressCallback = no_progress,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Step 2, for one share of the segments: (1, 4) is that of the second of four processes.

    `on_progress` receives the number of passages just encoded, without those that already had vectors.
    """
    for name, _ in plan.segments[share[0] :: share[1]]:
        if not part_files.is_part(folder / "vectors" / name):
            passages = list(read_segment(folder, name))
            found, cut = encoder.encode_and_count_truncation(passages, on_progress)
            vectors = as_stored(found, passages, plan.build_spec["dtype"])
            part_files.write_part(folder / "vectors" / name, {"vectors": vectors, "truncated": cut.array})
        if passage_tokenizer is not None:
            write_tokens(folder, name, passage_tokenizer)


def commit(
    folder: Path, plan: PendingBuild, encoder: TextEncoder, passage_tokenizer: PassageTokenizer | None
) -> Manifest:
    """Step 3: make the build the store's current version, and delete the parts of the previous one.

    Raises `InputError` if the build was discarded, or the store that it replaces was changed, since it began.
    """
    old = manifest.read_if_there(folder)
    if manifest.find_pending_build(folder, old) != plan:
        raise InputError(f"{folder}: {pending_build.FILE} no longer describes this build; run it again")
    _check_resumable(folder, plan, plan.build_spec, old)
    return manifest.commit(folder, old, _make_manifest(folder, plan, encoder, passage_tokenizer, old))


def storage_bytes(plan: PendingBuild, width: int, token_bytes: int) -> int:
    """The maximum size in bytes of the vectors and tokens of a build; a passage's tokens take `token_bytes`."""
    return plan.passages * (width * np.dtype(plan.build_spec["dtype"]).itemsize + token_bytes + 4)


def check_disk_space(folder: Path, plan: PendingBuild, width: int, token_bytes: int) -> None:
    """Raise `InputError` if the disk has no room for the rest of the build."""
    total, left = storage_bytes(plan, width, token_bytes), plan.passages - plan.encoded(folder)
    missing, free = total * left // plan.passages, shutil.disk_usage(folder).free
    if missing > free:
        what = f"the store needs up to {files.format_bytes(missing)} more, {files.format_bytes(free)} are free"
        raise InputError(f"{folder}: {what}; make room, or name another disk")


def as_stored(vectors: np.ndarray, passages: Sequence[Passage], dtype: str) -> np.ndarray:
    """The vectors in the numbers of a store. Raises `InputError` as `check_finite`, and for larger numbers."""
    with np.errstate(over="ignore"):
        stored = check_finite(vectors, passages).astype(dtype)
    if not np.isfinite(stored).all():
        raise InputError(
            f"vectors hold numbers beyond {np.finfo(dtype).max:,.0f}, the end of {dtype}; give --dtype float32"
        )
    return stored


def check_finite(vectors: np.ndarray, passages: Sequence[Passage]) -> np.ndarray:
    """Return the vectors. Raises `InputError` that names the first passage whose vector is not finite."""
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        passage = passages[int(np.argmin(finite))]
        raise InputError(f'passage "{passage.id}": its vector holds NaN or infinity; check the tower and that text')
    return vectors


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _make_manifest(
    folder: Path,
    plan: PendingBuild,
    encoder: TextEncoder,
    passage_tokenizer: PassageTokenizer | None,
    old: Manifest | None,
) -> Manifest:
    """The manifest of a build whose segments are complete."""
    kinds = ("passages", "vectors", *([passage_tokenizer.folder] if passage_tokenizer else ()))
    cut = (plan.build_spec["corpus"] or {}).get("cut")
    made = tuple(manifest.make_segment(folder, name, count, kinds) for name, count in plan.segments)
    vectors = part_files.read_arrays(folder / "vectors" / made[0].name)["vectors"]
    blank = Manifest(
        tower=encoder.spec | encoder.origin,
        width=vectors.shape[1],
        dtype=str(vectors.dtype),
        passages=plan.passages,
        segments=made,
        generators={passage_tokenizer.key: passage_tokenizer.spec} if passage_tokenizer else {},
        cut=None if cut is None else Cut(**cut),
        build_spec=plan.build_spec,
        changes=old.changes if old else (),
    )
    return blank.next_version("build")


def _check_resumable(
    folder: Path, found: PendingBuild, build_spec: Mapping[str, Any], old: Manifest | None
) -> PendingBuild:
    """Return an unfinished build, if it has this spec and replaces this version. Raises `InputError` otherwise."""
    differing = sorted(key for key in build_spec if found.build_spec.get(key) != build_spec[key])
    if differing:
        what = f"a build with another {' and '.join(differing)} was started there"
        raise InputError(f"{folder}: {what}; finish it, {DISCARD}, or name another folder")
    if found.replaces != (old.content if old else ()):
        raise InputError(f"{folder}: the store was changed after a build that replaces it was started; {DISCARD}")
    return found


def _check_passages(folder: Path, plan: PendingBuild, passages: Iterable[Passage]) -> None:
    """Raise `InputError` where an unfinished build has read other passages."""
    read = (each for name, _ in plan.segments for each in read_segment(folder, name))
    if any(one != other for one, other in zip_longest(read, passages)):
        what = f"a build of other passages was started there; {DISCARD}"
        raise InputError(f"{folder}: {what}, or give those passages")


def _write_segments(
    folder: Path, old: Manifest | None, passages: Iterable[Passage], segment: int, done: ProgressCallback
) -> Iterator[tuple[str, int]]:
    """Write a corpus as segments of passages; yield their names and sizes."""
    empty = True
    for number, chunk in enumerate(batched(passages, segment), start=manifest.next_segment_number(folder, old)):
        part_files.write_part(folder / "passages" / f"{number:06d}", table=as_table(chunk))
        done(len(chunk))
        empty = False
        yield f"{number:06d}", len(chunk)
    if empty:
        raise InputError(f"{folder}: a knowledge store needs at least one passage; give a corpus that is not empty")
