"""What an evaluation writes: figures with their intervals, scores of every question, and a table."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from rag_jax.data.questions import Question
from rag_jax.evaluation.intervals import CONFIDENCE, RESAMPLES, Figure, figure, mean_figure
from rag_jax.evaluation.predictions import Prediction
from rag_jax.evaluation.scores import Scores

METRICS, TABLE = "metrics.json", "table.md"
PACKAGES = ("rag-jax", "jax", "flax", "numpy", "scipy", "transformers", "ir-measures", "rouge-score", "sacrebleu")


def figures(scores: Scores, resamples: int = RESAMPLES) -> dict[str, Figure]:
    """Every figure of an evaluation with its interval."""
    means = {name: mean_figure(values, resamples) for name, values in scores.each.items()}
    count = len(next(iter(scores.each.values())))
    overall = {name: figure(statistic, count, resamples) for name, statistic in scores.overall.items()}
    single = {name: Figure(value, math.nan, math.nan, count) for name, value in scores.repetition.items()}
    return means | overall | single


def metrics_json(facts: Mapping[str, Any], found: Mapping[str, Figure]) -> str:
    """`metrics.json`: what was evaluated and how, with which versions, and every figure."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    interval = f"percentile bootstrap over questions, {CONFIDENCE:.0%}, {RESAMPLES:,} resamples"
    values = {name: _finite(each._asdict()) for name, each in found.items()}
    return json.dumps({**facts, "versions": versions, "interval": interval, "figures": values}, indent=2) + "\n"


def score_lines(questions: Sequence[Question], predictions: Sequence[Prediction], scores: Scores) -> Iterator[str]:
    """A scores file: a line for each question, which `rag-jax compare` reads; null where a score does not apply."""
    for number, (question, prediction) in enumerate(zip(questions, predictions, strict=True)):
        row = {
            "id": question.id,
            "question": question.question,
            "answer": prediction.answer,
            "answers": question.answers,
            "scores": _finite({name: float(values[number]) for name, values in scores.each.items()}),
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def markdown(title: str, facts: Mapping[str, Any], found: Mapping[str, Figure]) -> str:
    """`table.md`: the figures as a table, and what they were measured on."""
    lines = [f"# {title}", "", "| metric | value | 95 % interval | questions |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {_number(each.value)} | {_interval(each)} | {each.questions:,} |" for name, each in found.items()
    ]
    lines += [
        "",
        *(f"- {name.replace('_', ' ')}: {_said(value)}" for name, value in facts.items() if value is not None),
    ]
    return "\n".join(lines) + "\n"


def table(found: Mapping[str, Figure]) -> Table:
    """The figures for a terminal."""
    shown = Table("", "value", "95 % interval", "questions", box=None, pad_edge=False)
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, each in found.items():
        shown.add_row(name.replace("_", " "), _number(each.value), _interval(each), f"{each.questions:,}")
    return shown


def _said(value: Any) -> str:
    """A fact in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"


def _interval(each: Figure) -> str:
    return "" if math.isnan(each.low) else f"{_number(each.low)} to {_number(each.high)}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
