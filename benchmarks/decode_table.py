"""What the sides of `benchmarks.decode` told, compared and as tables."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from benchmarks.decode_sides import OURS

HEADINGS = ("", "s (range)", "faster", "floor", "cold s", "GB", "same", "apart")
LEGEND = (
    f"\nfaster: how many times as fast {OURS} is. floor: times what the products take at least, in float32 at the rate "
    f"of a large one. same: answers that are {OURS}'s. apart: how far their log p(y|x) is from its, at most."
)


def compared(case: Mapping[str, Any], flops: float | None, runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Of each side its seconds, peak memory, and how far its answers are ours; the first of its runs is cold.

    `flops` are those of the matrix products that the case needs at least; None: nobody knows.
    """
    rate = statistics.median(each["flops/s"] for each in runs[OURS])
    floor = None if flops is None else flops / rate
    sides = {name: _figures(told, runs[OURS]) for name, told in runs.items()}
    for figures in sides.values():
        if "missing" not in figures:
            figures["times faster"] = figures["median"] / sides[OURS]["median"]
            figures["x floor"] = figures["median"] / floor if floor else None
    return {"case": dict(case), "flops/s": rate, "floor": floor, "sides": sides}


def _figures(told: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    missing = [each for each in told if "missing" in each]
    if missing:
        return missing[0]
    cold, *warm = told
    seconds = [each["seconds"] for each in warm]
    figures: dict[str, Any] = {"cold": cold["seconds"], "warm": seconds, "median": statistics.median(seconds)}
    figures["processor"] = [each["processor"] for each in warm]  # seconds of all threads: on a busy machine
    figures["peak"] = max(each["peak"] for each in told)
    return figures | _agreement([each["result"] for each in told], [each["result"] for each in ours])


def _agreement(results: list[dict[str, Any]], expected: list[dict[str, Any]]) -> dict[str, Any]:
    """Of answers how many are ours; and how far log p(y|x) is from ours: of each side's own answer, or a step's loss.

    Where answers differ and their log p do not, it is a tie.
    """
    figures = {}
    if "answers" in expected[-1]:
        pairs = list(zip(results[-1]["answers"], expected[-1]["answers"], strict=True))
        figures |= {"questions": len(pairs), "same answers": sum(one == other for one, other in pairs)}
    if "log_probs" in results[-1]:
        theirs, ours = ([one for each in runs for one in each["log_probs"]] for runs in (results, expected))
        figures["log p apart"] = max(abs(one - other) for one, other in zip(theirs, ours, strict=True))
    return figures


def shown(results: list[dict[str, Any]]) -> Iterator[RenderableType]:
    """A table for each case, a line for each side; behind it why a side has no figures. It fits into 80 columns."""
    for result in results:
        case, sides = result["case"], result["sides"]
        yield "\n{decoder}, B {questions}, K {docs}, W {beams}, T {target}".format(**case)
        table = Table(*HEADINGS, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name, figures in sides.items():
            if "missing" not in figures:
                table.add_row(name, *_cells(figures, name == OURS))
        yield table
        yield from (f"{name}: {figures['missing']}" for name, figures in sides.items() if "missing" in figures)
    yield LEGEND


def _cells(figures: dict[str, Any], is_ours: bool) -> list[str]:
    warm = figures["warm"]
    cells = [f"{figures['median']:.2f} ({min(warm):.2f}-{max(warm):.2f})"]
    cells += ["" if is_ours else f"{figures['times faster']:.2f}"]
    cells += [f"{figures['x floor']:.2f}" if figures["x floor"] else ""]
    cells += [f"{figures['cold']:.1f}", f"{figures['peak'] / 1e9:.2f}"]
    if is_ours:
        return cells
    cells += [f"{figures['same answers']} of {figures['questions']}" if "questions" in figures else ""]
    return [*cells, f"{figures['log p apart']:.1e}" if "log p apart" in figures else ""]
