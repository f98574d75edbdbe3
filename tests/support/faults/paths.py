"""Odd things where a file or a folder is named, for every option that takes a path, and for every argument."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.case import Case
from faults.ground import BUILD, QUESTION
from faults.options import Command, Option, argv

LONG = "x" * 300 + ".jsonl"
DEEP = "x/" * 3_000 + "x.jsonl"
LATIN = os.fsdecode(b"caf\xe9.jsonl")
Spoil = Callable[[Path], object]


def _socket(here: Path) -> None:
    os.chdir(here)  # its name may have 107 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("odd.jsonl")


ODD: dict[str, tuple[str, Spoil | None]] = {
    "missing": ("none.jsonl", None),
    "missing in a folder that is missing": ("none/none.jsonl", None),
    "empty": ("", None),
    "a name too long": (LONG, None),
    "a path too long": (DEEP, None),
    "a name that is not UTF-8": (LATIN, None),
    "a name with a line feed": ("a\nb.jsonl", None),
    "a name with an escape": ("\x1b[2J.jsonl", None),
    "below a file": ("passages.jsonl/x.jsonl", None),
    "a folder": ("odd.jsonl", lambda here: (here / "odd.jsonl").mkdir()),
    "a file of other bytes": ("odd.jsonl", lambda here: (here / "odd.jsonl").write_bytes(bytes(range(256)))),
    "a loop of links": ("odd.jsonl", lambda here: (here / "odd.jsonl").symlink_to("odd.jsonl")),
    "a link to nothing": ("odd.jsonl", lambda here: (here / "odd.jsonl").symlink_to("none")),
    "a FIFO": ("odd.jsonl", lambda here: os.mkfifo(here / "odd.jsonl")),
    "a socket": ("odd.jsonl", _socket),
    "/dev/null": ("/dev/null", None),
    "a link to /dev/null": ("odd.jsonl", lambda here: (here / "odd.jsonl").symlink_to("/dev/null")),
    "a link to /dev/zero": ("odd.jsonl", lambda here: (here / "odd.jsonl").symlink_to("/dev/zero")),
    "a link to /dev/full": ("odd.jsonl", lambda here: (here / "odd.jsonl").symlink_to("/dev/full")),
    "/proc/self/mem": ("/proc/self/mem", None),
    "another's home": ("~nobody/x.jsonl", None),
}
WRITTEN = ("--output", "--out", "--figure")  # what is missing is made
MADE = ("missing", "missing in a folder that is missing", "a name that is not UTF-8", "a name with a line feed",
        "a name with an escape", "another's home", "a folder")  # fmt: skip
RUNS = ("benchmark", "demo", "experiment")  # take hours where they do not refuse
UNREAD = {  # made where missing, or read only with questions, which the ground's instructions have none of
    *((name, "--compute.cache") for name in ("config.py", "contrastive.py", "instruction.py")),
    *(("instruction.py", name) for name in ("--data.index", "--data.passages")),
}
ARGUMENTS: dict[str, tuple[str, ...]] = {  # the path stands for ODD
    "a corpus": ("index", "ODD", "--out", "new", *BUILD),
    "questions to mine": ("mine", "ODD", "--index", "store", "--output", "mined.jsonl"),
    "questions": ("evaluate", "--questions", "ODD", "--output", "out", "--predictions", "predictions.jsonl"),
    "prompts": ("refusals", "ODD", "--output", "out", "--completions", "completions.jsonl"),
    "texts": ("moderate", "ODD", "--output", "out", "--workdir", "none"),
    "an evaluation": ("compare", "evaluation", "ODD"),
    "a workdir to convert": ("convert", "ODD", "converted"),
    "a config": ("train", "ODD", "--workdir", "new"),
    "a tower": ("search", QUESTION, "--index", "store", "--tower", "ODD"),
    "a tower to build with": ("index", "passages.jsonl", "--out", "new", "--tower", "ODD"),
    "a checkpoint": ("answer", QUESTION, "--checkpoint", "ODD"),
    "a generator": ("refusals", "prompts.jsonl", "--output", "out", "--generator", "ODD"),
    "a store": ("index", "--info", "ODD"),
    "a file of questions": ("answer", "--file", "ODD", "--workdir", "none"),
}


def cases(options: list[tuple[Command, list[Option]]]) -> Iterator[Case]:
    """Every odd path at every place that takes one."""
    for place, words in ARGUMENTS.items():
        for what, (path, spoil) in ODD.items():
            if what == "a FIFO" and place != "a corpus":
                continue  # a pipe may be read: the command waits for its writer
            line = tuple(path if word == "ODD" else word for word in words)
            yield Case(f"paths: {place}: {what}", line, spoil, needs="store", seconds=60)
    for command, found in options:
        for option in found:
            is_read = (command.words[-1], option.name) not in UNREAD and command.words[0] not in RUNS
            if "PATH" in option.metavar and is_read:
                yield from _option(command, option)


def _option(command: Command, option: Option) -> Iterator[Case]:
    is_written = option.name in WRITTEN or (option.name == "--workdir" and command.words[0] == "train")
    is_written |= (command.words[-1], option.name) == ("config.py", "--data.index")  # built there
    for what, (path, spoil) in ODD.items():
        if not (what in MADE if is_written else what == "a FIFO"):
            name = f"paths: {' '.join(command.words[:2])} {option.name}: {what}"
            yield Case(name, argv(command, option.name, path), spoil, needs=command.needs, seconds=60)
