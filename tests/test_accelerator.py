"""The accelerator benchmark, tiny and on the CPU: the command, its files, and what stands where figures are missing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accelerator import SHARES, report
from benchmarks.accelerator.__main__ import with_weights

ROOT = Path(__file__).parents[1]


def run(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as it is typed; its processes compile as quickly as the tests."""
    command = ["bash", "benchmarks/accelerator.sh", str(out), "--size", "tiny", *map(str, arguments)]
    environment = {"PYTHON": sys.executable, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


def told(out: Path) -> dict[str, Any]:
    assert sorted(path.name for path in out.iterdir()) == ["accelerator.json", "accelerator.md"]
    return json.loads((out / "accelerator.json").read_text())["parts"]


@pytest.mark.extended
def test_the_rates_and_the_search_are_measured(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--parts", "search,roofline")
    assert done.returncode == 0, done.stderr
    parts = told(tmp_path / "out")
    assert list(parts) == ["roofline", "search"], "in the order of their worth"
    assert all("error" not in part for part in parts.values())
    assert parts["search"]["planted"] is True
    assert [(each["kind"], each["queries"]) for each in parts["search"]["searches"]] == [
        (kind, queries) for kind in ("bfloat16", "int8") for queries in (1, 3)
    ]
    assert "## Exact search" in done.stdout


@pytest.mark.extended
def test_a_part_that_has_no_time_says_so_and_the_rest_is_written(tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--parts", "roofline,search", "--minutes", 0).returncode == 0
    assert all("no time was left" in part["error"] for part in told(tmp_path / "out").values())


@pytest.mark.extended
def test_an_unknown_part_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--parts", "searching")
    assert done.returncode == 2
    assert "no such part" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.extended
def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "accelerator.md").write_text("mine")
    done = run(tmp_path, "--parts", "roofline")
    assert done.returncode == 2
    assert "choose another" in done.stderr
    assert (tmp_path / "accelerator.md").read_text() == "mine"


@pytest.mark.extended
def test_a_folder_is_named_from_where_the_command_is_given_and_may_hold_a_log(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log").write_text("")
    command = ["bash", str(ROOT / "benchmarks" / "accelerator.sh"), "out", "--size", "tiny", "--parts", "roofline"]
    environment = {"PYTHON": sys.executable, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run(command, cwd=tmp_path, env=os.environ | environment, check=True, capture_output=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["accelerator.json", "accelerator.md", "log"]


def test_parts_bring_the_weights_that_they_read() -> None:
    assert with_weights({"decode", "train"}) == ["weights", "train", "decode"]
    assert with_weights({"search", "roofline"}) == ["roofline", "search"]
    assert with_weights({*SHARES}) == [*SHARES]


@pytest.mark.extended
def test_a_part_ends_with_the_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.accelerator", str(tmp_path / "out"), "--size", "tiny"]
    with subprocess.Popen([*command, "--parts", "rightness"], cwd=ROOT, stdout=subprocess.DEVNULL) as started:
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
        while not (found := children.read_text().split()):
            time.sleep(0.05)
            assert started.poll() is None
        started.terminate()
        assert started.wait(30) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{found[0]}").exists()
    assert told(tmp_path / "out")["rightness"]["error"] == "the run was ended"


def test_the_opponent_of_a_decoder_is_the_fastest_of_its_kind() -> None:
    here = {"name": "token", "median": 1.0, "min": 1.0, "max": 1.0, "questions/s": 1.0}
    there = [here | {"name": "token", "median": 8.0}, here | {"name": "token, decoder compiled", "median": 6.0}]
    slow = here | {"name": "thorough", "median": 9.0, "cold": True}
    page = report.decoding({"decode": {"decoders": [here]}, "decode_torch": {"decoders": [*there, slow]}})
    assert "| 6.0 |" in page
    assert "transformers, thorough (one cold call)" in page


def test_answers_are_compared_with_those_of_the_opponent() -> None:
    known = {"median": 1.0, "min": 1.0, "max": 1.0, "questions/s": 1.0}
    here = known | {"name": "thorough, blocks of 4 rows", "answers": [[1, 2], [3]]}
    there = known | {"name": "thorough", "answers": [[1, 2], [4]]}
    page = report.decoding({"decode": {"decoders": [here]}, "decode_torch": {"decoders": [there]}})
    assert "| 1 of 2 |" in page


def test_a_page_is_made_of_whatever_is_known() -> None:
    machine = {"device": "none", "cores": 2, "python": "3"}
    failed = {name: {"error": "ended with 1: out of memory"} for name in SHARES}
    train = {"steps": [{"name": "fused", "error": "out of memory"}], "flops": 1e9}
    page = report.page({"machine": machine, "versions": {"jax": "0"}, "parts": failed | {"train": train}})
    assert page.count("out of memory") == len(SHARES)


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the opponent")
    done = run(tmp_path / "out", "--minutes", 20)
    parts = told(tmp_path / "out")
    assert list(parts) == list(SHARES)
    assert {name: part["error"] for name, part in parts.items() if "error" in part} == {}, done.stdout
    checks = parts["rightness"]["checks"]
    assert all(checks[f"decoding {name}"]["same tokens"] for name in ("token", "thorough", "fast"))
    assert all(checks["search"][f"products {kind}"] < 2**-16 for kind in ("float32", "bfloat16", "int8"))
    assert max(checks["train step"]["token"].values()) < 1e-4
    ours, theirs = parts["train"]["steps"][0]["losses"][0], parts["train_torch"]["losses"][0]
    assert abs(ours - theirs) < 0.05, "nats per token, both in bfloat16"
