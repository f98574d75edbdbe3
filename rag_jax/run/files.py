"""Small files written whole: whoever reads one finds the old or the new one, never half of it, whatever interrupts."""

from pathlib import Path

from rag_jax.knowledge import disk


def write_whole(path: Path, text: str) -> None:
    """Replace a file of a workdir, where one process writes: what another left when it was killed is taken away.

    Raises `InputError` for a full disk and a folder that cannot be written: what was there before is still there.
    """
    side = path.with_name(f".{path.name}.tmp")
    with disk.writing(path):
        side.unlink(missing_ok=True)
    disk.write_lines(path, [text], side)
