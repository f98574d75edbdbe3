"""What is shown of a comparison: tables, explanation, and the questions that differ most."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from rag_jax.evaluation import comparison_report
from rag_jax.evaluation.compare import Comparison, PValue
from rag_jax.evaluation.comparison_report import Report
from rag_jax.evaluation.intervals import Figure
from rag_jax.evaluation.score_file import AnsweredQuestion, Evaluation
from rag_jax.terminal import Terminal


def evaluation(path: str, answer: str, scores: list[float]) -> Evaluation:
    gold = ("A|B", "C", "D", "E", "F", "G", "H")
    questions = [
        AnsweredQuestion("q1", "who [b]wrote[/b] *it*", answer, gold, 1),
        AnsweredQuestion("q2", "", "", (), 2),
    ]
    return Evaluation(Path(path), tuple(questions), {"exact_match": np.array(scores), "f1": np.array([math.nan, 1.0])})


def compared(metric: str, p: float, corrected: float) -> Comparison:
    difference = Figure(0.0571, -0.031, 0.2, 3610)
    return Comparison(metric, "new", "old", 0.4352, 0.3781, difference, 1400, 2000, 210, PValue(p, False), corrected)


@pytest.fixture
def report() -> Report:
    evaluations = {
        "old": evaluation("a/scores.jsonl", " \x1b[31m\n", [0.0, 1.0]),
        "new": evaluation("b/scores.jsonl", "[b]x[/b]\n_y_", [0.5, 1.0]),
    }
    comparisons = [compared("exact_match", 0.00002, 0.0012), compared("f1", 0.5, 1.0)]
    return Report(evaluations, ["exact_match", "f1"], comparisons, [0], 10_000, 3)


def shown(report: Report) -> str:
    console = Terminal(width=80, force_terminal=False)
    with console.capture() as capture:
        comparison_report.show(console, report)
    return capture.get()


def test_a_table_for_every_metric_fits_eighty_columns(report) -> None:
    lines = [line.rstrip() for line in shown(report).splitlines()]
    assert max(map(len, lines)) <= 80
    at = lines.index("exact match, 3,610 questions")
    assert lines[at + 3].split() == ["old", "0.378", "reference"]
    cells = ["new", "0.435", "+0.057", "-0.031,", "+0.200", "<0.001", "0.001", "1,400/2,000/210"]
    assert lines[at + 4].split() == cells
    at = lines.index("f1, 3,610 questions")
    assert lines[at + 4].split()[5:7] == ["0.500", "1.000"]


def test_names_and_answers_of_any_length_are_shown_whole(report) -> None:
    name, answer = "ÑÑÑÑ" * 10, "Å" * 100
    long = {"old": report.evaluations["old"], name: evaluation("b/scores.jsonl", answer, [0.5, 1.0])}
    comparisons = [each._replace(system=name) for each in report.comparisons]
    text = shown(report._replace(evaluations=long, comparisons=comparisons))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("1,400/2,000/210") == 2
    assert (text.count("Ñ"), text.count("Å")) == (3 * 40, 100)


def test_the_explanation_counts_comparisons_and_resamples(report) -> None:
    told = " ".join(shown(report).split())
    assert "from 10,000 bootstrap resamples of the questions" in told
    assert "corrected p: for the 2 comparisons above" in told
    assert "Neither p nor the interval covers other training runs" in told
    one = " ".join(shown(report._replace(comparisons=report.comparisons[:1])).split())
    assert "corrected p: for this one comparison" in one


def test_questions_are_shown_literally_on_one_line_with_the_scores_that_apply(report) -> None:
    lines = [re.sub("  +", "  ", line.rstrip()) for line in shown(report).splitlines()]
    at = lines.index("q1  who [b]wrote[/b] *it*")
    assert lines[at + 1 : at + 4] == [
        "gold answers  A|B | C | D | E | F | 2 more",
        "old  [31m  exact match 0.000",
        "new  [b]x[/b] _y_  exact match 0.500",
    ]


def test_without_questions_to_show_their_heading_is_left_out(report) -> None:
    for render in (shown, comparison_report.markdown):
        assert comparison_report.MOST_DIFFERENT in render(report)
        assert comparison_report.MOST_DIFFERENT not in render(report._replace(questions=[]))


def test_markdown_has_tables_whose_rows_are_whole_and_texts_as_they_are(report) -> None:
    text = comparison_report.markdown(
        report._replace(evaluations=dict(zip(("a|b", "new"), report.evaluations.values(), strict=True)))
    )
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * 4
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {len(comparison_report.COLUMNS) + 2}
    assert r"| new | 0.435 | +0.057 | -0.031, +0.200 | \<0.001 | 0.001 | 1,400/2,000/210 |" in rows
    assert r"**q1  who \[b\]wrote\[/b\] \*it\***" in text
    assert r"- new: \[b\]x\[/b\] \_y\_: exact match 0.500" in text
    assert r"- a\|b: " in text


def test_json_holds_unrounded_numbers_and_null_where_a_metric_does_not_apply(report) -> None:
    found = json.loads(json.dumps(comparison_report.as_json(report), allow_nan=False))
    assert found["systems"] == {"old": "a/scores.jsonl", "new": "b/scores.jsonl"}
    assert (found["questions"], found["resamples"], found["seed"]) == (2, 10_000, 3)
    first = found["comparisons"][0]
    assert first["difference"] == {"value": 0.0571, "low": -0.031, "high": 0.2, "questions": 3610}
    assert first["p"] == {"value": 0.00002, "exact": False}
    (question,) = found["most_different"]
    assert question["systems"]["new"] == {"answer": "[b]x[/b]\n_y_", "scores": {"exact_match": 0.5, "f1": None}}
