"""metrics.jsonl: a line per logged step, once, however often the run is continued."""

import io
import json
from pathlib import Path

from rich.console import Console

from rag_jax.run.journal import Journal, seconds_trained


def write(path: Path, first: int, steps: list[int]) -> str:
    said = io.StringIO()
    with Journal(path, first, 10, Console(file=said)) as journal:
        for step in steps:
            journal.log(step, {"loss": float(step)}, examples=4)
    return said.getvalue()


def test_a_continued_run_rewrites_only_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [2, 4, 6])
    with path.open("a") as file:
        file.write('{"step": 8, "lo')  # killed while writing
    write(path, 4, [6, 8])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert [line["loss"] for line in lines] == [2.0, 4.0, 6.0, 8.0]


def test_seconds_add_up_over_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [2, 4])
    seconds = [json.loads(line)["seconds"] for line in path.read_text().splitlines()]
    assert all(second > 0 for second in seconds)
    assert seconds_trained(path) == sum(seconds)


def test_without_a_terminal_every_line_tells_step_loss_and_time_left(tmp_path: Path) -> None:
    first = write(tmp_path / "metrics.jsonl", 0, [5]).splitlines()[0]
    assert first.startswith("step 5/10  loss 5  examples/s ")
    assert first.endswith(" s left")


def test_the_bar_fits_a_terminal_of_80_columns_with_all_it_promises(tmp_path: Path) -> None:
    said = io.StringIO()
    terminal = Console(file=said, force_terminal=True, width=80)
    with Journal(tmp_path / "metrics.jsonl", 0, 1_200, terminal) as journal:
        values = {"loss": 0.31234, "grad_norm": 3.0, "recall": 0.953, "learning_rate": 0.0123}
        journal.log(300, values, examples=3_200)
        journal.log(400, values, examples=3_200)
    last = said.getvalue().rpartition("\r")[2]
    assert all(each in last for each in ("400/1200", "loss 0.312", "recall@K 0.953", "lr 0.0123", "ex/s "))
    assert "…" not in last
