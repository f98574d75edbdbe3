"""Decoding, this library beside transformers and CTranslate2: rag-jax benchmark decode

Every side is a process that holds the same random weights, has the same number of threads and gets the same inputs in
turn, so that what else happens on the machine happens to all. Each decodes a case once cold, with what compilation
costs, and then warm, from the tokens of questions and of what they found to answers. CTranslate2 knows nothing of
retrieval: what RAG-Sequence makes of its searches is in `benchmarks.ct2`.
"""

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from benchmarks import weights
from benchmarks.cases import SIZES, TINY, Case, Sizes
from benchmarks.conversation import threads
from benchmarks.decode_sides import OURS, OURS_BFLOAT16, SIDES, Sides
from benchmarks.decode_table import compared, shown
from rag_jax.config.command_line import parse
from rag_jax.data.outputs import new_json
from rag_jax.errors import InputError, report_errors

GAIN = 2.0  # of the weights' deviations


@dataclass(frozen=True)
class Options:
    """Time decoding beside transformers and CTranslate2, in one run on the same random weights and inputs."""

    json: Path | None = None  # write the figures here
    size: Literal["tiny", "base", "large"] = "base"  # of the networks; tiny: of the case too
    table: bool = False  # also vary the questions, passages, beams and target tokens, one at a time
    rounds: int = 3  # warm repetitions, the sides in turn
    dtype: Literal["float32", "bfloat16"] = "float32"  # of this library
    opponents: tuple[Literal["transformers", "ctranslate2"], ...] = ("transformers", "ctranslate2")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, show, and write."""
    with report_errors():
        remedy = "rag-jax benchmark decode --help lists all options"
        known = parse(
            Options, sys.argv[1:] if arguments is None else arguments, remedy=remedy, prog="rag-jax benchmark decode"
        )
        if known.rounds < 1:
            raise InputError(f"rounds is {known.rounds}; give 1 or more, the cold one is not counted")
        sizes, console, results = replace(SIZES[known.size], dtype=known.dtype), Console(), []
        kinds = {name: side for name, side in SIDES.items() if side.package in (None, *known.opponents)}
        for name, precision in ((OURS, "default"), (OURS_BFLOAT16, "bfloat16")):
            kinds[name] = kinds[name]._replace(arguments=(str(replace(sizes, matmul_precision=precision)),))
        with new_json(known.json) as write, weights.saved(sizes, GAIN) as folder, ExitStack() as stack:
            sides = Sides(stack, kinds, folder)
            for case in cases(known.table, TINY if known.size == "tiny" else Case()):
                console.print(f"measuring {case} …", highlight=False, soft_wrap=True)
                results.append(measure(case, sizes, sides, folder, known.rounds))
                write({"machine": machine(), "sizes": asdict(sizes), "results": results})
    for each in shown(results):
        console.print(each, highlight=False)


def cases(vary: bool, usual: Case) -> list[Case]:
    """The case of docs/performance.md for each decoder, one beam, and variations of it."""
    token, thorough, fast = (replace(usual, decoder=decoder) for decoder in ("token", "thorough", "fast"))
    greedy = replace(fast, beams=1)  # each passage writes one answer, and equal ones add up
    if not vary:
        return [token, thorough, fast, greedy]
    changes = [{"questions": 1}, {"questions": 8}, {"docs": 1}, {"docs": 10}, {"beams": 8}, {"target": 8}]
    changes += [{"target": 32}]
    varied = [replace(case, **change) for change in ({"beams": 1}, *changes) for case in (token, thorough)]
    return [token, thorough, fast, greedy, *varied, *(replace(fast, **change) for change in changes)]


def measure(case: Case, sizes: Sizes, sides: Sides, folder: Path, rounds: int) -> dict[str, Any]:
    """A case on every side, cold and then warm in turn."""
    inputs = folder / "inputs.npz"
    arrays: Any = case.arrays(sizes)
    np.savez(inputs, **arrays)
    runs = [sides.ask(asdict(case), inputs) for _ in range(1 + rounds)]
    flops = case.flops(sizes) if case.decoder != "thorough" else None
    return compared(asdict(case), flops, {name: [each[name] for each in runs] for name in sides.names})


def machine() -> dict[str, Any]:
    """Where this ran."""
    told = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    return told | {"threads": threads()}


if __name__ == "__main__":
    main()
