"""What the sides of `benchmarks.decode` told, compared and as tables."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from benchmarks.cases import Case, Sizes
from benchmarks.decode_sides import OURS

HEADINGS = ("", "s (range)", "faster", "floor", "cold s", "GB", "same", "apart")
LEGEND = (
    f"\nfaster: how many times as fast {OURS} is. floor: times what the products take at least, in float32 at the rate "
    f"of a large one. same: answers that are {OURS}'s. apart: how far their log p(y|x) is from its, at most."
)


def compared(case: Case, sizes: Sizes, runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Of each side its seconds, peak memory, and how far its answers are ours; the first of its runs is cold."""
    rate = statistics.median(each["flops/s"] for each in runs[OURS])
    floor = case.flops(sizes) / rate if case.decoder != "thorough" else None
    sides = {name: _figures(told, runs[OURS]) for name, told in runs.items()}
    for figures in sides.values():
        if "missing" not in figures:
            figures["times faster"] = figures["median"] / sides[OURS]["median"]
            figures["x floor"] = figures["median"] / floor if floor else None
    return {"case": asdict(case), "flops/s": rate, "floor": floor, "sides": sides}


def _figures(told: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    missing = [each for each in told if "missing" in each]
    if missing:
        return missing[0]
    cold, *warm = told
    seconds = [each["seconds"] for each in warm]
    result, expected = told[-1]["result"], ours[-1]["result"]
    figures: dict[str, Any] = {"cold": cold["seconds"], "warm": seconds, "median": statistics.median(seconds)}
    figures["peak"] = max(each["peak"] for each in told)
    pairs = zip(result["tokens"], expected["tokens"], strict=True)
    figures |= {"questions": len(expected["tokens"]), "same answers": sum(one == other for one, other in pairs)}
    if "log_probs" in result:  # of each side's own answer: where answers differ and these do not, it is a tie
        pairs = zip(result["log_probs"], expected["log_probs"], strict=True)
        figures["log p apart"] = max(abs(one - other) for one, other in pairs)
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
    cells += [f"{figures['same answers']} of {figures['questions']}"]
    return [*cells, f"{figures['log p apart']:.1e}" if "log p apart" in figures else ""]
