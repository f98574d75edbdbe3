"""`rag-jax train`: a run from a config file.

The workdir is left with `config.json`, `metrics.jsonl`, `timings.jsonl`, `checkpoints/` and `results.json`. If
interrupted, rerun the same command to resume from the newest checkpoint, as if the run had never stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rag_jax.config import config as configs
from rag_jax.errors import InputError
from rag_jax.parallel import devices
from rag_jax.training import dry_run
from rag_jax.training.run import train_and_evaluate

console = Console()


def train(arguments: Sequence[str]) -> None:
    """`rag-jax train CONFIG [--dotted.overrides VALUE] --workdir DIR`."""
    parser = argparse.ArgumentParser(
        prog="rag-jax train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    known, overrides = parser.parse_known_args(list(arguments))
    config = configs.override(configs.read(known.config), overrides)
    if not known.coordinator and (known.processes, known.process) != (None, None):
        raise InputError("--processes and --process need --coordinator; give HOST:PORT of the first, or auto")
    if known.coordinator:
        devices.join(None if known.coordinator == "auto" else known.coordinator, known.processes, known.process)
    if known.dry_run:
        console.print(dry_run.report(config, known.workdir))
        return
    _, results = train_and_evaluate(config, known.workdir)
    if devices.is_first():
        console.print_json(data=results)
        console.print(f'Next: rag-jax answer "YOUR QUESTION" --workdir {known.workdir}', soft_wrap=True)
