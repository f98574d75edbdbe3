"""Every option of every command with values of other types and out of range, as the parsers themselves list them."""

import argparse
import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from faults.case import Case
from faults.forks import finished, fork
from faults.ground import BUILD, QUESTION, lay

Options = dict[str, tuple[str, ...]]


class Command(NamedTuple):
    """A command that would run: its name, what stands before options, and the options that it needs."""

    words: tuple[str, ...]
    options: Options
    needs: str = "files"
    without: tuple[tuple[str, str], ...] = ()  # (option, another that it takes the place of)


RUN = {"--workdir": ("run",)}
OUT = {"--output": ("out",)}
NETWORK = {name: (value,) for name, value in zip(BUILD[::2], BUILD[1::2], strict=True)}
NETWORKS = tuple((name, "--workdir") for name in ("--checkpoint", "--generator", "--completions", "--predictions"))
COMMANDS = (
    Command(("answer", QUESTION), RUN, "run", (*NETWORKS, ("--file", QUESTION))),
    Command(("index", "passages.jsonl"), {"--out": ("new",), **NETWORK}),
    Command(("search", QUESTION), {"--index": ("store",)}, "store"),
    Command(("mine", "train.jsonl"), {"--index": ("store",), "--output": ("mined.jsonl",)}, "store"),
    Command(("evaluate",), {"--questions": ("test.jsonl",), **OUT, **RUN}, "run", NETWORKS),
    Command(("refusals", "prompts.jsonl"), {**OUT, **RUN}, "run", NETWORKS),
    Command(("moderate", "texts.jsonl"), {**OUT, "--categories": ("categories.json",), **RUN}, "run", NETWORKS),
    Command(("compare", "evaluation", "other"), {}, "store"),
    Command(("convert", "run", "converted"), {}, "run"),
    Command(("plan",), {}),
    Command(("train", "config.py"), {"--workdir": ("new",)}),
    Command(("train", "contrastive.py"), {"--workdir": ("new",)}),
    Command(("train", "instruction.py"), {"--workdir": ("new",)}),
    *(Command(("demo", name), {"--workdir": ("new",)}) for name in ("cities", "elements")),
)  # fmt: skip
HUGE = "9" * 30
NUMBERS = {
    "INT": ("banana", "", "1.5", "-1", "0", HUGE),
    "FLOAT": ("banana", "", "nan", "inf", "-1", "0", "1e999"),
}


class Option(NamedTuple):
    """What a parser says of one option."""

    name: str
    metavar: str
    choices: tuple[str, ...]


def cases(folder: Path) -> Iterator[Case]:
    """Every option of every command with every value that its type may not have."""
    for command, options in zip(commands(), found(folder), strict=True):
        label = f"options: {' '.join(command.words[: 2 if command.words[0] in GROUPS else 1])}"
        for option in options:
            for value in values(option, command.words[0] not in ("benchmark", "experiment", "demo")):
                if not is_allowed(command, option.name, value):
                    yield Case(
                        f"{label}: {option.name} {value!r}",
                        argv(command, option.name, value),
                        says=""
                        if command.words[0] == "benchmark"
                        else option.name.removeprefix("--").rpartition(".")[2].split("-")[0],
                        seconds=40,
                        needs=command.needs,
                    )
        unknown = "" if command.words[0] == "benchmark" else "bananas"  # of which words are missing, too
        yield Case(f"{label}: an unknown option", argv(command, "--bananas", "1"), says=unknown, needs=command.needs)
        last = next(each.name for each in reversed(options) if not each.metavar.startswith("["))  # of any number
        yield Case(f"{label}: {last} without a value", (*argv(command, last, ""),)[:-1], needs=command.needs)


GROUPS = ("train", "demo", "experiment", "benchmark")


def commands() -> tuple[Command, ...]:
    """All commands, with each experiment and each benchmark."""
    from rag_jax.commands.benchmark import BENCHMARKS
    from rag_jax.experiments.registry import EXPERIMENTS

    groups = (("experiment", EXPERIMENTS), ("benchmark", BENCHMARKS))
    return (*COMMANDS, *(Command((group, name), {}) for group, names in groups for name in names))


def argv(command: Command, option: str, value: str) -> tuple[str, ...]:
    """The command line with one option set to a value."""
    given = command.options | {option: (value,)}
    left_out = [other for name, other in command.without if name == option]
    words = tuple(word for word in command.words if word not in left_out)
    return (*words, *(part for name, values in given.items() if name not in left_out for part in (name, *values)))


def values(option: Option, ranges: bool) -> Iterator[str]:
    """What may be wrong for the type of an option, or also out of range."""
    if option.choices:
        yield from ("banana", "")
        return
    for kind, odd in NUMBERS.items():
        if kind in option.metavar:
            yield from odd if ranges else odd[:3]
            return


def is_allowed(command: Command, option: str, value: str) -> bool:
    """Whether the value means something."""
    place = " ".join(command.words)
    return any(
        place.startswith(start) and option.endswith(name) and value in allowed for start, name, allowed in ALLOWED
    )


def found(folder: Path) -> list[list[Option]]:
    """The options of each command, from its parser, asked in a process of its own."""
    path, files = folder / "options.json", lay(folder, "files")

    def ask() -> None:
        os.chdir(files)
        path.write_text(json.dumps([_options(command) for command in commands()]))

    ended = finished(fork(ask), 120)
    assert ended.code == 0, ended
    return [
        [Option(name, metavar, tuple(choices)) for name, metavar, choices in each]
        for each in json.loads(path.read_text())
    ]


def _options(command: Command) -> list[Option]:
    """What the parser of a command lists when `tyro.cli` is called."""
    import tyro

    from rag_jax.cli import main

    listed: list[Option] = []

    class ListedError(Exception):
        pass

    def instead(kind: Any, *, args: Any = (), default: Any = tyro.MISSING_NONPROP, **options: Any) -> None:
        del args, options
        parser = tyro.extras.get_parser(kind, default=default)
        listed.extend(_named(parser._actions))
        raise ListedError

    real, tyro.cli = tyro.cli, instead
    try:
        with contextlib.suppress(ListedError), contextlib.redirect_stdout(io.StringIO()):
            main(command.words)
    finally:
        tyro.cli = real
    assert listed, command
    return listed


def _named(actions: Iterable[argparse.Action]) -> Iterator[Option]:
    for action in actions:
        name = next((each for each in action.option_strings if each.startswith("--")), None)
        if name is not None and action.nargs != 0 and name != "--help":
            metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
            yield Option(name, metavar, tuple(map(str, action.choices or ())))


ANY = ""  # of every command
EVERY = (HUGE,)
ALLOWED: tuple[tuple[str, str, tuple[str, ...]], ...] = (  # command, option, values that mean something
    *((ANY, name, ("0",)) for name in ("seed", "min-p", "min-length", "no-repeat-ngram-size", "skip", "overlap")),
    *(
        (ANY, name, ("0",))
        for name in ("show", "warmup", "weight-decay", "dropout", "label-smoothing", "staleness", "hard-negatives")
    ),
    *((ANY, name, ("0",)) for name in ("learning-rate", "init-std", "irrelevant", "margin-mse", "distillation.weight")),
    *((ANY, name, ("0",)) for name in ("cite-at-least", "relative-margin", "interpolation")),
    *((ANY, name, ("0", "-1")) for name in ("length-penalty", "margin")),
    (ANY, "abstain-below", ("0", "-1", "inf", "1e999")),
    (ANY, "optimizer.clip", ("inf", "1e999")),
    *((ANY, name, EVERY) for name in ("log-every", "save-every", "eval-every", "max-bad-steps", "steps", "batch-size")),
    *(
        (ANY, name, EVERY)
        for name in (
            "eval-batch",
            "segment",
            "depth",
            "negatives",
            "show",
            "words",
            "chunk",
            "groups",
            "tokens",
            "max-passage",
            "processes",
        )
    ),
    ("plan", "", EVERY),
)
