"""Trained networks as checkpoint folders of a workdir: `WORKDIR/towers`, `WORKDIR/generator`.

RAG, transformers and sentence-transformers load them. A run that goes on writes them again. Only a folder whose files
are all those that were written there, by their checksums, is replaced.
"""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rag_jax import hub
from rag_jax.data import files, strict_json
from rag_jax.errors import InputError
from rag_jax.hub import marker, saving
from rag_jax.index.encoder import TextEncoder
from rag_jax.models import registry

TOWERS, GENERATOR, ADAPTER = marker.FOLDERS
Writer = Callable[[Path], None]
"""Writes a new folder."""


def check(folder: Path) -> None:
    """Raise `InputError` for a folder of checkpoints that a run did not write, or that was changed since."""
    if not folder.exists() and not folder.is_symlink():
        return
    remedy = "move it away, or choose another --workdir"
    if folder.is_symlink() or not folder.is_dir() or not marker.path_in(folder).is_file():
        raise InputError(f"{folder}: not written by a run; {remedy}")
    known, found = marker.read(folder, remedy), marker.all_checksums(folder)
    del found[marker.path_in(folder).name]
    odd = next((name for name in sorted(found) if known.get(name) != found[name]), None)
    if odd is not None:
        raise InputError(f"{folder / odd}: not written by a run, or changed since; {remedy}")


def write(folder: Path, parts: Mapping[str, Writer]) -> list[Path]:
    """Write checkpoints. Returns their folders, in order.

    Args:
        parts: by the name of their folder, as "question" and "passage"; or one, with the name "".
    """
    check(folder)
    new = folder.with_name(f".{folder.name}.new")
    if new.exists():
        shutil.rmtree(new)  # of an interrupted run: the name is ours, and the workdir is locked
    for name, writer in parts.items():
        if name:
            new.mkdir(exist_ok=True)
        writer(new / name)
    written = strict_json.dumps(marker.all_checksums(new), indent=2) + "\n"
    files.write_atomically(new / marker.path_in(folder).name, written)
    if folder.exists():
        shutil.rmtree(folder)
    new.rename(folder)
    return [folder / name for name in parts]


def tower_fingerprint(folder: str) -> str:
    """The fingerprint of a saved tower, as commands that load it find it: saving completes some GGUF tokenizers."""
    saved = hub.load_tower(folder)
    assert saved.tokenizer is not None
    return TextEncoder(registry.tower(saved.config), saved.params, saved.tokenizer, max_length=0).fingerprint


def write_towers(workdir: Path, towers: Mapping[str, hub.TowerCheckpoint]) -> list[Path]:
    """`write` into `WORKDIR/towers`."""
    parts = {name: partial(saving.write, checkpoint=checkpoint) for name, checkpoint in towers.items()}
    return write(workdir / TOWERS, parts)
