"""The configs of what the paper trains: each is complete, and says what the paper does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag_jax.config.files import read_config_file
from rag_jax.training import checks

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "configs" / "paper").glob("*_*.py"))
TASKS = {  # training questions and K
    "nq": (79_168, 5),
    "triviaqa": (78_785, 5),
    "webquestions": (3_417, 5),
    "curatedtrec": (635, 5),
    "msmarco": (153_726, 10),
    "jeopardy": (97_392, 10),
    "fever": (145_450, 5),
    "fever2": (96_966, 5),
}


def test_each_task_has_both_models() -> None:
    assert {path.stem for path in FILES} == {f"{task}_{model}" for task in TASKS for model in ("token", "sequence")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_what_the_paper_does(path: Path) -> None:
    config = read_config_file(path)
    task, model = path.stem.split("_")
    questions, num_docs = TASKS[task]
    assert config.model == model
    assert config.retriever.num_docs == num_docs
    assert config.steps == 10 * questions // 64
    assert config.batch_size == 64
    assert (config.retriever.mode, config.generator.checkpoint) == ("trained", "facebook/bart-large")
    rates = config.optimizer
    assert (rates.kind, rates.learning_rate, rates.tower_learning_rate) == ("adamw", 3e-5, 3e-5)
    assert (rates.weight_decay, rates.clip, rates.label_smoothing) == (1e-3, 0.1, 0.1)
    assert rates.warmup == min(500, config.steps // 10)
    assert config.generator.max_input == 300
    assert config.retriever.max_question == 128
    assert config.data.train == Path("data", task, "train.jsonl")
    starts = {"webquestions", "curatedtrec"}
    assert config.start_from == (Path(f"runs/nq_{model}") if task in starts else None)
    checks.check_numbers(config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_docstring_gives_the_command_and_says_not_yet_measured(path: Path) -> None:
    source = path.read_text()
    assert f"rag-jax train paper/{path.stem} --workdir runs/{path.stem}" in source
    assert "Not yet measured." in source


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_dry_run_compiles_a_step(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Equal programs are compiled once: those of several tasks are."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # the code generators of a user
    kept |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.getbasetemp() / "programs")}
    command = [sys.executable, "train.py", path, "--workdir", "unused", "--dry-run"]
    ran = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "the step compiles" in ran.stdout
