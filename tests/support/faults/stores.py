"""Damaged stores, workdirs and checkpoints: files that are missing, cut, of other kinds, or of other types inside."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.case import Case, Ended
from faults.ground import QUESTION
from faults.questions import spoilt

Spoil = Callable[[Path], object]
CHECK = ("index", "--check", "store")
SEARCH = ("search", QUESTION, "--index", "store", "--engine", "bm25")
INDEX = (
    *("index", "passages.jsonl", "--out", "new"),
    *("--tower", "tower", "--max-length", "16", "--template", "{title}"),
)
OPTIONAL = {("tokenizer_config.json", "missing")}  # without it a tower is read with other settings, as in transformers
CONVERT = ("convert", "run", "converted")
TIMES = re.compile(r"/s\b|\bm?s\b")  # in lines of progress, and of how long a search took
FIELDS = 60  # fields of a JSON file that are spoilt, spread over all of them
KINDS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other bytes": lambda path: path.write_bytes(bytes(range(256)) * (path.stat().st_size // 256 + 1)),
}


def cases(store: Path, run: Path, sound: Callable[[Case], Ended]) -> Iterator[Case]:
    """Spoil every file of a store and of a workdir in every way, and the fields of their JSON.

    `sound` runs a case on ground that nobody has spoilt; a command that does not refuse must come to the same end.
    """
    for file in _files(store / "store"):
        for kind, spoil in KINDS.items():
            for argv in (CHECK, SEARCH):
                name = f"stores: {argv[0]}: {file} {kind}"
                yield Case(name, argv, _file(spoil, f"store/{file}"), gives=_same(sound, argv, "store"), needs="store")
    yield from _json("stores", store, "store/manifest.json", CHECK, "store", sound)
    for file in _files(run / "run"):
        for kind, spoil in KINDS.items():
            yield Case(f"workdirs: {file} {kind}", CONVERT, _file(spoil, f"run/{file}"), None, needs="run",
                       gives=_same(sound, CONVERT, "run"))  # fmt: skip
    yield from _json("workdirs", run, "run/config.json", CONVERT, "run", sound)
    yield from _json("towers", store, "tower/config.json", ("search", QUESTION, "--index", "store"), "store", sound)
    for file in _files(store / "tower"):
        for kind, spoil in KINDS.items():
            if (file, kind) in OPTIONAL:
                continue
            gives = _same(sound, INDEX, "files")
            yield Case(f"towers: {file} {kind}", INDEX, _file(spoil, f"tower/{file}"), gives=gives)
    yield from _foreign()


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _file(spoil: Callable[[Path], object], name: str) -> Spoil:
    return lambda here: spoil(here / name)


def _json(
    family: str, ground: Path, file: str, argv: tuple[str, ...], needs: str, sound: Callable[[Case], Ended]
) -> Iterator[Case]:
    found = list(spoilt(json.loads((ground / file).read_text())))
    for number in range(0, len(found), max(1, len(found) // FIELDS)):
        text = json.dumps(found[number])
        gives = _same(sound, argv, needs)
        yield Case(f"{family}: {file}, a field, {number}", argv, _write(file, text), gives=gives, needs=needs)
    for name, text in {"a list": "[]", "a string": '"x"', "deep": "[" * 100_000, "NaN": '{"width": NaN}'}.items():
        yield Case(f"{family}: {file}: {name}", argv, _write(file, text), says="", needs=needs)


def _write(file: str, text: str) -> Spoil:
    return lambda here: (here / file).write_text(text)


def _same(sound: Callable[[Case], Ended], argv: tuple[str, ...], needs: str) -> Callable[[Ended], bool]:
    def gives(ended: Ended) -> bool:
        right = sound(Case("sound", argv, needs=needs))
        return _output(ended) == _output(right)

    return gives


def _unchanged(ended: Ended) -> bool:
    """Whether a command wrote only beside what was there."""
    return all(ended.after.get(name) == held for name, held in ended.before.items())


def _output(ended: Ended) -> Any:
    """What a command made: the files, and what it printed but for times."""
    made = {name: held for name, held in ended.after.items() if name.startswith("converted/") and "json" not in name}
    return made or [line for line in ended.out.splitlines() if not TIMES.search(line)]


def _foreign() -> Iterator[Case]:
    """Folders that are something else."""
    spoils: dict[str, Spoil] = {
        "an empty folder": lambda here: (here / "odd").mkdir(),
        "a folder of texts": lambda here: ((here / "odd").mkdir(), (here / "odd" / "x.txt").write_text("x")),
        "a tower": lambda here: shutil.copytree(here / "tower", here / "odd"),
        "a manifest alone": lambda here: (
            (here / "odd").mkdir(),
            shutil.copy(here / "store" / "manifest.json", here / "odd"),
        ),
        "a config alone": lambda here: ((here / "odd").mkdir(), (here / "odd" / "config.json").write_text("{}")),
        "an evaluation": lambda here: shutil.copytree(here / "evaluation", here / "odd"),
    }
    commands = {
        "search": ("search", QUESTION, "--index", "odd"),
        "info": ("index", "--info", "odd"),
        "remove": ("index", "--out", "odd", "--remove", "Norburg"),
        "answer from": ("answer", QUESTION, "--workdir", "odd"),
        "answer from a checkpoint": ("answer", QUESTION, "--checkpoint", "odd"),
        "convert": ("convert", "odd", "converted"),
        "compare": ("compare", "evaluation", "odd"),
        "build": ("index", "passages.jsonl", "--out", "odd", "--tower", "tower", "--max-length", "16"),
        "train in": ("train", "config.py", "--workdir", "odd"),
        "evaluate into": (
            "evaluate",
            "--questions",
            "test.jsonl",
            "--output",
            "odd",
            "--predictions",
            "predictions.jsonl",
        ),
    }
    fine = {
        *(("an empty folder", name) for name in ("build", "train in", "evaluate into")),
        ("an evaluation", "evaluate into"),
        ("an evaluation", "compare"),
    }
    beside = {(what, "train in") for what in ("a folder of texts", "a manifest alone", "an evaluation")}
    for command, argv in commands.items():
        for what, spoil in spoils.items():
            if (what, command) not in fine:
                gives = _unchanged if (what, command) in beside else None
                yield Case(f"foreign folders: {command} {what}", argv, spoil, gives=gives, says="odd", needs="store")
