"""Which parts make up a knowledge store: `manifest.json`, whose replacement is the one moment at which a store changes.

    DIR/manifest.json                          version, counts, dtypes, checksums, fingerprints, and the changes so far
    DIR/passages/000000/, vectors/000000/      the segments: ids, titles and texts; d(z) as raw rows
    DIR/tokens-FINGERPRINT/000000/             what a generator reads of them, for each generator that was used
    DIR/removed/000003/                        the rows that hold no passage any more, as of version 3
    DIR/engines/…                              FAISS's and BM25's own files
    DIR/rag-jax.store                          the mark of a store's own folder, and its lock: see `ownership`

Parts are never changed, only added. Whatever neither the manifest nor an unfinished build names does not exist: a crash
leaves such parts behind, and the next change clears them away. An opened version keeps its memory maps, whatever
becomes of the names.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.index import ownership, part_files, pending_build
from rag_jax.index.pending_build import PendingBuild
from rag_jax.index.truncation import Truncation

FILE = "manifest.json"
FORMAT = 4
JSON_KEYS = {"build_spec": "made_of"}  # fields of `Manifest` with another name in the file


@dataclass(frozen=True)
class Segment:
    """Rows that were written together; `parts` are its folders with the checksums of their descriptions."""

    name: str
    passages: int
    parts: dict[str, str]
    truncated: dict[str, list[int]]  # what the tower (vectors) and generators do not read: passages, and their tokens

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
    build_spec: dict[str, Any] | None = None  # what it was built of; None once passages have changed
    changes: tuple[dict[str, Any], ...] = ()  # the journal: what each version changed

    @property
    def version(self) -> int:
        """Counts the changes."""
        return len(self.changes)

    @property
    def content(self) -> tuple[str, ...]:
        """The names of what decides which passages there are: versions of a store that share it hold the same."""
        return (*(segment.name for segment in self.segments), *([self.removed] if self.removed else ()))

    @property
    def parts(self) -> set[str]:
        """The paths of all its parts, in the store's folder."""
        engines = {engine["part"] for engine in self.engines.values() if "part" in engine}
        removed = {self.removed} if self.removed else set()
        return {part for segment in self.segments for part in segment.parts} | engines | removed

    @property
    def rows(self) -> int:
        """N, removed ones included: a row number means the same passage in every version."""
        return sum(segment.passages for segment in self.segments)

    @property
    def next_segment(self) -> int:
        """The first number that no segment has had."""
        return self.changes[-1]["next_segment"] if self.changes else 0

    def truncated(self, kind: str = "vectors") -> Truncation:
        """What the tower, or the generator of some tokens, does not read of the passages that were ever put in."""
        return Truncation.total(segment.truncated[kind] for segment in self.segments if kind in segment.truncated)

    def next_version(self, change: str, **fields: Any) -> "Manifest":
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
        remedy = "the build was not finished: run it again" if (folder / pending_build.FILE).exists() else BUILD_REMEDY
        raise InputError(f"{path}: no knowledge store there; {remedy}") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; {part_files.REMEDY}") from None
    if not isinstance(stored, dict) or "segments" not in stored:
        raise InputError(f"{path}: no knowledge store's; {BUILD_REMEDY}")
    if stored.pop("format", None) != FORMAT:
        raise InputError(f"{path}: of another version of this library; build the store anew in another folder")
    try:
        segments = tuple(Segment(**segment) for segment in stored.pop("segments"))
        changes = tuple(stored.pop("changes"))
        stored |= {field: stored.pop(key) for field, key in JSON_KEYS.items()}
        del stored["version"], stored["rows"]
        return Manifest(segments=segments, changes=changes, **stored)
    except (TypeError, KeyError):
        raise InputError(f"{path}: damaged; {part_files.REMEDY}") from None


@contextmanager
def transaction(folder: Path, keep_waiting: Callable[[], bool] = lambda: False) -> Iterator[Manifest]:
    """The one writer of a store that is there; gives the version to be changed. What crashes left is cleared away.

    Raises `InputError` as `read` and `ownership.locked`; `patient` is the latter's.
    """
    read(folder)  # where there is no store, nothing is written
    with ownership.lock(folder, keep_waiting):
        found = read(folder)
        delete_unreferenced(folder, found)
        try:
            yield found
        except InputError:
            delete_unreferenced(folder, read(folder))
            raise


def commit(folder: Path, old: Manifest | None, new: Manifest) -> Manifest:
    """Make a version the store's in the place of another (None: of none), and clear away what that alone had.

    Called under the lock. Raises `InputError`, and changes nothing, where the store is not of the version `old` any
    more, and where the new one's counts and parts do not agree with what is there.
    """
    if (read(folder) if (folder / FILE).exists() else None) != old:
        raise InputError(f"{folder}: was changed by another process meanwhile; run it again")
    _check_counts(folder, new)
    stored = {JSON_KEYS.get(field, field): value for field, value in asdict(new).items()}
    stored = {"format": FORMAT, "version": new.version, "rows": new.rows, **stored}
    files.replace_file(folder / FILE, [json.dumps(stored, indent=2) + "\n"])
    delete_unreferenced(folder, new)
    return new


def delete_unreferenced(folder: Path, found: Manifest | None) -> None:
    """Delete the store's parts that belong neither to a version (None: there is none) nor to an unfinished build.

    Tokens of their segments stay, named or not: whoever was making them goes on from there.
    """
    plan = find_pending_build(folder, found)
    if plan is None:
        pending_build.delete(folder)
    parts = set() if found is None else found.parts
    names = {segment.name for segment in (found.segments if found else ())} | {*(plan.names if plan else ())}

    def kept(part: str) -> bool:
        kind, _, name = part.partition("/")
        return part in parts or (ownership.SEGMENTS.fullmatch(kind) is not None and name in names)

    ownership.delete_parts(folder, kept)


def find_pending_build(folder: Path, found: Manifest | None) -> PendingBuild | None:
    """The unfinished build that is to take a version's place; see `unfinished.find`."""
    return pending_build.read(folder, () if found is None else found.content)


def next_segment_number(folder: Path, found: Manifest | None) -> int:
    """The number of the next segment: no version had it, and no part bears it."""
    return max(0 if found is None else found.next_segment, ownership.next_free_number(folder))


def verify(folder: Path, part: str, expected: str) -> None:
    """Compare a part with its checksums, and its description with the manifest's; raises `InputError`."""
    path = folder / part / part_files.DESCRIPTION_FILE
    if not path.is_file() or files.checksum(path) != expected:
        raise InputError(f"{path}: not what the manifest names; {part_files.REMEDY}")
    part_files.verify(folder / part)


def make_segment(folder: Path, name: str, passages: int, kinds: Iterable[str]) -> Segment:
    """A segment of parts that are there."""
    kinds = tuple(kinds)
    parts = {f"{kind}/{name}": files.checksum(folder / kind / name / part_files.DESCRIPTION_FILE) for kind in kinds}
    counts = {kind: part_files.read_arrays(folder / kind / name) for kind in kinds if kind != "passages"}
    return Segment(name, passages, parts, {kind: held["truncated"].tolist() for kind, held in counts.items()})


def _check_counts(folder: Path, new: Manifest) -> None:
    gone = len(part_files.read_arrays(folder / new.removed)["rows"]) if new.removed else 0
    if new.passages != new.rows - gone:
        raise InputError(f"{folder}: {new.passages} passages, but {new.rows} rows without {gone}; build it anew")
    missing = [part for part in sorted(new.parts) if not (folder / part).is_dir()]
    if missing:
        raise InputError(f"{folder / missing[0]}: was taken away meanwhile; run it again")


BUILD_REMEDY = "build one with rag-jax index CORPUS --out DIR, or name another folder"
