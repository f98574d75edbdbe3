"""The parts of a knowledge store: `manifest.json`, whose atomic replacement is the only way that a store changes.

    DIR/manifest.json                          version, counts, dtypes, checksums (its own too), fingerprints, changes
    DIR/passages/000000/, vectors/000000/      the segments: ids, titles and texts; d(z) as raw rows
    DIR/tokens-FINGERPRINT/000000/             their tokens, for each generator that they were added for
    DIR/removed/000003/                        the rows whose passages are removed, as of version 3
    DIR/engines/…                              files of FAISS and BM25
    DIR/rag-jax.store                          the marker and the lock of the store's folder, see `ownership`

Parts are never changed, only added. Parts that neither the manifest nor an unfinished build references are left by
crashes; the next change deletes them. An open version keeps its memory maps even when its files are deleted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from rag_jax.corpus.chunking import Cut
from rag_jax.data import files
from rag_jax.data.json_object import JsonObject
from rag_jax.data.validation import Count, NotNegative, validate_dataclass
from rag_jax.errors import InputError
from rag_jax.index import ownership, part_files, pending_build, sealed_json
from rag_jax.index.pending_build import PendingBuild
from rag_jax.index.truncation import Truncation

FILE = "manifest.json"
FORMAT = 5
UNSEALED = 4  # the format before, without the checksums of the manifest itself and of parts outside of segments
JSON_KEYS = {"build_spec": "made_of"}  # fields of `Manifest` with another name in the file
NOT_FIELDS = ("format", "version", "rows", sealed_json.KEY)  # what else the file holds


@dataclass(frozen=True)
class Segment:
    """Rows that were written together; `parts` maps its folders to the checksums of their descriptions."""

    name: str
    passages: NotNegative
    parts: dict[str, str]
    truncated: dict[str, tuple[NotNegative, NotNegative]]  # by kind of part: passages, and tokens that they lose

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its parts: passages, vectors, tokens of some generators."""
        return tuple(Path(part).parent.name for part in self.parts)


@dataclass(frozen=True)
class Manifest:
    """One version of a store."""

    tower: dict[str, Any]  # its `TextEncoder.spec`, and where it was loaded from
    width: Count  # D
    dtype: str  # of the vectors
    passages: NotNegative  # without removed ones
    segments: tuple[Segment, ...]
    generators: dict[str, dict[str, Any]] = field(default_factory=dict)  # by `PassageTokenizer.key`
    removed: str | None = None  # the part that lists the removed rows
    engines: dict[str, dict[str, Any]] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)  # of the descriptions of removed rows and engines, by part
    cut: Cut | None = None  # of the build; None: not known
    build_spec: dict[str, Any] | None = None  # of the build; None once passages have changed
    changes: tuple[dict[str, Any], ...] = ()  # the history, one entry for each version

    @property
    def question_source(self) -> str:
        """Where the question tower was loaded from: as the passage tower, unless another is named."""
        return self.tower.get("question_source", self.tower["source"])

    @property
    def question_fingerprint(self) -> str | None:
        """The fingerprint of that tower; None: not known."""
        return self.tower.get("question_fingerprint" if "question_source" in self.tower else "fingerprint")

    @property
    def version(self) -> int:
        """The number of changes."""
        return len(self.changes)

    @property
    def content(self) -> tuple[str, ...]:
        """The parts that determine the passages; versions of a store with equal content hold the same passages."""
        return (*(segment.name for segment in self.segments), *([self.removed] if self.removed else ()))

    @property
    def parts(self) -> dict[str, str]:
        """The checksums of the descriptions of all parts, by their paths relative to the store's folder."""
        return {part: each for segment in self.segments for part, each in segment.parts.items()} | self.checksums

    @property
    def unsegmented(self) -> tuple[str, ...]:
        """The paths of the parts outside of segments: removed rows, engines."""
        engines = (engine["part"] for engine in self.engines.values() if "part" in engine)
        return (*([self.removed] if self.removed else []), *engines)

    @property
    def rows(self) -> int:
        """N, with removed rows: a row number denotes the same passage in every version."""
        return sum(segment.passages for segment in self.segments)

    @property
    def next_segment(self) -> int:
        """The first number that no segment has used."""
        return self.changes[-1]["next_segment"] if self.changes else 0

    def truncated(self, kind: str = "vectors") -> Truncation:
        """The truncation by the tower, or by a generator, of all passages ever added."""
        return Truncation.total(segment.truncated[kind] for segment in self.segments if kind in segment.truncated)

    def next_version(self, change: str, **fields: Any) -> "Manifest":
        """The next version. Segment numbers are never reused, so that an old part is never mistaken for a new one."""
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
    """Read a store's manifest. Raises `InputError` if it is missing, damaged or of another format."""
    path = folder / FILE
    try:
        stored = sealed_json.read(path)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "the build was not finished: run it again" if (folder / pending_build.FILE).exists() else BUILD_REMEDY
        raise InputError(f"{path}: no knowledge store there; {remedy}") from None
    except (OSError, ValueError):
        raise InputError(f"{path}: damaged; {part_files.REMEDY}") from None
    if "segments" not in stored:
        raise InputError(f"{path}: not the manifest of a knowledge store; {BUILD_REMEDY}")
    is_sealed = sealed_json.KEY in stored
    if stored.get("format") != (FORMAT if is_sealed else UNSEALED):
        raise InputError(f"{path}: of another version of this library; rebuild the store in another folder")
    try:
        found = _manifest(stored, is_sealed)
    except (InputError, TypeError, KeyError, ValueError, AttributeError):
        raise InputError(f"{path}: damaged; {part_files.REMEDY}") from None
    return found if is_sealed else _with_checksums(folder, found)


@contextmanager
def transaction(folder: Path, keep_waiting: Callable[[], bool] = lambda: False) -> Iterator[Manifest]:
    """Lock an existing store for changing, delete unreferenced parts, and yield the current version.

    Raises `InputError` as `read` and `ownership.lock`, which also defines `keep_waiting`.
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
    """Replace version `old` (None: no version) by `new`, and delete the parts that only `old` had.

    Requires the lock. Raises `InputError`, and changes nothing, if the current version is not `old`, or if the counts
    and parts of the new one do not match the files.
    """
    if (read(folder) if (folder / FILE).exists() else None) != old:
        raise InputError(f"{folder}: was changed by another process; run it again")
    known = {} if old is None else old.checksums
    new = replace(new, checksums={part: known.get(part) or _checksum(folder, part) for part in new.unsegmented})
    _check_counts(folder, new)
    stored = {JSON_KEYS.get(field, field): value for field, value in asdict(new).items()}
    sealed_json.write(folder / FILE, {"format": FORMAT, "version": new.version, "rows": new.rows, **stored})
    delete_unreferenced(folder, new)
    return new


def delete_unreferenced(folder: Path, found: Manifest | None) -> None:
    """Delete the parts that neither a version (None: there is none) nor an unfinished build references.

    Tokens of their segments are kept, referenced or not, so that an interrupted tokenisation can resume.
    """
    plan = find_pending_build(folder, found)
    if plan is None:
        pending_build.delete(folder)
    parts = {} if found is None else found.parts
    names = {segment.name for segment in (found.segments if found else ())} | {*(plan.names if plan else ())}

    def is_referenced(part: str) -> bool:
        kind, _, name = part.partition("/")
        return part in parts or (ownership.SEGMENTS.fullmatch(kind) is not None and name in names)

    ownership.delete_parts(folder, is_referenced)


def read_if_there(folder: Path) -> Manifest | None:
    """The current version of a store; None where there is no store. Raises as `read`."""
    return read(folder) if (folder / FILE).exists() else None


def find_pending_build(folder: Path, found: Manifest | None) -> PendingBuild | None:
    """The unfinished build that is to replace a version; see `pending_build.read`."""
    return pending_build.read(folder, () if found is None else found.content)


def next_segment_number(folder: Path, found: Manifest | None) -> int:
    """The number of the next segment, which no version and no part on disk has used."""
    return max(0 if found is None else found.next_segment, ownership.next_free_number(folder))


def removed_rows(folder: Path, found: Manifest) -> Int[np.ndarray, " removed"]:
    """The rows of a version whose passages are removed. Raises `InputError` for a damaged list."""
    if not found.removed:
        return np.zeros(0, np.int64)
    part_files.verify(folder / found.removed, found.parts[found.removed])
    return part_files.read_arrays(folder / found.removed)["rows"]


def verify(folder: Path, found: Manifest) -> int:
    """Compare every byte of every part of a version with its checksum. Returns the number of bytes.

    The parts are shared by threads. Raises `InputError` for the first that differs.
    """
    with ThreadPoolExecutor() as pool:
        return sum(pool.map(lambda part: part_files.verify(folder / part[0], part[1]), found.parts.items()))


def make_segment(
    folder: Path, name: str, passages: int, kinds: Iterable[str], known: Mapping[str, str] | None = None
) -> Segment:
    """The `Segment` of parts on disk; `known` are checksums of descriptions that a manifest has already."""
    known, kinds = known or {}, tuple(kinds)
    parts = {part: known.get(part) or _checksum(folder, part) for part in (f"{kind}/{name}" for kind in kinds)}
    counts = {
        kind: part_files.read_arrays(folder / kind / name, parts[f"{kind}/{name}"])
        for kind in kinds
        if kind != "passages"
    }
    return Segment(name, passages, parts, {kind: _truncated(held["truncated"]) for kind, held in counts.items()})


def _truncated(counts: np.ndarray) -> tuple[int, int]:
    passages, tokens = counts.tolist()
    return passages, tokens


def _checksum(folder: Path, part: str) -> str:
    """The checksum of a part's description. Raises `InputError` for a part that is missing."""
    try:
        return files.checksum(folder / part / part_files.DESCRIPTION_FILE)
    except OSError:
        raise InputError(f"{folder / part}: was deleted by another process; run it again") from None


def _manifest(stored: dict[str, Any], is_sealed: bool) -> Manifest:
    """The version that a file describes. Raises errors of several types for a damaged one."""
    if is_sealed and not sealed_json.is_intact(stored):
        raise ValueError
    fields = {key: each for key, each in stored.items() if key not in NOT_FIELDS}
    fields |= {field: fields.pop(key) for field, key in JSON_KEYS.items()}
    segments = tuple(validate_dataclass(Segment, segment) for segment in fields.pop("segments"))
    cut = fields.pop("cut", None) or ((fields["build_spec"] or {}).get("corpus") or {}).get("cut")  # of older stores
    cut = None if cut is None else validate_dataclass(Cut, cut)
    found = validate_dataclass(Manifest, fields | {"segments": segments, "cut": cut})
    _check_keys([found.tower], TOWER, "question_source", "question_fingerprint", "network")
    _check_keys(found.generators.values(), GENERATOR)
    _check_keys(found.engines.values(), ENGINE, "part", "factory", "recall")
    _check_keys(found.changes, CHANGE)
    if not all(map(ownership.is_part_name, (*found.parts, *found.unsegmented))):
        raise ValueError  # a path that leads out of the folder
    if not all(each.parts.keys() >= {f"passages/{each.name}", f"vectors/{each.name}"} for each in found.segments):
        raise ValueError
    if is_sealed and set(found.unsegmented) != set(found.checksums):
        raise ValueError
    return found


TOWER = {
    **dict.fromkeys(("source", "question_source", "fingerprint", "question_fingerprint", "template"), str),
    **{"max_length": Count, "network": dict[str, str]},
}
GENERATOR = {"tokenizer": str, "template": str, "max_length": Count}
ENGINE = {"rows": NotNegative, "part": str, "factory": str, "recall": dict[str, float]}
CHANGE = {"change": str, **dict.fromkeys(("version", "passages", "rows", "next_segment"), NotNegative)}
"""The types of what the library reads of the objects in a manifest."""


def _check_keys(found: Iterable[Mapping[str, Any]], kinds: Mapping[str, Any], *optional: str) -> None:
    """Raise `InputError` for an object that lacks a key, or has a value of another type."""
    for each in found:
        for key, kind in kinds.items():
            if key in each or key not in optional:
                JsonObject(FILE, each).read(key, kind)


def _with_checksums(folder: Path, found: Manifest) -> Manifest:
    """A version of the format before with the checksums that it lacks; without engines whose parts have none."""

    def is_described(engine: Mapping[str, Any]) -> bool:
        return "part" not in engine or part_files.is_part(folder / engine["part"])

    found = replace(found, engines={name: each for name, each in found.engines.items() if is_described(each)})
    return replace(found, checksums={part: _checksum(folder, part) for part in found.unsegmented})


def _check_counts(folder: Path, new: Manifest) -> None:
    removed = len(removed_rows(folder, new))
    if new.passages != new.rows - removed:
        raise InputError(f"{folder}: {new.passages} passages, but {new.rows} rows, {removed} removed; rebuild it")
    missing = [part for part in sorted(new.parts) if not (folder / part).is_dir()]
    if missing:
        raise InputError(f"{folder / missing[0]}: was deleted by another process; run it again")


BUILD_REMEDY = "build one with rag-jax index CORPUS --out DIR, or name another folder"
