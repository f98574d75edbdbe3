"""What the sides of `benchmarks.decode` told, compared and as a table."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks.cases import Case, Sizes
from benchmarks.decode_sides import OURS

HEADINGS = ("decoder", "B", "K", "W", "T", "", "s (range)", "ours is faster", "x floor", "cold s", "peak GB")
AGREEMENT = ("same answers", "log p apart")


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


def shown(results: list[dict[str, Any]]) -> Table:
    """A line for each case and side; the floor is that of float32 at the rate of a large product of ours."""
    table = Table(*HEADINGS, *AGREEMENT, box=None, pad_edge=False)
    for result in results:
        case = result["case"]
        names = [case["decoder"], *(str(case[name]) for name in ("questions", "docs", "beams", "target"))]
        for name, figures in result["sides"].items():
            table.add_row(*names, name, *_cells(figures, name == OURS))
            names = [""] * len(names)
    return table


def _cells(figures: dict[str, Any], is_ours: bool) -> list[str]:
    if "missing" in figures:
        return [figures["missing"]]
    warm = figures["warm"]
    cells = [f"{figures['median']:.2f} ({min(warm):.2f}-{max(warm):.2f})"]
    cells += ["" if is_ours else f"{figures['times faster']:.2f}"]
    cells += [f"{figures['x floor']:.2f}" if figures["x floor"] else ""]
    cells += [f"{figures['cold']:.1f}", f"{figures['peak'] / 1e9:.2f}"]
    if is_ours:
        return cells
    cells += [f"{figures['same answers']} of {figures['questions']}"]
    return [*cells, f"{figures['log p apart']:.1e}" if "log p apart" in figures else ""]
