"""What the operating system refuses: files that may not be read or written, and disks that are full."""

import errno
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, Ended, Tree
from faults.ground import BUILD, QUESTION

NOBODY = 65534
MODEL = ("--workdir", "run")
EVALUATE = ("evaluate", "--questions", "test.jsonl", "--output", "out", "--predictions", "predictions.jsonl")
REFUSALS = ("refusals", "prompts.jsonl", "--output", "out", "--completions", "completions.jsonl")
COMPARE = ("compare", "evaluation", "other")
MINE = ("--index", "store", "--engine", "device", "--output", "mined.jsonl")
WRITES: dict[str, tuple[str, tuple[str, ...], str]] = {  # command line, and the part of the ground that it needs
    "a store": ("new", ("index", "passages.jsonl", "--out", "new", *BUILD), "files"),
    "BM25": ("store", ("index", "--out", "store", "--bm25", "--change", "swap"), "store"),
    "passages added": ("store", ("index", "more.jsonl", "--out", "store", "--change", "add"), "store"),
    "answers": ("out.jsonl", ("answer", "--file", "questions.jsonl", *MODEL, "--output", "out.jsonl"), "run"),
    "an evaluation": ("out", EVALUATE, "files"),
    "refusals": ("out", REFUSALS, "files"),
    "negatives": ("mined.jsonl", ("mine", "train.jsonl", *MINE), "store"),
    "a comparison": ("out.json", (*COMPARE, "--output", "out.json"), "store"),
    "a checkpoint": ("converted", ("convert", "run", "converted"), "run"),
    "a run": ("new", ("train", "config.py", "--workdir", "new"), "files"),
    "a bi-encoder": ("new", ("train", "contrastive.py", "--workdir", "new"), "files"),
    "a tuned generator": ("new", ("train", "instruction.py", "--workdir", "new"), "files"),
}  # fmt: skip
READS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "a corpus": ("passages.jsonl", ("index", "passages.jsonl", "--out", "new", *BUILD), "files"),
    "a tower": ("tower/model.safetensors", ("index", "passages.jsonl", "--out", "new", *BUILD), "files"),
    "a tower's config": ("tower/config.json", ("index", "passages.jsonl", "--out", "new", *BUILD), "files"),
    "questions": ("test.jsonl", EVALUATE, "files"),
    "predictions": ("predictions.jsonl", EVALUATE, "files"),
    "a config": ("config.py", ("train", "config.py", "--workdir", "new"), "files"),
    "training questions": ("train.jsonl", ("train", "config.py", "--workdir", "new"), "files"),
    "a manifest": ("store/manifest.json", ("index", "--info", "store"), "store"),
    "a store": ("store", ("index", "--info", "store"), "store"),
    "a store to search": ("store", ("search", QUESTION, "--index", "store"), "store"),
    "a workdir": ("run", ("answer", QUESTION, *MODEL), "run"),
    "a workdir's config": ("run/config.json", ("answer", QUESTION, *MODEL), "run"),
    "checkpoints": ("run/checkpoints", ("convert", "run", "converted"), "run"),
    "scores": ("evaluation/scores.jsonl", COMPARE, "store"),
    "an evaluation": ("evaluation", COMPARE, "store"),
}
LIMITS = (0, 500, 3_000, 20_000, 100_000)  # bytes of the largest file


def cases(sound: Callable[[Case], Ended]) -> Iterator[Case]:
    """Every file that is read, unreadable; every place that is written, read-only or full at various moments.

    `sound` runs a case on a disk with room; a command that does not refuse must come to the same end.
    """
    for what, (path, argv, needs) in READS.items():
        if os.getuid() == 0:
            yield Case(f"permissions: unreadable: {what}", argv, _mode(path, 0), _nobody, needs=needs, leaves=NOTHING)
    for what, (path, argv, needs) in WRITES.items():
        common: dict[str, Any] = {"needs": needs, "leaves": rf"(?!.*\.tmp){path}(/.*)?", "seconds": 120}
        if os.getuid() == 0:
            yield Case(f"permissions: read-only: {what}", argv, _read_only(path), _nobody, says=path, **common)
        gives = _fits(sound, Case("sound", argv, _more, needs=needs, seconds=600))
        for limit in LIMITS:
            yield Case(f"full disks: {what}, {limit} bytes", argv, _more, _limit(limit), gives=gives, **common)
        for number in ERRORS:
            for moment in (0, 2, 9):
                name = f"full disks: {what}, {errno.errorcode[number]} at write {moment}"
                yield Case(name, argv, _more, _failing(number, moment), gives=gives, **common)


NOTHING = "()"
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


STEP = re.compile(r"(.*/)?checkpoints/[0-9]+/.*")  # what is inside the checkpoint of a step has random names
TIMED = re.compile(r"new/(results\.json|timings\.jsonl|index/manifest\.json)")  # holds times, or where the command ran


def _fits(sound: Callable[[Case], Ended], case: Case) -> Callable[[Ended], bool]:
    """Whether all of it was written: the limit was never reached."""

    def gives(ended: Ended) -> bool:
        right = sound(case)
        assert right.code == 0, right.err
        return _held(ended) == _held(right)

    return gives


def _held(ended: Ended) -> Tree:
    """What is in the folder at the end, as far as two runs of a command leave the same there."""
    found = {name: held for name, held in ended.after.items() if not STEP.fullmatch(name)}
    return {name: "timed" if TIMED.fullmatch(name) else held for name, held in found.items()}


def _more(here: Path) -> None:
    (here / "more.jsonl").write_text('{"id": "new", "title": "New", "text": "New is red ."}\n')


def _nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _mode(path: str, mode: int) -> Callable[[Path], object]:
    def spoil(here: Path) -> None:
        _open(here)
        os.chmod(here / path, mode)

    return spoil


def _read_only(path: str) -> Callable[[Path], object]:
    """The folder may not be written, nor what is in it."""

    def spoil(here: Path) -> None:
        _more(here)
        _open(here, 0o555, 0o444)

    return spoil


def _open(here: Path, folders: int = 0o777, files: int = 0o666) -> None:
    for place, _, names in os.walk(here):
        os.chmod(place, folders)
        for name in names:
            os.chmod(os.path.join(place, name), files)


def _limit(size: int) -> Callable[[], None]:
    """No file of this process grows beyond so many bytes, whoever writes it."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def _failing(number: int, moment: int) -> Callable[[], None]:
    """Synchronisation and new files fail from the n-th on, as where the disk fills up."""

    def fail() -> None:
        count = 0
        real_open, real_fsync, here = os.open, os.fsync, os.getcwd()

        def due() -> None:
            nonlocal count
            count += 1
            if count > moment:
                raise OSError(number, os.strerror(number))

        def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & os.O_CREAT and os.path.abspath(os.fsdecode(path)).startswith(here):
                due()
            return real_open(path, flags, *arguments, **options)

        def synchronised(handle: Any) -> None:
            due()
            real_fsync(handle)

        os.open, os.fsync = opened, synchronised

    return fail
