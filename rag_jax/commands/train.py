"""`rag-jax train`: train and evaluate a model as a config says."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rag_jax.commands.invocation import invocation
from rag_jax.config.catalog import config_names, find_config
from rag_jax.config.command_line import EMPTY
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.files import read_any_config_file
from rag_jax.config.instruction import InstructionConfig
from rag_jax.config.overrides import override
from rag_jax.errors import InputError
from rag_jax.terminal import Terminal

console = Terminal()
DESCRIPTION = """Train and evaluate a model. If interrupted, rerun the same command to resume.

CONFIG is the path of a Python file that ends with `config = Config(...)`, `ContrastiveConfig(...)` or
`InstructionConfig(...)`, or one of
{names}

Every field of a config can be overridden by its dotted name, such as --optimizer.learning-rate 1e-4;
`rag-jax train CONFIG --help` lists all of them with their values in that config.

The workdir receives config.json, metrics.jsonl, timings.jsonl, checkpoints/ and results.json."""


def train(arguments: Sequence[str]) -> None:
    """`rag-jax train CONFIG [--dotted.overrides VALUE] --workdir DIR`."""
    parser = _parser()
    options, overrides = parser.parse_known_args(list(arguments))
    if options.config is None and options.help:
        parser.description = DESCRIPTION.format(names="\n".join(f"  {name}" for name in config_names()))
        parser.print_help()
        return
    if options.config is None:
        raise InputError(f"name a CONFIG: the path of a .py file, or one of {', '.join(config_names())}")
    help_option = ["--help"] if options.help else []
    config = override(read_any_config_file(find_config(options.config)), [*overrides, *help_option], options.config)
    if options.workdir is None:
        raise InputError("name the folder of the run: --workdir DIR")
    if not options.coordinator and (options.processes, options.process) != (None, None):
        raise InputError("--processes and --process need --coordinator; give HOST:PORT of the first, or auto")

    # after the config is read: a wrong one is reported before everything loads
    from rag_jax.evaluation import results_table
    from rag_jax.parallel import devices
    from rag_jax.training import dry_run
    from rag_jax.training.run import train_and_evaluate

    if options.coordinator:
        address = None if options.coordinator == "auto" else options.coordinator
        devices.join(address, options.processes, options.process)
    if not options.dry_run and devices.is_first() and (idle := devices.unused(config)):
        console.print(idle, soft_wrap=True, highlight=False)
    if isinstance(config, ContrastiveConfig):
        _train_bi_encoder(config, options.workdir, options.dry_run)
        return
    if isinstance(config, InstructionConfig):
        _train_on_instructions(config, options.workdir, options.dry_run)
        return
    if options.dry_run:
        console.print(dry_run.report(config, options.workdir))
        return
    _, results = train_and_evaluate(config, options.workdir)
    if devices.is_first():
        results_table.show(console, results)
        command = f'{invocation()} answer "YOUR QUESTION" --workdir {options.workdir}'
        console.print(f"Next: {command}", soft_wrap=True, highlight=False)


def _train_bi_encoder(config: ContrastiveConfig, workdir: Path, dry_run: bool) -> None:
    from rag_jax.contrastive import evaluation, run

    if dry_run:
        raise InputError("--dry-run plans RAG models; train a bi-encoder for a few steps instead: --steps 2")
    finished = run.train_and_evaluate(config, workdir)
    if finished is not None:
        console.print(evaluation.results_table(finished.results))
        index, tower = finished.index_folder, finished.question_tower
        command = f'{invocation()} search "YOUR QUESTION" --index {index} --tower {tower}'
        console.print(f"Next: {command}", soft_wrap=True, highlight=False)


def _train_on_instructions(config: InstructionConfig, workdir: Path, dry_run: bool) -> None:
    from rag_jax.instruction import results, run

    if dry_run:
        raise InputError("--dry-run plans RAG models; train on instructions for a few steps instead: --steps 2")
    found = run.train_and_evaluate(config, workdir)
    if found is not None:
        console.print(results.table(found))
        files = "--data.passages FILE --data.train FILE --data.evaluation FILE --workdir runs/own"
        generator = f"--generator.checkpoint {workdir / 'generator'} --generator.chat"
        command = f"{invocation()} train own {generator} {files}"
        console.print(f"Next: {command}", soft_wrap=True, highlight=False)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are `InputError`s, of one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; rag-jax train --help lists the options")


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError(f"is {EMPTY}")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rag-jax train",
        usage="rag-jax train CONFIG --workdir DIR [--dotted.key VALUE ...] [OPTIONS]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a config's name, or the path of a Python file")
    parser.add_argument("--workdir", type=_path, metavar="DIR", help="the folder of the run; created if missing")
    parser.add_argument("--dry-run", action="store_true", help="report shapes and memory, compile a step, and exit")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="the first of several processes, or auto")
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes there are")
    parser.add_argument("--process", type=int, metavar="I", help="the number of this one, from 0")
    parser.add_argument("-h", "--help", action="store_true", help="show this help; after CONFIG: all of its keys")
    return parser
