"""`rag-jax experiment`: the experiments of the paper."""

import shlex
from collections.abc import Sequence

from rag_jax.commands.narration import say
from rag_jax.config.command_line import parse
from rag_jax.errors import InputError
from rag_jax.experiments.registry import EXPERIMENTS, conduct
from rag_jax.experiments.report import file_names

USAGE = "\n".join(
    (
        "usage: rag-jax experiment NAME [OPTIONS]",
        "",
        *(f"  {name:<12} {(each.options.__doc__ or '').partition(chr(10))[0]}" for name, each in EXPERIMENTS.items()),
        "",
        "Trains what it needs, on the world's cities by default, and writes WORKDIR/NAME/NAME.md, .csv and .png.",
        "If interrupted, rerun the same command to resume. rag-jax experiment NAME --help lists the options.",
    )
)


def experiment(arguments: Sequence[str]) -> None:
    """`rag-jax experiment NAME [OPTIONS]`. Raises `InputError` for an experiment that does not exist."""
    name, *rest = arguments or [""]
    if name in ("-h", "--help"):
        print(USAGE)
        return
    if name not in EXPERIMENTS:
        what = f"no experiment {name!r}" if name else "name an experiment"
        raise InputError(f"{what}; the experiments are {', '.join(EXPERIMENTS)}")
    command = f"rag-jax experiment {name}"
    given = parse(EXPERIMENTS[name].options, rest, remedy=f"{command} --help lists all options", prog=command)
    found, folder = conduct(name, given, shlex.join(["rag-jax", "experiment", *arguments]))
    say(f"\nThe paper: {found.paper}\nHere: {found.found}")
    say(f"{folder}: {', '.join(file_names(name))}")
