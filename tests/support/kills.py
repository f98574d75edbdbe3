"""Run in a process of its own: SIGKILL at random moments of builds and changes, beside a second writer; told as JSON.

Each trial is a forked process that changes a store and is killed, while another one makes changes of its own to it.
Then every byte of the store is compared with its checksum, and what it holds with what some order of both writers'
changes makes; the change that was killed is in it as a whole, or not at all. It is made again, and must come to its
end: a build that was killed comes out as the same bytes.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
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
    held,
    journal,
    leftovers,
    removes,
    replaces,
    started,
    swaps,
    told,
    work,
)

OLD, NEW, OTHER = corpus("old", 300), corpus("new", 200), corpus("other", 200)


def changes(other: Path) -> dict[str, Op]:
    """What is killed."""
    return {
        "build": builds(OLD),
        "rebuild": builds(NEW),
        "add": adds(NEW),
        "replace": replaces(corpus("old", 100, words=1)),
        "swap": swaps(other, OTHER),
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def seconds(op: Op, folder: Path) -> float:
    """That a change takes when nobody disturbs it."""
    began = time.perf_counter()
    ended(started(lambda: op.act(folder)))
    return time.perf_counter() - began


def killed(child: int, after: float) -> bool:
    """Kill a process after so many seconds; False where it came to its end before."""
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def trials(name: str, count: int, place: Path, chance: random.Random) -> Counter:
    """Kill one kind of change so many times."""
    folder, other, original, whole, log = (place / each for each in ("store", "other", "original", "whole", "log"))
    build(original, OLD)
    build(other, OTHER)
    build(whole, OLD)
    op, from_nothing, total = changes(other)[name], name == "build", Counter()
    before, known = (None, []) if from_nothing else (tuple(OLD), ["build"])

    def restore() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        if not from_nothing:
            shutil.copytree(original, folder)

    restore()
    longest = seconds(op, folder)
    while total["killed"] < count:
        restore()
        ops = [adds(corpus("beside", 3)), COUNTS, TOKENISES, removes("old299"), replaces(corpus("beside", 2, words=1))]
        ops, own = chance.sample(ops, 3), random.Random(chance.random())
        beside = started(lambda ops=ops, own=own: work(folder, ops, log, own, longest / 2))
        was_killed = killed(started(lambda: op.act(folder)), chance.uniform(0, 1.1 * longest))
        total["killed" if was_killed else "finished"] += 1
        ended(beside)
        made, refused = told(log, ops)
        with_it, without = (explained(folder, before, known, each, made) for each in ([op], []))
        assert with_it or without, f"{name}: not what was made: {journal(folder)}, {[each.name for each in made]}"
        total["new" if with_it else "old"] += 1
        total["beside"] += len(made)
        total["refused beside"] += len(refused)
        if without:  # the same again
            state, names = held(folder), journal(folder)
            seconds(op, folder)
            assert explained(folder, state, names, [op], [])
            if from_nothing:
                assert contents(folder) == contents(whole), "other bytes"
        assert not leftovers(folder)
    shutil.rmtree(place)
    return total


def main(place: Path, count: int) -> None:
    chance = random.Random(0)
    names = ("build", "rebuild", "add", "replace", "swap")
    print(json.dumps({name: trials(name, count, place / name, chance) for name in names}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
