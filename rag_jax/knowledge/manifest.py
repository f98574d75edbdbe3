"""Which parts make up a knowledge store: `manifest.json`, whose replacement is the one moment at which a store changes.

    DIR/manifest.json                          version, counts, dtypes, checksums, fingerprints, and the changes so far
    DIR/passages/000000/, vectors/000000/      the segments: ids, titles and texts; d(z) as raw rows
    DIR/tokens-FINGERPRINT/000000/             what a generator reads of them, for each generator that was used
    DIR/removed/000003/                        the rows that hold no passage any more, as of version 3
    DIR/engines/…                              FAISS's and BM25's own files

Parts are never changed, only added. Whatever the manifest does not name does not exist: a crash leaves such parts
behind, and the next change clears them away. An opened version keeps its memory maps, whatever becomes of the names.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rag_jax.errors import InputError
from rag_jax.knowledge import disk

FILE = "manifest.json"
FORMAT = 2


@dataclass(frozen=True)
class Segment:
    """Rows that were written together; `parts` are its folders with the checksums of their descriptions."""

    name: str
    passages: int
    parts: dict[str, str]

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is there of it: passages, vectors, tokens of some generators."""
        return tuple(Path(part).parent.name for part in self.parts)


@dataclass(frozen=True)
class Manifest:
    """One version of a store."""

    tower: dict[str, Any]  # fingerprint, max_length, template, and where it was found
    width: int  # D
    dtype: str  # of the vectors
    passages: int  # that are there: rows that hold one
    segments: tuple[Segment, ...]
    generators: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the fingerprint of what they read
    removed: str | None = None  # the part that lists the rows without a passage
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    made_of: dict[str, Any] | None = None  # what it was built of; None once passages have changed
    changes: tuple[dict[str, Any], ...] = ()  # the journal: what each version changed

    @property
    def version(self) -> int:
        """Counts the changes."""
        return len(self.changes)

    @property
    def rows(self) -> int:
        """N, removed ones included: a row number means the same passage in every version."""
        return sum(segment.passages for segment in self.segments)

    @property
    def next_segment(self) -> int:
        """The first number that no segment has had."""
        return self.changes[-1]["next_segment"] if self.changes else 0

    def changed(self, change: str, **fields: Any) -> "Manifest":
        """The next version. Segments' numbers are never used again, lest an old part be taken for a new one."""
        new = replace(self, **fields)
        last = max((int(segment.name) + 1 for segment in new.segments), default=0)
        entry = {
            "version": self.version + 1,
            "change": change,
            "passages": new.passages,
            "rows": new.rows,
            "next_segment": max(last, self.next_segment),
        }
        return replace(new, changes=(*self.changes, entry))


def read(folder: Path) -> Manifest:
    """What a store says of itself. Raises `InputError` where there is none, or an old or damaged one."""
    path = folder / FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        remedy = "the build was not finished: run it again" if (folder / BUILDING).exists() else OTHERWISE
        raise InputError(f"{path}: no knowledge store there; {remedy}") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; delete {folder} and build it anew") from None
    if not isinstance(stored, dict) or stored.pop("format", None) != FORMAT:
        raise InputError(f"{path}: of another version of this library; delete {folder} and build it anew")
    try:
        segments = tuple(Segment(**segment) for segment in stored.pop("segments"))
        changes = tuple(stored.pop("changes"))
        del stored["version"], stored["rows"]
        return Manifest(segments=segments, changes=changes, **stored)
    except (TypeError, KeyError):
        raise InputError(f"{path}: damaged; delete {folder} and build it anew") from None


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a manifest the store's, at once and for good; the parts it names must be there."""
    path, stored = folder / FILE, asdict(manifest)
    side = folder / f".{FILE}.{os.getpid()}.tmp"
    with disk.writing(path):
        told = {"format": FORMAT, "version": manifest.version, "rows": manifest.rows, **stored}
        side.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        disk.sync(side)
        os.replace(side, path)
        disk.sync(folder)


def clear(folder: Path, manifest: Manifest) -> None:
    """Delete what a manifest does not name. Whoever has an older version open keeps its maps."""
    kept = {Path(part) for segment in manifest.segments for part in segment.parts}
    kept |= {Path(engine["part"]) for engine in manifest.engines.values() if "part" in engine}
    kept |= {Path(manifest.removed)} if manifest.removed else set()
    for side in folder.glob(".*.tmp"):
        side.unlink(missing_ok=True)
    for kind in folder.iterdir():
        if kind.is_dir():
            for part in kind.iterdir():
                if part.relative_to(folder) not in kept:
                    shutil.rmtree(part, ignore_errors=True)
            if not any(kind.iterdir()):
                kind.rmdir()


@contextmanager
def locked(folder: Path, wait: bool = False, name: str = ".lock") -> Iterator[None]:
    """The one writer of a store. Raises `InputError` where another is at work, unless its end is waited for."""
    with disk.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        raise InputError(f"{folder}: another process is changing it; wait until it is done") from None
    try:
        yield
    finally:
        os.close(handle)


def verify(folder: Path, part: str, expected: str) -> None:
    """Compare a part with its checksums, and its description with the manifest's; raises `InputError`."""
    path = folder / part / disk.DESCRIPTION
    if not path.exists() or disk.checksum(path) != expected:
        raise InputError(f"{path}: not what the manifest names; {disk.REMEDY}")
    disk.verify(folder / part)


def segment(folder: Path, name: str, passages: int, kinds: Iterable[str]) -> Segment:
    """A segment of parts that are there."""
    parts = {f"{kind}/{name}": disk.checksum(folder / kind / name / disk.DESCRIPTION) for kind in kinds}
    return Segment(name, passages, parts)


BUILDING = "building.json"  # there while a build is under way
OTHERWISE = "build one with rag-jax index CORPUS --out DIR, or name another folder"
