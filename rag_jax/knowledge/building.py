"""From a corpus to a knowledge store, in three steps that each can be killed and taken up again.

1. Read: the corpus streams into segments of passages on the disk. Whatever is wrong with it is found here.
2. Encode: each segment gets its vectors and its tokens, sorted by length within the segment. Several processes can
   share the segments. A segment is done whole or not at all, and done by anyone it is the same bytes.
3. Commit: the manifest names all segments, and the store is there (or, over an old one, the new instead of the old).

Memory holds one segment, whatever the corpus.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rag_jax.errors import InputError
from rag_jax.knowledge import disk, manifest
from rag_jax.knowledge.encoder import Encoder, Heard, unheard
from rag_jax.knowledge.manifest import Manifest
from rag_jax.knowledge.passages import Passage
from rag_jax.knowledge.pieces import Texts, as_table
from rag_jax.knowledge.reads import Reads
from rag_jax.knowledge.store import Store, open_store, write_tokens

SEGMENT = 65_536  # passages in a segment: what a kill can cost, and what memory holds
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """An unfinished build: what is made of which corpus, and the segments that it was read into."""

    made_of: dict[str, Any]
    segments: tuple[tuple[str, int], ...]

    @property
    def passages(self) -> int:
        return sum(count for _, count in self.segments)

    def encoded(self, folder: Path) -> int:
        """The passages that have their vectors already."""
        return sum(count for name, count in self.segments if (folder / "vectors" / name).exists())


def build(
    folder: Path,
    passages: Iterable[Passage],
    encoder: Encoder,
    reads: Reads | None,
    done: Heard = unheard,
) -> Store:
    """All three steps in this process, in float32; `done` hears how many passages have their vectors."""
    plan = read(folder, passages, describe(encoder, reads))
    encode(folder, plan, encoder, reads, done)
    commit(folder, plan, encoder, reads)
    return open_store(folder, encoder, reads)


def describe(
    encoder: Encoder, reads: Reads | None, dtype: str = "float32", corpus: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that a build depends on, as JSON has it."""
    told = {"tower": encoder.described, "generator": reads and reads.facts, "dtype": dtype, "corpus": corpus}
    return json.loads(json.dumps(told))


def unfinished(folder: Path) -> Plan | None:
    """The build that was begun in a folder, as far as its corpus is read; None where there is none."""
    path = folder / manifest.BUILDING
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Plan(stored["made_of"], tuple((name, count) for name, count in stored["segments"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: damaged; delete it to begin that build again") from None


def read(
    folder: Path,
    passages: Iterable[Passage],
    made_of: Mapping[str, Any],
    segment: int = SEGMENT,
    done: Heard = unheard,
) -> Plan:
    """Step 1. A corpus that was read to its end before is not read again.

    Raises `InputError` for a folder with an unfinished build of something else, and for a corpus without passages.
    """
    found = unfinished(folder)
    if found is not None:
        differing = sorted(key for key in made_of if found.made_of.get(key) != made_of[key])
        if differing:
            told = f"a build with another {' and '.join(differing)} was begun there"
            raise InputError(f"{folder}: {told}; finish it, delete {manifest.BUILDING} there, or name another folder")
        return found
    segments: list[tuple[str, int]] = []
    try:
        for number, chunk in enumerate(chunked(passages, segment), start=_first_segment(folder)):
            segments.append((f"{number:06d}", len(chunk)))
            part = folder / "passages" / segments[-1][0]
            shutil.rmtree(part, ignore_errors=True)  # of a reading that did not come to its end
            disk.write_part(part, table=as_table(chunk))
            done(len(chunk))
    except InputError:
        for name, _ in segments:
            shutil.rmtree(folder / "passages" / name, ignore_errors=True)
        raise
    if not segments:
        raise InputError(f"{folder}: a knowledge store needs at least one passage; give a corpus that is not empty")
    plan = Plan(dict(made_of), tuple(segments))
    _begin(folder, plan)
    return plan


def encode(
    folder: Path,
    plan: Plan,
    encoder: Encoder,
    reads: Reads | None,
    done: Heard = unheard,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Step 2, for the segments of one share: (1, 4) is the second of four processes.

    `done` hears how many passages have got their vectors now; those that had them before are not told.
    """
    for name, _ in plan.segments[share[0] :: share[1]]:
        if not (folder / "vectors" / name).exists():
            passages = list(Texts([disk.read_table(folder / "passages" / name)]))
            vectors = checked(encoder.passages(passages, done), passages)
            disk.write_part(folder / "vectors" / name, {"vectors": vectors.astype(plan.made_of["dtype"])})
        if reads is not None:
            write_tokens(folder, name, reads)


def commit(folder: Path, plan: Plan, encoder: Encoder, reads: Reads | None) -> Manifest:
    """Step 3: what was built is the store; what was there before is cleared away."""
    with manifest.locked(folder):
        old = manifest.read(folder) if (folder / manifest.FILE).exists() else None
        new = _described(folder, plan, encoder, reads, old)
        manifest.commit(folder, new)
        (folder / manifest.BUILDING).unlink(missing_ok=True)
        manifest.clear(folder, new)
    return new


def needed(plan: Plan, width: int, max_length: int) -> int:
    """Bytes that the vectors and tokens of a build take at most."""
    return plan.passages * (width * np.dtype(plan.made_of["dtype"]).itemsize + 2 * max_length + 4)


def check_room(folder: Path, plan: Plan, width: int, max_length: int) -> None:
    """Raises `InputError` where the disk cannot hold what is still to be made."""
    wanted, left = needed(plan, width, max_length), plan.passages - plan.encoded(folder)
    missing, free = wanted * left // plan.passages, shutil.disk_usage(folder).free
    if missing > free:
        told = f"the store needs up to {disk.gigabytes(missing)} more, {disk.gigabytes(free)} are free"
        raise InputError(f"{folder}: {told}; make room, or name another disk")


def checked(vectors: np.ndarray, passages: Sequence[Passage]) -> np.ndarray:
    """The vectors, if they are numbers. Raises `InputError` that names the first passage whose vector is not."""
    sound = np.isfinite(vectors).all(axis=1)
    if not sound.all():
        odd = passages[int(np.argmin(sound))]
        raise InputError(f'passage "{odd.id}": its vector holds NaN or infinity; check the tower and that text')
    return vectors


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _described(folder: Path, plan: Plan, encoder: Encoder, reads: Reads | None, old: Manifest | None) -> Manifest:
    """The manifest of segments that are all there."""
    kinds = ("passages", "vectors", *([reads.kind] if reads else ()))
    made = tuple(manifest.segment(folder, name, count, kinds) for name, count in plan.segments)
    vectors = disk.described(folder / "vectors" / made[0].name)["vectors"]
    blank = Manifest(
        tower=encoder.described | {"source": encoder.source},
        width=vectors["shape"][1],
        dtype=vectors["dtype"],
        passages=plan.passages,
        segments=made,
        generators={reads.key: reads.facts} if reads else {},
        made_of=plan.made_of,
        changes=old.changes if old else (),
    )
    return blank.changed("build")


def _first_segment(folder: Path) -> int:
    return manifest.read(folder).next_segment if (folder / manifest.FILE).exists() else 0


def _begin(folder: Path, plan: Plan) -> None:
    side, path = folder / f".{manifest.BUILDING}.{os.getpid()}.tmp", folder / manifest.BUILDING
    with disk.writing(path):
        side.write_text(json.dumps({"made_of": plan.made_of, "segments": plan.segments}) + "\n", encoding="utf-8")
        disk.sync(side)
        os.replace(side, path)
        disk.sync(folder)
