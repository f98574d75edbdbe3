"""One-bit flips at random places of a folder's files, each noticed in one line, or harmless."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from rag_jax.errors import InputError


def flipped(folder: Path, count: int, seed: int = 0) -> Iterator[str]:
    """Flip a bit, yield where it is, and restore it; so many times.

    A file is drawn first, then a byte of it, so that small files get as many flips as large ones.
    """
    chance = random.Random(seed)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(count):
        path = chance.choice(paths)
        at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        _flip(path, at, bit)
        try:
            yield f"{path.relative_to(folder)}, byte {at}, bit {bit}"
        finally:
            _flip(path, at, bit)


def outcomes(folder: Path, count: int, use: Callable[[], bool], seed: int = 0) -> Counter[str]:
    """Use a folder with each of so many flips: how many were "noticed", by an `InputError` of one line, or "harmless".

    Fails where `use`, which says whether its result is that of the undamaged folder, returns False.
    """
    seen = Counter()
    for where in flipped(folder, count, seed):
        try:
            is_same = use()
        except InputError as error:
            message = str(error)
            seen["noticed"] += 1
        else:
            message = ""
            seen["harmless"] += 1
            assert is_same, f"accepted, with another result: {where}"
        assert "\n" not in message, where
    return seen


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
