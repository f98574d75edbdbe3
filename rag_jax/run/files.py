"""Small files written whole: whoever reads one finds the old or the new one, never half of it, whatever interrupts."""

import os
from pathlib import Path

from rag_jax.knowledge import disk


def write_whole(path: Path, text: str) -> None:
    """Write a file to the side and rename it into place; a link of its name is replaced, never followed.

    Raises `InputError` for a full disk and a folder that cannot be written: what was there before is still there.
    """
    side = path.with_name(f".{path.name}.tmp")
    with disk.writing(path):
        side.unlink(missing_ok=True)  # of a writer that was killed
        try:
            with side.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            side.replace(path)
        finally:
            side.unlink(missing_ok=True)
        disk.sync(path.parent)
