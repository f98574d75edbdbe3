"""An unfinished build: what is made of which corpus, the segments it was read into, and the store that it replaces.

`building.json` says so from the moment that reading begins until the manifest names what was built. Other writers see
it: they leave its parts alone, and do not change the passages that it is to replace.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.index import part_files

FILE = "building.json"


@dataclass(frozen=True)
class PendingBuild:
    """An unfinished build."""

    build_spec: dict[str, Any]
    segments: tuple[tuple[str, int], ...] = ()  # names, and how many passages; none while the corpus is being read
    replaces: tuple[str, ...] = ()  # the parts of the store that it takes the place of; see `Manifest.content`

    @property
    def names(self) -> tuple[str, ...]:
        """Of the segments."""
        return tuple(name for name, _ in self.segments)

    @property
    def passages(self) -> int:
        return sum(count for _, count in self.segments)

    def encoded(self, folder: Path) -> int:
        """The passages that have their vectors already."""
        return sum(count for name, count in self.segments if part_files.is_part(folder / "vectors" / name))


def read(folder: Path, there: Collection[str]) -> PendingBuild | None:
    """The build that was begun in a folder, once its corpus is read, unless its segments are all `there`.

    Raises `InputError` for a damaged file.
    """
    path = folder / FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        segments = tuple((str(name), int(count)) for name, count in stored["segments"])
        plan = PendingBuild(dict(stored["made_of"]), segments, tuple(stored["over"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path}: damaged; delete it to begin that build again") from None
    return None if set(plan.names) <= set(there) else plan


def write(folder: Path, plan: PendingBuild) -> None:
    """Keep a build in mind until `forget`."""
    stored = {"made_of": plan.build_spec, "segments": plan.segments, "over": plan.replaces}
    files.replace_file(folder / FILE, [json.dumps(stored) + "\n"])


def delete(folder: Path) -> None:
    """It is finished, or given up."""
    (folder / FILE).unlink(missing_ok=True)
