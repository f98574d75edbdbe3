"""Contrastive training of a retriever, this library beside torch: rag-jax benchmark retriever

Processes start from the same tower and take the same steps on the same batches, three at a time in turn, so that what
else happens on the machine happens to all. Their losses must be those of one model. torch is measured twice: with each
column of a batch padded and encoded by itself, as sentence-transformers does, and with all passages at once; the faster
counts. The first step of a turn is not timed: it pays for memory that another side has given back. Compilation is timed
apart. The second part is the memory of GradCache, see `benchmarks.retriever_memory`.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import retriever_memory
from benchmarks.cases import opponent
from benchmarks.conversation import Side
from benchmarks.decode import machine
from benchmarks.retriever_cases import Inputs, Options, load, written
from benchmarks.train import TURN, spread
from rag_jax.config.command_line import parse
from rag_jax.contrastive.towers import Towers
from rag_jax.data.outputs import new_json
from rag_jax.errors import InputError, report_errors
from rag_jax.models import registry
from rag_jax.parallel.host import LARGE_PAGES

OURS = "rag_jax"
LAYOUTS = {"torch, each column by itself": "columns", "torch, all passages at once": "joined"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and write."""
    with report_errors():
        remedy = "rag-jax benchmark retriever --help lists all options"
        given = sys.argv[1:] if arguments is None else arguments
        known = parse(Options, given, remedy=remedy, prog="rag-jax benchmark retriever")
        check(known)
        console, config = Console(), known.config(known.batch_size)
        loaded = load(config)
        if "step" in known.parts:
            opponent("torch")
        results: dict[str, Any] = {"tower": known.tower, "lengths": "real" if known.passages else "fixed"}
        with new_json(known.json) as write, tempfile.TemporaryDirectory() as name:
            if "step" in known.parts:
                inputs = written(config, loaded, known.steps, Path(name) / "step")
                results["step"] = measure(inputs, loaded, known, console)
                console.print(shown(results["step"]), highlight=False)
                write({"machine": machine(), **results})
            if "grad-cache" in known.parts:
                results["grad_cache"] = retriever_memory.measure(known, loaded, Path(name))
                console.print(retriever_memory.shown(results["grad_cache"]), highlight=False)
                write({"machine": machine(), **results})


def check(known: Options) -> None:
    """Raise `InputError` for options that cannot be used."""
    if known.steps < 2:
        raise InputError(f"steps is {known.steps}; give 2 or more, the first one is not timed")
    if (known.passages is None) != (known.questions is None):
        raise InputError("passages and questions: one is missing; give both, or none for fixed lengths")
    if known.negatives is not None and known.questions is None:
        raise InputError("negatives are given without questions; give passages and questions too")
    if "grad-cache" in known.parts:
        retriever_memory.configs(known)


def measure(inputs: Inputs, loaded: Towers, known: Options, console: Console) -> dict[str, Any]:
    """Every batch once on each side, some of them in turn."""
    sizes: Any = loaded.question.checkpoint.config
    layouts = LAYOUTS if known.hard_negatives else dict(list(LAYOUTS.items())[:1])  # they are the same without
    with ExitStack() as stack:

        def start(*arguments: object) -> Side:
            return stack.enter_context(Side(*map(str, arguments), **LARGE_PAGES))

        ours = start("retriever_ours", inputs.config, inputs.layout)
        plans = [ours.ask(inputs=str(path), plan=True) for path in inputs.batches]
        sides = {OURS: ours}
        for name, layout in layouts.items():
            sides[name] = start("retriever_theirs", inputs.config, layout, sizes.pooling)
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for first in range(0, known.steps, TURN):
            for name, side in sides.items():
                told[name] += [side.ask(inputs=str(path)) for path in inputs.batches[first : first + TURN]]
            console.print(f"{len(told[OURS])} of {known.steps} steps", highlight=False)
    compilation = sum(each["seconds"] for each in plans)
    return {"compilation": compilation, **compared(told, [work(sizes, path) for path in inputs.batches])}


def work(sizes: Any, path: Path) -> float:
    """The model FLOPs of a step that computes no padding."""
    batch, count = np.load(path), registry.tower_of(sizes).flops
    lengths = np.concatenate([batch["question_lengths"], batch["passage_lengths"]])
    return 3.0 * sum(count(sizes, float(length)) for length in lengths)


def compared(told: dict[str, list[dict[str, Any]]], needed: list[float]) -> dict[str, Any]:
    """Seconds a step, losses, peak memory, the ratio to torch's faster layout, shares of the measured matrix rate."""
    rate = statistics.median(each["flops/s"] for each in told[OURS])
    sides: dict[str, dict[str, Any]] = {}
    for name, steps in told.items():
        seconds = [each["seconds"] for number, each in enumerate(steps) if number % TURN]
        median = statistics.median(seconds)
        sides[name] = {"seconds": seconds, "median": median, "peak": max(each["peak"] for each in steps)}
        sides[name] |= {"losses": [each["result"] for each in steps]}
        sides[name] |= {"share": statistics.median(needed) / median / rate}
    others = {name: side for name, side in sides.items() if name != OURS}
    fastest = min(others, key=lambda name: sum(others[name]["seconds"]))
    ours = np.asarray(sides[OURS]["losses"])
    apart = [np.max(np.abs(ours - side["losses"]) / np.abs(side["losses"])) for side in others.values()]
    speedup = sum(others[fastest]["seconds"]) / sum(sides[OURS]["seconds"])
    return {"sides": sides, "fastest": fastest, "speedup": speedup, "apart": float(max(apart)), "flops/s": rate}


def shown(result: dict[str, Any]) -> Table:
    """A row for each side: medians of the seconds, and their ranges."""
    table = Table("", "seconds a step", "of the matrix rate", "peak GB", box=None, pad_edge=False)
    for name, side in result["sides"].items():
        table.add_row(name, spread(side["seconds"]), f"{side['share']:.2f}", f"{side['peak'] / 1e9:.2f}")
    table.add_row("times faster", f"{result['speedup']:.2f}")
    table.add_row("compilation, seconds", f"{result['compilation']:.1f}")
    table.add_row("losses at most apart", f"{result['apart']:.1e}")
    return table


if __name__ == "__main__":
    main()
