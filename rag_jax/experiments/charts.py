"""Charts of the experiments: bars with intervals, and lines over steps or K."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rag_jax.evaluation.figures import new_figure
from rag_jax.experiments.scores import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Line = tuple[Sequence[float], Sequence[float | None]]  # its x and y; None: a gap


class Panel(NamedTuple):
    """One set of axes: lines by their name."""

    ylabel: str
    lines: Mapping[str, Line]
    marks: Sequence[tuple[float, str]] = ()  # vertical lines with their meaning


def bars(title: str, groups: Mapping[str, Mapping[str, Summary]], ylabel: str) -> "Figure":
    """Draw groups of bars with their 95 % intervals; the same name has the same colour in all groups."""
    figure = new_figure(figsize=(max(6.0, 1.6 + 0.5 * sum(map(len, groups.values()))), 4.0), layout="constrained")
    axes, names = figure.subplots(), list(dict.fromkeys(name for group in groups.values() for name in group))
    start, ticks = 0.0, []
    for group in groups.values():
        for place, (name, summary) in enumerate(group.items()):
            errors = [[max(0.0, summary.mean - summary.low)], [max(0.0, summary.high - summary.mean)]]
            colour = f"C{names.index(name)}"
            axes.bar(start + place, summary.mean, yerr=errors, color=colour, capsize=3, label=name)
        ticks.append(start + (len(group) - 1) / 2)
        start += len(group) + 1
    axes.set_xticks(ticks, list(groups))
    axes.set_ylabel(ylabel)
    axes.set_ylim(0, None)
    axes.set_title(title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside right upper", fontsize=8)
    return figure


def lines(title: str, panels: Sequence[Panel], xlabel: str, log: bool = False) -> "Figure":
    """Draw panels below one another over the same x; with `log`, x is on a logarithmic scale that begins at 0."""
    figure = new_figure(figsize=(7.0, 1.2 + 2.2 * len(panels)), layout="constrained")
    stacked = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(stacked, panels, strict=True):
        for name, (xs, ys) in panel.lines.items():
            axes.plot(xs, [float("nan") if y is None else y for y in ys], marker="o", markersize=3, label=name)
        for x, meaning in panel.marks:
            axes.axvline(x, color="grey", linestyle="--", linewidth=1)
            axes.annotate(meaning, (x, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top")
        axes.set_ylabel(panel.ylabel)
        axes.grid(alpha=0.3)
        if len(panel.lines) > 1:
            axes.legend(fontsize=8)
    if log:
        values = sorted({x for panel in panels for xs, _ in panel.lines.values() for x in xs})
        stacked[-1].set_xscale("symlog", linthresh=1)
        stacked[-1].set_xticks(values, [f"{value:g}" for value in values], minor=False)
    stacked[-1].set_xlabel(xlabel)
    stacked[0].set_title(title, fontsize=10)
    return figure
