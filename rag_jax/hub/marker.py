"""The marker of checkpoint folders that a run wrote: `rag-jax.towers` in `towers/`, with the SHA-256 of every file."""

from pathlib import Path

from rag_jax.data import checksums, strict_json
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError

FOLDERS = "towers", "generator", "adapter"  # those of a workdir that have a marker


def path_in(folder: Path) -> Path:
    """The marker of a folder."""
    return folder / f"rag-jax.{folder.name}"


def all_checksums(folder: Path) -> dict[str, str]:
    """The checksum of every file, by its path in the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return checksums.of(folder, [str(path.relative_to(folder)) for path in paths])


def read(folder: Path, remedy: str) -> dict[str, str]:
    """The checksums in a folder's marker. Raises `InputError` for a damaged one."""
    path = path_in(folder)
    return validate_value(dict[str, str], strict_json.read(path, remedy, remedy), "the marker", f"{path}: ")


def verify(source: Path) -> None:
    """Compare the files of a checkpoint with the marker in its folder, or in the one around it, if there is one.

    Raises `InputError` for a file that is missing or changed.
    """
    for folder in (source, source.parent):
        path = path_in(folder)
        if folder.name not in FOLDERS or not path.is_file():
            continue
        known = read(folder, "copy the folder again")
        names = [name for name in sorted(known) if (folder / name).is_relative_to(source)]
        odd = checksums.first_damaged(folder, known, names)
        if odd is not None:
            what = "missing, or changed since a run wrote it"
            raise InputError(f"{folder / odd}: {what}; copy it again, or delete {path} if you changed it on purpose")
