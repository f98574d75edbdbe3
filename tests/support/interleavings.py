"""Run in a process of its own: two writers on one store at random moments; told as JSON.

Whatever each was told to be made is there, in some order of both; whatever was refused was refused in a line.
"""

import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

from writers import (
    COUNTS,
    TOKENISES,
    Op,
    adds,
    build,
    builds,
    corpus,
    ended,
    explained,
    journal,
    leftovers,
    removes,
    replaces,
    started,
    swaps,
    told,
    work,
)

OLD, OTHER = corpus("old", 60), corpus("other", 40)


def drawn(writer: str, chance: random.Random, other: Path) -> list[Op]:
    """Changes of one writer, at random: some that both make, and that only one of them can."""
    new = corpus(f"{writer}new", chance.randint(1, 30))
    choices = [
        adds(new),
        adds(new),
        adds(corpus("both", 3)),
        removes(f"old{chance.randrange(60)}"),
        removes(f"other{chance.randrange(40)}"),
        replaces(corpus("old", chance.randint(1, 3), words=chance.choice([1, 30]))),
        swaps(other, OTHER),
        builds(corpus(f"{writer}built", 30), segment=20),
        COUNTS,
        TOKENISES,
    ]
    return chance.sample(choices, 4)


def interleaved(place: Path, original: Path, other: Path, seed: int) -> Counter:
    """One trial."""
    folder, chance = place / "store", random.Random(seed)
    shutil.copytree(original, folder)
    ops = [drawn(writer, chance, other) for writer in "ab"]
    logs = [place / writer for writer in "ab"]
    seeds = [random.Random(chance.random()) for _ in ops]
    children = [started(lambda n=n: work(folder, ops[n], logs[n], seeds[n], 0.03)) for n in (0, 1)]
    for child in children:
        ended(child)
    (first, refused), (second, also_refused) = (told(log, each) for log, each in zip(logs, ops, strict=True))
    names = [[op.name for op in each] for each in ops]
    assert explained(folder, tuple(OLD), ["build"], first, second), (
        seed,
        names,
        journal(folder),
        refused,
        also_refused,
    )
    assert not leftovers(folder), (seed, names)
    busy = sum("another process is writing" in each for each in (*refused, *also_refused))
    shutil.rmtree(place)
    return Counter(made=len(first) + len(second), busy=busy, refused=len(refused) + len(also_refused) - busy)


def main(place: Path, count: int) -> None:
    build(place / "original", OLD)
    build(place / "other", OTHER)
    total = Counter(trials=count)
    for seed in range(count):
        (place / str(seed)).mkdir()
        total += interleaved(place / str(seed), place / "original", place / "other", seed)
    print(json.dumps(total))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
