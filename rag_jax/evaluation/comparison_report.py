"""Comparisons of systems: on the terminal and as Markdown, with the sentences that explain them, and as JSON."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table

from rag_jax.errors import one_line
from rag_jax.evaluation.compare import Comparison, Evaluations
from rag_jax.evaluation.intervals import CONFIDENCE
from rag_jax.terminal import styled

COLUMNS = ("system", "mean", "difference", "95 % interval", "p", "corrected p", "won/tied/lost")
MAX_GOLD_ANSWERS = 5  # shown of one question
MOST_DIFFERENT = "Questions that differ most"


class Report(NamedTuple):
    """What is shown of a comparison."""

    evaluations: Evaluations
    metrics: Sequence[str]
    comparisons: Sequence[Comparison]
    questions: Sequence[int]  # numbers of those that differ most
    resamples: int
    seed: int


def show(console: Console, report: Report) -> None:
    """Print a table for every metric and reference, what they mean, and the questions that differ most."""
    for title, rows in _tables(report):
        table = Table(box=None, pad_edge=False)
        table.add_column(COLUMNS[0], overflow="fold")
        for column in COLUMNS[1:]:
            table.add_column(column.replace(" p", "\np"), justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(styled(title, "bold"))
        console.print(table)
        console.print()
    console.print("\n".join(_explanation(report)))
    if report.questions:
        console.print(f"\n{MOST_DIFFERENT}")
    for heading, lines in _questions(report):
        console.print()
        console.print(styled(heading, "bold"))
        answers = Table.grid(*(Column(overflow="fold") for _ in range(3)), padding=(0, 2))
        for line in lines:
            answers.add_row(*line)
        console.print(answers)


def markdown(report: Report) -> str:
    """The same as Markdown."""
    blocks = []
    for title, rows in _tables(report):
        table = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(map(escape, row) for row in rows)]
        blocks += [f"## {escape(title)}", "\n".join(f"| {' | '.join(row)} |" for row in table)]
    blocks += _explanation(report)
    if report.questions:
        blocks.append(f"## {MOST_DIFFERENT}")
    for heading, lines in _questions(report):
        answers = (": ".join(map(escape, filter(None, line))) for line in lines)
        blocks += [f"**{escape(heading)}**", "\n".join(f"- {answer}" for answer in answers)]
    return "\n\n".join(["# Comparison", *blocks]) + "\n"


def as_json(report: Report) -> dict[str, Any]:
    """The same as a JSON object, with unrounded numbers; null: the metric does not apply to the question."""
    first = next(iter(report.evaluations.values()))
    return {
        "systems": {name: str(evaluation.path) for name, evaluation in report.evaluations.items()},
        "questions": len(first.questions),
        "confidence": CONFIDENCE,
        "resamples": report.resamples,
        "seed": report.seed,
        "correction": "Benjamini-Hochberg",
        "comparisons": [
            each._asdict() | {"difference": each.difference._asdict(), "p": each.p._asdict()}
            for each in report.comparisons
        ],
        "most_different": [_question_json(report, number) for number in report.questions],
    }


def _question_json(report: Report, number: int) -> dict[str, Any]:
    question = next(iter(report.evaluations.values())).questions[number]
    systems = {}
    for name, evaluation in report.evaluations.items():
        scores = {metric: float(evaluation.scores[metric][number]) for metric in report.metrics}
        known = {metric: None if math.isnan(score) else score for metric, score in scores.items()}
        systems[name] = {"answer": evaluation.questions[number].answer, "scores": known}
    return {"id": question.id, "question": question.question, "answers": question.answers, "systems": systems}


def _tables(report: Report) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """A title and rows for every metric and reference: the reference first, then the systems compared with it."""
    for (metric, reference), group in groupby(report.comparisons, lambda each: (each.metric, each.reference)):
        compared = list(group)
        title = f"{_label(metric)}, {compared[0].difference.questions:,} questions"
        blank = ("",) * (len(COLUMNS) - 3)
        yield title, [(reference, f"{compared[0].reference_mean:.3f}", "reference", *blank), *map(_row, compared)]


def _row(each: Comparison) -> tuple[str, ...]:
    difference = each.difference
    interval = f"{difference.low:+.3f}, {difference.high:+.3f}"
    p = (_p(each.p.value), _p(each.corrected_p))
    counts = f"{each.wins:,}/{each.ties:,}/{each.losses:,}"
    return (each.system, f"{each.system_mean:.3f}", f"{difference.value:+.3f}", interval, *p, counts)


def _explanation(report: Report) -> list[str]:
    count = len(report.comparisons)
    corrected = "this one comparison" if count == 1 else f"the {count} comparisons above"
    return [
        "difference: the system's mean minus the reference's. 95 % interval: of the difference, from "
        f"{report.resamples:,} bootstrap resamples of the questions. p: two-sided paired permutation test. "
        f"corrected p: for {corrected}, by Benjamini and Hochberg. won: questions with a higher score than the "
        "reference's.",
        "A small corrected p says that so large a difference would be rare if neither system were better on questions "
        "like these. Neither p nor the interval covers other training runs: to compare ways of training, train "
        "several seeds of each.",
    ]


def _questions(report: Report) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A heading for every question, and (name, answer, scores) of the gold answers and of each system."""
    first = next(iter(report.evaluations.values()))
    for number in report.questions:
        question = first.questions[number]
        lines = [("gold answers", _gold(question.answers), "")]
        for name, evaluation in report.evaluations.items():
            scores = ((_label(metric), evaluation.scores[metric][number]) for metric in report.metrics)
            shown = ", ".join(f"{label} {score:.3f}" for label, score in scores if not math.isnan(score))
            lines.append((name, _one_line(evaluation.questions[number].answer), shown))
        yield f"{question.id}  {_one_line(question.question)}", lines


def _gold(answers: Sequence[str]) -> str:
    more = len(answers) - MAX_GOLD_ANSWERS
    shown = " | ".join(map(_one_line, answers[:MAX_GOLD_ANSWERS]))
    return f"{shown} | {more:,} more" if more > 0 else shown


def _one_line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split()) or "(empty)"


def _label(metric: str) -> str:
    return metric.replace("_", " ")


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table too: on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", one_line(text))
