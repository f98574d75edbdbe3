"""The trained towers as checkpoint folders, `WORKDIR/towers`, which RAG, transformers and sentence-transformers load.

A run that goes on writes them again. Only a folder whose files are all those that were written there, by their
checksums, is replaced.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from rag_jax import hub
from rag_jax.data import files
from rag_jax.errors import InputError
from rag_jax.hub import saving

FOLDER, MARKER = "towers", "rag-jax.towers"


def check(workdir: Path) -> None:
    """Raise `InputError` for a folder of towers that a run did not write, or that was changed since."""
    folder = workdir / FOLDER
    if not folder.exists() and not folder.is_symlink():
        return
    remedy = "move it away, or choose another --workdir"
    if folder.is_symlink() or not folder.is_dir() or not (folder / MARKER).is_file():
        raise InputError(f"{folder}: not written by a run; {remedy}")
    try:
        known = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder / MARKER}: damaged; {remedy}") from None
    found = _checksums(folder)
    odd = next((name for name in sorted(found) if known.get(name) != found[name]), None)
    if odd is not None:
        raise InputError(f"{folder / odd}: not written by a run, or changed since; {remedy}")


def write(workdir: Path, towers: Mapping[str, hub.TowerCheckpoint]) -> list[Path]:
    """Write towers. Returns their folders, in order.

    Args:
        towers: by the name of their folder, "question" and "passage"; or one, with the name "".
    """
    check(workdir)
    folder, new = workdir / FOLDER, workdir / f".{FOLDER}.new"
    if new.exists():
        shutil.rmtree(new)  # of an interrupted run: the name is ours, and the workdir is locked
    for name, checkpoint in towers.items():
        if name:
            new.mkdir(exist_ok=True)
        saving.write(new / name, checkpoint)
    files.write_atomically(new / MARKER, json.dumps(_checksums(new), indent=2) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)
    return [folder / name for name in towers]


def _checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file but the marker, by its path in the folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(folder)): files.checksum(path) for path in paths if path.name != MARKER}
