"""Decoding, this library beside transformers: python -m benchmarks.decode  (or: rag-jax benchmark decode)

Two processes hold the same random weights and get the same inputs in turn, so that what else happens on the machine
happens to both. Each decodes a case once cold, with what compilation costs, and then warm; the tokens must agree.
"""

import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cases import SIZES, TINY, Case, Side, Sizes, opponent
from rag_jax.data.outputs import new_json
from rag_jax.errors import InputError, reported
from rag_jax.run.arguments import parse

SIDES = ("ours", "theirs")


@dataclass(frozen=True)
class Options:
    """Time decoding beside transformers, in one run on the same random weights and inputs."""

    json: Path | None = None  # write the figures here
    size: Literal["tiny", "base", "large"] = "base"  # of the networks; tiny: of the case too
    table: bool = False  # also vary the questions, passages, beams and target tokens, one at a time
    rounds: int = 3  # warm repetitions
    dtype: str = "float32"  # of this library


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and write."""
    with reported():
        remedy = "rag-jax benchmark decode --help lists all options"
        known = parse(
            Options, sys.argv[1:] if arguments is None else arguments, remedy=remedy, prog="rag-jax benchmark decode"
        )
        if known.rounds < 1:
            raise InputError(f"rounds is {known.rounds}; give 1 or more, the cold one is not counted")
        opponent("torch")
        sizes, console, results = replace(SIZES[known.size], dtype=known.dtype), Console(), []
        table = Table("decoder", "B", "K", "W", "T", *HEADINGS, box=None, pad_edge=False)
        with (
            new_json(known.json) as write,
            tempfile.TemporaryDirectory() as folder,
            Side("theirs", sizes, Path(folder)) as theirs,  # makes the weights
            Side("ours", sizes, Path(folder)) as ours,
        ):
            sides = {"ours": ours, "theirs": theirs}
            for case in cases(known.table, TINY if known.size == "tiny" else Case()):
                console.print(f"measuring {case} …", highlight=False, soft_wrap=True)
                results.append(measure(case, sizes, sides, Path(folder), known.rounds))
                table.add_row(*row(case, results[-1]))
                write({"machine": machine(), "sizes": asdict(sizes), "results": results})
    console.print(table)


def cases(vary: bool, usual: Case) -> list[Case]:
    """The case of docs/performance.md for each decoder, and variations of it."""
    token, thorough, fast = (replace(usual, decoder=decoder) for decoder in ("token", "thorough", "fast"))
    if not vary:
        return [token, thorough, fast]
    changes = [{"questions": 1}, {"questions": 8}, {"docs": 1}, {"docs": 10}, {"beams": 1}, {"beams": 8}]
    changes += [{"target": 8}, {"target": 32}]
    return [token, thorough, fast, *(replace(case, **change) for change in changes for case in (token, thorough))]


def measure(case: Case, sizes: Sizes, sides: dict[str, Side], folder: Path, rounds: int) -> dict[str, Any]:
    """A case on both sides, cold and then warm in turn. transformers has no fast decoding."""
    inputs = folder / "inputs.npz"
    arrays: Any = case.arrays(sizes)
    np.savez(inputs, **arrays)
    names = SIDES if case.decoder != "fast" else ("ours",)
    runs = {name: [sides[name].ask(case=asdict(case), inputs=str(inputs))] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(sides[name].ask(case=asdict(case), inputs=str(inputs)))
    result: dict[str, Any] = {"case": asdict(case)}
    for name, (cold, *warm) in runs.items():
        seconds = [each["seconds"] for each in warm]
        peak = max(each["peak"] for each in (cold, *warm))
        result[name] = {"cold": cold["seconds"], "warm": seconds, "median": statistics.median(seconds), "peak": peak}
    rate = statistics.median(each["flops/s"] for each in runs["ours"])
    result["flops/s"] = rate
    result["floor"] = case.flops(sizes) / rate
    if "theirs" in runs:
        result["speedup"] = result["theirs"]["median"] / result["ours"]["median"]
        result["same tokens"] = runs["ours"][-1]["result"] == runs["theirs"][-1]["result"]
    return result


HEADINGS = ("ours s", "theirs s", "times faster", "x floor", "cold s", "GB ours", "GB theirs", "same tokens")


def row(case: Case, result: dict[str, Any]) -> list[str]:
    """A line of the table."""
    ours, theirs = result["ours"], result.get("theirs")
    over = f"{ours['median'] / result['floor']:.2f}" if case.decoder == "token" else ""
    numbers = [case.decoder, case.questions, case.docs, case.beams, case.target, f"{ours['median']:.2f}"]
    numbers += [f"{theirs['median']:.2f}" if theirs else "", f"{result['speedup']:.1f}" if theirs else "", over]
    numbers += [f"{ours['cold']:.1f}", f"{ours['peak'] / 1e9:.2f}", f"{theirs['peak'] / 1e9:.2f}" if theirs else ""]
    return [*map(str, numbers), ("yes" if result["same tokens"] else "NO") if theirs else ""]


def machine() -> dict[str, Any]:
    """Where this ran."""
    return {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
