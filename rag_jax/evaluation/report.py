"""What an evaluation writes: figures with their intervals, scores of every question, and a table."""

import importlib.metadata
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.table import Table

from rag_jax.data import strict_json
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import CONFIDENCE, RESAMPLES, Figure, figure, score_figure
from rag_jax.evaluation.metrics.classification import confusion
from rag_jax.evaluation.predictions import Prediction
from rag_jax.evaluation.score_file import METRICS as METRICS
from rag_jax.evaluation.score_file import SCORES
from rag_jax.evaluation.scores import Scores

TABLE = "table.md"
BASIC = frozenset({"expected_calibration_error"})  # statistics with the interval of the basic bootstrap
INTERVAL = (
    f"percentile bootstrap over questions, {CONFIDENCE:.0%}, {RESAMPLES:,} resamples; basic bootstrap for "
    f"{', '.join(sorted(BASIC))}; Wilson's where all scores are 0, or all 1"
)
PACKAGES = ("rag-jax", "jax", "flax", "numpy", "scipy", "transformers", "ir-measures", "rouge-score", "sacrebleu")


@dataclass(frozen=True)
class Results:
    """The results of an evaluation."""

    facts: Mapping[str, Any]  # what was evaluated and how, plain JSON
    questions: Sequence[Question]
    predictions: Sequence[Prediction]
    scores: Scores

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """Every figure with its interval. Raises `InputError` where there is none."""
        each, count = self.scores.each, len(self.questions)
        if not each:
            raise InputError("nothing can be scored: no gold answers, and no passages found; give one of the two")
        means = {name: score_figure(values) for name, values in each.items()}
        overall = {name: figure(*each, basic=name in BASIC) for name, each in self.scores.overall.items()}
        single = {name: Figure(value, math.nan, math.nan, count) for name, value in self.scores.repetition.items()}
        return means | overall | single


def texts(results: Results, has_labels: bool) -> dict[str, str]:
    """The files of the results by name."""
    lines = "".join(score_lines(results.questions, results.predictions, results.scores))
    return {METRICS: metrics_json(results, has_labels), SCORES: lines, TABLE: markdown(results)}


def metrics_json(results: Results, has_labels: bool) -> str:
    """`metrics.json`: what was evaluated and how, with which versions, and every figure; the confusion of labels."""
    facts = {name: _plain(fact) for name, fact in results.facts.items()}
    facts["versions"] = {name: importlib.metadata.version(name) for name in PACKAGES}
    facts["versions"]["python"] = platform.python_version()
    facts["interval"] = INTERVAL
    if has_labels:
        gold, given = [q.answers[0] for q in results.questions], [p.answer for p in results.predictions]
        labels, counts = confusion(given, gold)
        facts["confusion"] = {"labels": labels, "gold_by_predicted": counts.tolist()}
    values = {name: each._asdict() for name, each in results.figures.items()}
    return strict_json.dumps({**facts, "figures": values}, indent=2) + "\n"


def score_lines(questions: Sequence[Question], predictions: Sequence[Prediction], scores: Scores) -> Iterator[str]:
    """A line of a scores file for each question, which `rag-jax compare` reads; null where a score does not apply."""
    for number, (question, prediction) in enumerate(zip(questions, predictions, strict=True)):
        row = {
            "id": question.id,
            "question": question.question,
            "answer": prediction.answer,
            "answers": question.answers,
            **({"positive_ids": question.positive_ids} if question.positive_ids else {}),
            "scores": {name: float(values[number]) for name, values in scores.each.items()},
        }
        yield strict_json.dumps(row, ensure_ascii=False) + "\n"


def markdown(results: Results) -> str:
    """`table.md`: the figures as a table, and what they were measured on."""
    facts = results.facts
    title = f"{facts['source']}" + (f", {facts['baseline']}" if facts.get("baseline") else "")
    lines = [f"# {title}", "", "| metric | value | 95 % interval | questions |", "|---|---:|---:|---:|"]
    found = results.figures.items()
    rows = ((name, number(each.value), interval(each), f"{each.questions:,}") for name, each in found)
    lines += [f"| {' | '.join(row)} |" for row in rows]
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
        shown.add_row(name.replace("_", " "), number(each.value), interval(each), f"{each.questions:,}")
    return shown


def _plain(fact: Any) -> Any:
    """A fact as JSON can hold it: an infinite threshold as a string."""
    if isinstance(fact, Mapping):
        return {name: _plain(each) for name, each in fact.items()}
    return str(fact) if fact == math.inf else fact


def _said(value: Any) -> str:
    """A fact in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(each)}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"


def interval(each: Figure) -> str:
    """The interval of a figure as tables show it; "" where there is none."""
    return "" if math.isnan(each.low) else f"{number(each.low)} to {number(each.high)}"


def number(value: float) -> str:
    """A value as tables show it; "" for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}"
