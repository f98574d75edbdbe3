"""Run in a process of its own: SIGKILL at random moments of a build, an add and a swap; told as JSON.

Each trial is a forked process that changes a store and is killed; then the store is opened, every byte compared with
its checksum, and what it holds with the old and the new version. A build that was killed is taken up again, and must
come out as the same bytes.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rag_jax.knowledge import building, living, manifest
from rag_jax.knowledge.passages import Passage
from rag_jax.knowledge.store import open_store

WIDTH = 64


class ByWords:
    """An encoder without JAX, whose threads a fork would not have: a vector is what the text's digest says."""

    source = "words"
    described = {"fingerprint": "words", "max_length": 8, "template": "{text}", "norm": None}  # noqa: RUF012

    def passages(self, passages: list[Passage], done: Callable[[int], None] = lambda count: None) -> np.ndarray:
        seeds = (int.from_bytes(hashlib.sha256(repr(passage).encode()).digest()[:4], "little") for passage in passages)
        found = np.stack([np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32) for seed in seeds])
        done(len(found))
        return found


ENCODER: Any = ByWords()
OLD = [Passage(f"p{i}", "", f"number {i} " * 9) for i in range(600)]
NEW = [Passage(f"n{i}", "", f"other {i} " * 9) for i in range(400)]


def build(folder: Path, passages: list[Passage], segment: int = 50) -> None:
    plan = building.read(folder, passages, building.describe(ENCODER, None), segment)
    building.encode(folder, plan, ENCODER, None)
    building.commit(folder, plan, ENCODER, None)


def held(folder: Path) -> list[Passage] | None:
    """What the store holds, every byte of it verified; None where there is none."""
    if not (folder / manifest.FILE).exists():
        return None
    found = manifest.read(folder)
    for segment in found.segments:
        for part, expected in segment.parts.items():
            manifest.verify(folder, part, expected)
    store = open_store(folder, None, None)
    passages = list(store.living())
    rows = store.find([passage.id for passage in passages])
    np.testing.assert_array_equal(store.vectors[rows], ENCODER.passages(passages))
    return passages


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def started(work: Callable[[], object]) -> int:
    """The process that works."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(sys.exc_info()[0] is not None)
    return child


def finished(work: Callable[[], object]) -> float:
    """Seconds that the work takes when nobody kills it."""
    began = time.perf_counter()
    assert os.waitpid(started(work), 0)[1] == 0
    return time.perf_counter() - began


def killed(work: Callable[[], object], after: float) -> bool:
    """Kill the work after so many seconds; False where it came to its end before."""
    child = started(work)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def trials(name: str, count: int, place: Path, chance: random.Random) -> Counter:
    """Kill one kind of change so many times."""
    folder, original, other, whole = place / "store", place / "original", place / "other", place / "whole"
    build(original, OLD)
    build(other, NEW)
    build(whole, OLD)
    work, after = {
        "build": (lambda: build(folder, OLD), OLD),
        "add": (lambda: living.add(folder, NEW, ENCODER), OLD + NEW),
        "swap": (lambda: living.swap(folder, other), NEW),
    }[name]
    before = None if name == "build" else OLD

    def restore() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if before is not None:
            shutil.copytree(original, folder)

    restore()
    longest, told = finished(work), Counter()
    while told["killed"] < count:
        restore()
        if not killed(work, chance.uniform(0, 1.1 * longest)):
            told["finished"] += 1
        else:
            told["killed"] += 1
        found = held(folder)
        assert found in (before, after), f"{name}: neither the old nor the new version"
        told["new" if found == after else "old"] += 1
        if found != after:  # the same again
            finished(work)
            assert held(folder) == after
            if name == "build":
                assert contents(folder) == contents(whole), "other bytes"
    shutil.rmtree(place)
    return told


def main(place: Path, count: int) -> None:
    chance = random.Random(0)
    print(json.dumps({name: trials(name, count, place / name, chance) for name in ("build", "add", "swap")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
