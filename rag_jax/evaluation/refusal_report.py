"""What `rag-jax refusals` writes and prints: rates of refusal, comparisons, and how far judges agree with people."""

import importlib.metadata
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from rag_jax.data import strict_json
from rag_jax.evaluation import comparison_report
from rag_jax.evaluation.intervals import CONFIDENCE, RESAMPLES, Figure
from rag_jax.evaluation.refusals import RATES
from rag_jax.evaluation.report import METRICS, TABLE

PACKAGES = ("rag-jax", "jax", "flax", "numpy", "scipy", "transformers")
INTERVALS = f"{CONFIDENCE:.0%}; rates: Wilson's; agreement: percentile bootstrap over prompts, {RESAMPLES:,} resamples"
Row = tuple[str, ...]
TableOf = tuple[str, Row, list[Row]]  # title, head, rows


@dataclass(frozen=True)
class RefusalReport:
    """The results of a run."""

    facts: Mapping[str, Any]  # what was asked and how, plain JSON
    rates: Mapping[str, Mapping[str, Figure]]  # by system
    by_type: Mapping[str, Mapping[str, Mapping[str, Figure]]]  # by system and type of prompt
    comparisons: comparison_report.Report | None = None
    agreement: Mapping[str, Mapping[str, Mapping[str, Figure]]] = field(default_factory=dict)  # by judge and model


def texts(report: RefusalReport) -> dict[str, str]:
    """The files by name."""
    return {METRICS: metrics_json(report), TABLE: markdown(report)}


def metrics_json(report: RefusalReport) -> str:
    """`metrics.json`: what was asked and how, with which versions, and every figure."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    values = {"rates": report.rates, "by_type": report.by_type, "agreement": report.agreement}
    facts = dict(report.facts) | {"versions": versions, "interval": INTERVALS} | _plain(values)
    if report.comparisons is not None:
        shown = ("resamples", "correction", "comparisons")
        compared = comparison_report.as_json(report.comparisons)
        facts["compared"] = {name: compared[name] for name in shown}
    return strict_json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def markdown(report: RefusalReport) -> str:
    """`table.md`: every table, and what the figures were measured on."""
    lines = ["# Refusals", ""]
    for title, head, rows in (*_overall(report), *_by_type(report)):
        rule = ("---", *["---:"] * (len(head) - 1))
        escape = comparison_report.escape  # names may be any text
        table = [tuple(map(escape, head)), rule, *((escape(name), *row) for name, *row in rows)]
        lines += [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    lines += [f"- {_said(name)}: {value}" for name, value in report.facts.items() if value is not None]
    lines += [f"- intervals: {INTERVALS}", ""]
    compared = "" if report.comparisons is None else "\n" + comparison_report.markdown(report.comparisons)
    return "\n".join(lines) + compared


def show(console: Console, report: RefusalReport) -> None:
    """Print all but the rates by type."""
    for title, head, rows in _overall(report):
        shown = Table(*head, box=None, pad_edge=False)
        for column in shown.columns[1:]:
            column.justify = "right"
        for row in rows:
            shown.add_row(*row)
        console.print(title, style="bold", highlight=False)
        console.print(shown)
        console.print()
    if report.comparisons is not None:
        comparison_report.show(console, report.comparisons)


def _overall(report: RefusalReport) -> Iterator[TableOf]:
    """Rates by system, and each judge's agreement by model."""
    figures = next(iter(report.rates.values()))
    head = ("", *(f"{_said(name)} ({each.questions:,})" for name, each in figures.items()))
    yield "Rates", head, [(system, *map(_cell, found.values())) for system, found in report.rates.items()]
    for judge, by_model in report.agreement.items():
        names = list(next(iter(by_model.values())))
        rows = [
            (f"{model} ({found[names[0]].questions:,})", *(_cell(found[name]) for name in names))
            for model, found in by_model.items()
        ]
        yield f"{judge}, against people", ("", *names), rows


def _by_type(report: RefusalReport) -> Iterator[TableOf]:
    """A row for each type, a column for each system."""
    for rate in RATES:
        counts = {
            kind: found[rate].questions
            for types in report.by_type.values()
            for kind, found in types.items()
            if rate in found
        }
        rows = [
            (f"{kind} ({count:,})", *(_cell(types[kind][rate]) for types in report.by_type.values()))
            for kind, count in counts.items()
        ]
        if rows:
            yield f"{_said(rate).capitalize()} by type of prompt", ("", *report.by_type), rows


def _said(name: str) -> str:
    return name.replace("over_", "over-").replace("_", " ")


def _cell(each: Figure) -> str:
    return "" if math.isnan(each.value) else f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"


def _plain(value: Any) -> Any:
    """Figures as JSON objects."""
    if isinstance(value, Figure):
        return value._asdict()
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value
