"""Folders of results that a command writes again, and proof that they are its own.

A folder is claimed by a marker, which lists the SHA-256 of the files written there. Only a file with one of these
checksums is ever replaced: not one that another program wrote, nor one that somebody has changed.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rag_jax.data import files, json_object, outputs, strict_json
from rag_jax.errors import InputError


@dataclass(frozen=True)
class OwnFolder:
    """A folder that belongs to one kind of results."""

    path: Path
    marker: str  # the file that claims the folder
    of: str  # what it holds, for messages: "experiments"
    remedy: str  # at the end of messages, as "choose another --output"
    workdir: Path | None = None  # the command's own workdir, in which the folder lies

    def check(self, names: Iterable[str] = ()) -> None:
        """Raise `InputError` for a path that exists and is neither an empty folder nor one that is claimed.

        Also for files of these names in it that are not those which were written there, and inside a store or a workdir
        other than its own.
        """
        outputs.check_outside(self.path / self.marker if self.workdir is None else self.workdir)
        if not os.path.lexists(self.path):
            return
        if self.path.is_symlink() or not self.path.is_dir():
            raise InputError(f"{self.path}: is a link or no folder; {self.remedy}")
        with files.disk_errors(self.path):
            found = sorted(os.listdir(self.path))
        if found and self.marker not in found:
            raise InputError(f"{self.path}: holds {found[0]}, but no {self.of}; {self.remedy}")
        known = self._checksums()
        for name in names:
            if os.path.lexists(self.path / name) and not _is_own(self.path / name, known):
                raise InputError(f"{self.path / name}: not written by this command, or changed since; move it away")

    def claim(self) -> None:
        """Claim a new or empty folder. Raises as `check`."""
        self.check()
        with files.disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / self.marker).exists():
            self._write_marker([])

    def write(self, contents: Mapping[str, bytes], instead_of: Iterable[str] = ()) -> None:
        """Write files into the claimed folder; those of a former run are replaced. Raises as `check`.

        Files named by `instead_of` that a former run wrote, and this one does not, are removed.
        """
        stale = [name for name in instead_of if name not in contents]
        self.check([*contents, *stale])
        new = [hashlib.sha256(data).hexdigest() for data in contents.values()]
        self._write_marker([*self._checksums(), *new])  # first: an interruption leaves no file without its checksum
        for name, data in contents.items():
            path = self.path / name
            temporary = path.with_name(f".{name}.{os.getpid()}.tmp")
            with files.disk_errors(path), temporary.open("xb") as file:
                try:
                    file.write(data)
                    file.flush()
                    os.replace(temporary, path)
                finally:
                    temporary.unlink(missing_ok=True)
        for name in stale:
            (self.path / name).unlink(missing_ok=True)
        self._write_marker([*dict.fromkeys([*self._checksums(), *new])])

    def _checksums(self) -> list[str]:
        """The checksums in the marker. Raises `InputError` where it is none."""
        path = self.path / self.marker
        if not path.exists():
            return []
        try:
            return [*json_object.read(path, self.remedy, self.remedy).read("checksums", tuple[str, ...])]
        except InputError:
            raise InputError(f"{path}: not a marker of {self.of}; {self.remedy}") from None

    def _write_marker(self, checksums: list[str]) -> None:
        files.write_atomically(self.path / self.marker, strict_json.dumps({"checksums": checksums}, indent=2) + "\n")


def _is_own(path: Path, known: list[str]) -> bool:
    return path.is_file() and not path.is_symlink() and files.checksum(path) in known
