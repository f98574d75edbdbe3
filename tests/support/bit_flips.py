"""One-bit flips at random places of a folder's files, each noticed in one line, or harmless."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rag_jax.errors import InputError


class Outcomes(NamedTuple):
    """Where the flips were that were noticed, and the harmless ones."""

    noticed: list[str]
    harmless: list[str]

    def __str__(self) -> str:
        return f"{len(self.noticed)} noticed, {len(self.harmless)} harmless"


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


def outcomes(folder: Path, count: int, use: Callable[[], bool], seed: int = 0) -> Outcomes:
    """Use a folder with each of so many flips: which were noticed, by an `InputError` of one line, and which harmless.

    Fails where `use`, which says whether its result is that of the undamaged folder, returns False.
    """
    seen = Outcomes([], [])
    for where in flipped(folder, count, seed):
        try:
            is_same = use()
        except InputError as error:
            message = str(error)
            seen.noticed.append(where)
        else:
            message = ""
            seen.harmless.append(where)
            assert is_same, f"accepted, with another result: {where}"
        assert "\n" not in message, where
    return seen


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
