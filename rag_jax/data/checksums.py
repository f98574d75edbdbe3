"""The SHA-256 of every file of a folder, in the file `SHA256SUMS`, which `sha256sum --check` reads too."""

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rag_jax.data import files

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")


def write(folder: Path, excluded: Callable[[str], bool] = lambda name: False) -> None:
    """Write the checksums of the files in a folder and below it; `excluded` receives their relative paths."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = sorted(name for name in found if name != FILE and not excluded(name))
    files.replace_file(folder / FILE, (f"{each}  {name}\n" for name, each in of(folder, names).items()))


def read(folder: Path) -> dict[str, str] | None:
    """The checksums by the names of the files; None where there are none. Raises `ValueError` for a damaged list."""
    try:
        text = (folder / FILE).read_text(encoding="ascii")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{FILE} is damaged") from None
    found = {line[2]: line[1] for line in _LINE.finditer(text)}
    if sum(len(name) + len(each) + 3 for name, each in found.items()) != len(text):
        raise ValueError(f"{FILE} is damaged")
    return found


def first_damaged(folder: Path, expected: dict[str, str], names: Iterable[str]) -> str | None:
    """The first of some files that is missing, unknown or without its checksum; None: all are what was written."""
    names = list(names)
    found = of(folder, [name for name in names if (folder / name).is_file()])
    return next((name for name in names if name not in found or found[name] != expected.get(name)), None)


def of(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The checksums of files below a folder, computed in parallel: hashing releases the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(lambda name: files.checksum(folder / name), names), strict=True))
