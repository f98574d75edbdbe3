"""What experiments refuse in one line, before anything is written."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from experiment_files import STEPS, Files, run
from rag_jax.commands.experiment import experiment
from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.experiments.registry import EXPERIMENTS
from rag_jax.experiments.report import own_folder


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "name an experiment; the experiments are ablation, k-sweep, "),
        (("ablations",), "no experiment 'ablations'; the experiments are ablation, k-sweep, "),
        (("ablation", "--seeds", "0"), "--seeds is 0; give 1 or more"),
        (("ablation", "--questions", "0"), "--questions is 0; give 1 or more"),
        (("ablation", "--closed-book", "CONFIG"), "config.py: reads passages; name a closed-book config as"),
        (("k-sweep", "--ks", "1", "257"), "--ks: 257 is more than the 256 passages of the index; give 1 to 256"),
        (("k-sweep", "--ks", "2", "2"), "--ks are 2 2; give different numbers of 1 or more"),
        (("hot-swap",), "name the second version of the world: --other-passages FILE and --other-questions FILE"),
        (("posterior",), 'ask a question: --question "What is the population of Lyon?"'),
        (("posterior", "--question", "x", "--num-docs", "999"), "--num-docs is 999, the index has 256 passages; give"),
        (("posterior", "--question", "x", "--model-workdir", "nowhere"), "leave --config and --reader out"),
        (("collapse", "--rate-factor", "1"), "--rate-factor is 1.0; give more than 1"),
        (("collapse", "--seeds", "2"), "Unrecognized options: --seeds"),
        (("distillation", "--objectives", "lsr", "lsr"), "--objectives are lsr lsr; give one or more, each once"),
        (("distillation", "--objectives"), "--objectives are empty; give one or more, each once"),
        (("refresh", "--every", "1"), f"--every is 1; give 2 or more, and less than the {STEPS} steps of a run"),
        (("refresh", "--every", "8"), f"--every is 8; give 2 or more, and less than the {STEPS} steps of a run"),
        (("refresh", "--every", "9"), f"--every is 9; give 2 or more, and less than the {STEPS} steps of a run"),
        (("refresh", "--contrastive-steps", "0"), "--contrastive-steps is 0; give 1 or more"),
        (("staleness", "--lags", "0", "-1"), "--lags are 0 -1; give different numbers of 0 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    files: Files, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    given = [each.replace("CONFIG", str(files.config)) for each in arguments]
    if given and given[0] in EXPERIMENTS:
        given += ["--config", str(files.config), "--workdir", str(tmp_path / "new")]
    with pytest.raises(InputError) as refused:
        experiment(given)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("passages=None", "closed book, and experiments need passages"),
        ("evaluation=None", "data.evaluation is not given"),
        ("train=None", "data.train is not given"),
    ],
)
def test_configs_that_cannot_be_measured_are_refused(files: Files, tmp_path: Path, change: str, line: str) -> None:
    config, data = tmp_path / "config.py", "dataclasses.replace(config.data, "
    config.write_text(files.config.read_text().replace(data, data + change))
    with pytest.raises(InputError, match=line):
        run("ablation", files._replace(config=config), workdir=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_second_version_must_ask_for_something_else(files: Files, towns: Config, tmp_path: Path) -> None:
    same = "--other-passages", towns.data.passages, "--other-questions", towns.data.evaluation
    with pytest.raises(InputError, match=r"test.jsonl: no question of data.evaluation has another answer there; give"):
        run("hot-swap", files, *same, workdir=tmp_path / "new")


def test_a_foreign_folder_and_a_run_of_another_config_are_refused(files: Files, trained, tmp_path: Path) -> None:
    (tmp_path / "thesis.md").write_text("text")
    with pytest.raises(InputError, match=r"holds thesis.md, but no experiments; choose another --workdir"):
        run("collapse", files, workdir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.md"]
    workdir = tmp_path / "experiments"
    own_folder(workdir).claim()
    shutil.copytree(trained[2], workdir / "runs" / "token-trained-0")
    with pytest.raises(InputError, match=r"runs/token-trained-0/config.json: belongs to a run with another config"):
        run("k-sweep", files._replace(config=files.sentences), "--seeds", 1, "--ks", 1, workdir=workdir)


def test_an_index_of_the_users_own_is_not_changed(files: Files, tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    own = f"dataclasses.replace(config.data, index=Path({str(tmp_path / 'index')!r})"
    config.write_text(files.config.read_text().replace("dataclasses.replace(config.data, ", own))
    with pytest.raises(
        InputError, match=r"index: has no exact index of FAISS; build one with rag-jax index --out .* --faiss Flat"
    ):
        run("staleness", files._replace(config=config), workdir=tmp_path / "new")
