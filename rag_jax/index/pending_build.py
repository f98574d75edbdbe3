"""An unfinished build: its spec, the segments that the corpus was read into, and the store version that it replaces.

`building.json` holds it from the start of reading until the manifest is committed. While it exists, other writers keep
its parts and do not change the passages that it replaces.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_jax.data.validation import NotNegative, validate_dataclass
from rag_jax.errors import InputError
from rag_jax.index import ownership, part_files, sealed_json

FILE = "building.json"


@dataclass(frozen=True)
class PendingBuild:
    """An unfinished build."""

    build_spec: dict[str, Any]
    segments: tuple[tuple[str, NotNegative], ...] = ()  # names, numbers of passages; empty while the corpus is read
    replaces: tuple[str, ...] = ()  # the `Manifest.content` of the version that it replaces

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the segments."""
        return tuple(name for name, _ in self.segments)

    @property
    def passages(self) -> int:
        return sum(count for _, count in self.segments)

    def encoded(self, folder: Path) -> int:
        """The number of passages that have vectors."""
        return sum(count for name, count in self.segments if part_files.is_part(folder / "vectors" / name))


def read(folder: Path, there: Collection[str]) -> PendingBuild | None:
    """The unfinished build in a folder; None if there is none, or its segments are all in `there`, as committed.

    Raises `InputError` for a damaged file.
    """
    path = folder / FILE
    try:
        stored = sealed_json.read(path)
        if not sealed_json.is_intact(stored):
            raise ValueError
        fields = {"build_spec": stored["made_of"], "segments": stored["segments"], "replaces": stored["over"]}
        plan = validate_dataclass(PendingBuild, fields)
        if not all(ownership.is_part_name(f"passages/{name}") for name in plan.names):
            raise ValueError  # a path that leads out of the folder
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, InputError):
        raise InputError(f"{path}: damaged; delete it to begin that build again") from None
    return None if set(plan.names) <= set(there) else plan


def write(folder: Path, plan: PendingBuild) -> None:
    """Record a build until `delete`."""
    stored = {"made_of": plan.build_spec, "segments": plan.segments, "over": plan.replaces}
    sealed_json.write(folder / FILE, stored)


def delete(folder: Path) -> None:
    """Delete the record of a finished or discarded build."""
    (folder / FILE).unlink(missing_ok=True)
