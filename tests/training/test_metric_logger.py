"""metrics.jsonl: a line per logged step, once, however often the run is continued."""

import io
import json
import math
from pathlib import Path

from rag_jax.terminal import Terminal
from rag_jax.training.metric_logger import MetricLogger, seconds_trained
from rag_jax.training.metric_writers import TensorBoard


def write(path: Path, first: int, steps: list[int]) -> str:
    said = io.StringIO()
    with MetricLogger(path, first, 10, Terminal(file=said)) as journal:
        for step in steps:
            journal.log(step, {"loss": float(step)}, {"seconds": 0.5, "examples/s": 8.0})
    return said.getvalue()


def test_a_continued_run_rewrites_only_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(tmp_path, 0, [2, 4, 6])
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # killed while writing
    write(tmp_path, 4, [6, 8])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert [line["loss"] for line in lines] == [2.0, 4.0, 6.0, 8.0]


def test_seconds_add_up_over_all_lines(tmp_path: Path) -> None:
    write(tmp_path, 0, [2, 4])
    write(tmp_path, 4, [6])
    assert seconds_trained(tmp_path) == 1.5


def test_what_the_clock_says_is_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, 0, [2])
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 2, "loss": 2.0}
    assert json.loads((tmp_path / "timings.jsonl").read_text()) == {"step": 2, "seconds": 0.5, "examples/s": 8.0}


def test_figures_that_are_no_numbers_are_null(tmp_path: Path) -> None:
    with MetricLogger(tmp_path, 0, 10, Terminal(file=io.StringIO())) as journal:
        journal.log(1, {"loss": math.nan}, {"seconds": 1.0})
        journal.evaluated(1, {"exact_match": math.inf})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": None}, {"step": 1, "evaluation": {"exact_match": None}}]


def test_every_writer_hears_what_the_files_hold(tmp_path: Path) -> None:
    with MetricLogger(tmp_path, 0, 10, Terminal(file=io.StringIO()), [TensorBoard(tmp_path, 0)]) as journal:
        journal.log(2, {"loss": 3.0, "recall": math.nan}, {"seconds": 1.0})
        journal.evaluated(2, {"exact_match": 0.5})
    (events,) = (tmp_path / "tensorboard").iterdir()
    held = events.read_bytes()
    assert all(name in held for name in (b"loss", b"seconds", b"evaluation/exact_match"))
    assert b"recall" not in held


def test_without_a_terminal_every_line_tells_step_loss_and_time_left(tmp_path: Path) -> None:
    first = write(tmp_path, 0, [5]).splitlines()[0]
    assert first.startswith("step 5/10  loss 5 ex/s 8")
    assert first.endswith(" s left")


def test_the_bar_fits_a_terminal_of_80_columns_with_all_it_promises(tmp_path: Path) -> None:
    said = io.StringIO()
    terminal = Terminal(file=said, force_terminal=True, width=80)
    with MetricLogger(tmp_path, 0, 1_200, terminal) as journal:
        values = {"loss": 0.31234, "grad_norm": 3.0, "recall": 0.953, "learning_rate": 0.0123}
        journal.log(300, values, {"seconds": 100.0, "examples/s": 1234.5})
        journal.log(400, values, {"seconds": 100.0, "examples/s": 1234.5})
    last = said.getvalue().rpartition("\r")[2]
    assert all(each in last for each in ("400/1200", "loss 0.312", "recall@K 0.953", "lr 0.0123", "ex/s "))
    assert "…" not in last
