"""Reports as text, and charts as files."""

import csv
import io
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from rag_jax.config.config import Config
from rag_jax.evaluation.figures import as_png
from rag_jax.experiments import charts, report
from rag_jax.experiments.charts import Panel
from rag_jax.experiments.report import Report, Table
from rag_jax.experiments.runs import Run
from rag_jax.experiments.scores import Summary

TABLE = Table(("name", "value"), [("a | b\nc", 1 / 3), ("none", float("nan")), ('quote " comma ,', None), ("n", 2)])
BARS = {"RAG-Token": {"frozen": Summary(0.5, 0.4, 0.6, 0.45, 0.55), "trained": Summary(*[float("nan")] * 5)}}


def made(draw, **changes) -> Report:
    return Report("Title", TABLE, "it rose.", "it fell.", draw, [], 1_234, 3)._replace(**changes)


def test_a_table_as_markdown_has_one_line_for_each_row() -> None:
    lines = report.markdown_table(TABLE).splitlines()
    assert report.markdown_table(Table(("a|b",), [])).splitlines()[0] == "| a\\|b |"
    assert lines[:3] == ["| name | value |", "| --- | --- |", "| a \\| b c | 0.333 |"]
    assert lines[3:] == ["| none |  |", '| quote " comma , |  |', "| n | 2 |"]


def test_a_table_as_csv_reads_back_with_all_digits() -> None:
    rows = list(csv.reader(io.StringIO(report.as_csv(TABLE))))
    assert rows == [["name", "value"], ["a | b\nc", repr(1 / 3)], ["none", ""], ['quote " comma ,', ""], ["n", "2"]]


def test_a_report_names_its_command_numbers_and_findings(tmp_path: Path) -> None:
    report.own_folder(tmp_path).claim()
    drawing = partial(charts.bars, title="Title", groups=BARS, ylabel="exact match")
    report.write(made(drawing, notes=("A note.",), data=Table(("x",), [(1,)])), "ablation", tmp_path, "rag-jax …")
    text = (tmp_path / "ablation.md").read_text()
    for part in ("A note.", "**The paper:** it rose.", "**Here:** it fell.", "`rag-jax …`", "1,234; seeds: 3", "cores"):
        assert part in text
    assert (tmp_path / "ablation.csv").read_text() == "x\n1\n"
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_whose_folder_is_gone_is_named_without_its_time(towns: Config, tmp_path: Path) -> None:
    gone = Run("reader-0", towns, tmp_path / "reader-0")
    text = report.markdown(made(lambda: None)._replace(runs=[gone]), "ablation", "rag-jax …")
    assert f"reader-0: {towns.steps} steps of {towns.batch_size} questions, its folder is gone" in text


def test_lines_may_have_gaps_marks_and_a_logarithmic_scale(tmp_path: Path) -> None:
    panels = [Panel("kl", {"a": ([0, 1, 64], [0.1, None, 0.3]), "b": ([0, 64], [1, 2])}, [(1, "warning")])]
    for log in (False, True):
        (tmp_path / f"{log}.png").write_bytes(as_png(charts.lines("Title", panels, "steps", log=log)))
        assert (tmp_path / f"{log}.png").stat().st_size > 1_000
