"""What a bi-encoder's training starts from: its checkpoints or another run, and the recall before it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import bi_encoders
from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive.run import train_and_evaluate
from rag_jax.errors import InputError


@pytest.fixture(scope="module")
def config(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> ContrastiveConfig:
    return bi_encoders.config(towns, tmp_path_factory.mktemp("contrastive"))


@pytest.fixture(scope="module")
def finished(config: ContrastiveConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    return bi_encoders.finished(config, tmp_path_factory.mktemp("finished") / "run")


@pytest.mark.extended
def test_the_towers_before_training_are_scored_over_their_own_index(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    workdir, results = finished
    towers, data = workdir / "towers", dataclasses.replace(config.data, passages=None, index=workdir / "index")
    retriever = dataclasses.replace(
        config.retriever, tower=str(towers / "question"), passage_tower=str(towers / "passage"), trained="question"
    )
    found = train_and_evaluate(dataclasses.replace(config, data=data, retriever=retriever), tmp_path / "run")
    assert found is not None
    assert found.index_folder == workdir / "index", "its vectors are those of the passage tower, which was not trained"
    assert not (tmp_path / "run" / "index").exists()
    assert found.results["recall@1_before"] == pytest.approx(results["recall@1"])


@pytest.mark.extended
def test_it_starts_from_another_run(config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path) -> None:
    later = dataclasses.replace(config, start_from=finished[0])
    train_and_evaluate(later, tmp_path / "run")
    assert bi_encoders.losses(tmp_path / "run")[0] < bi_encoders.losses(finished[0])[0] / 2


@pytest.mark.extended
def test_towers_that_pool_otherwise_are_no_start(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    tower = tmp_path / "tower"
    shutil.copytree(config.retriever.tower, tower)
    described = json.loads((tower / "config.json").read_text())
    (tower / "config.json").write_text(json.dumps(described | {"pooling": "cls"}))  # instead of the mean
    started = dataclasses.replace(config, start_from=finished[0])
    pooled = dataclasses.replace(started, retriever=dataclasses.replace(config.retriever, tower=str(tower)))
    with pytest.raises(InputError, match=r"its towers have another pooling than this config's; give retriever\.tower"):
        train_and_evaluate(pooled, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_tower_and_two_do_not_start_from_each_other(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    shared = dataclasses.replace(config.retriever, trained="shared", passage_tower=None)
    started = dataclasses.replace(config, retriever=shared, start_from=finished[0])
    told = f"its retriever.trained is {config.retriever.trained}, this config's shared; name the towers instead of"
    with pytest.raises(InputError, match=f"{told} start_from: --retriever.tower {finished[0] / 'towers'}"):
        train_and_evaluate(started, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.extended
def test_before_are_the_towers_of_the_run_that_it_starts_from(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    workdir, results = finished
    data = dataclasses.replace(config.data, index=workdir / "index")
    found = train_and_evaluate(dataclasses.replace(config, data=data, start_from=workdir, steps=1), tmp_path / "run")
    assert found is not None
    assert found.results["recall@1_before"] == pytest.approx(results["recall@1"])


@pytest.mark.extended
def test_it_goes_on_without_the_run_that_it_started_from(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path, capsys
) -> None:
    workdir = tmp_path / "first"
    shutil.copytree(finished[0], workdir)
    data = dataclasses.replace(config.data, index=workdir / "index")
    begun = dataclasses.replace(config, data=data, start_from=workdir, steps=1)
    train_and_evaluate(begun, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    capsys.readouterr()
    found = train_and_evaluate(dataclasses.replace(begun, steps=2), tmp_path / "run")
    assert found is not None
    assert "recall@1" in found.results
    assert "recall@1_before" not in found.results
    assert "first: not as it was when this run began; results lack the recall before" in capsys.readouterr().err


@pytest.mark.extended
def test_a_run_that_began_from_its_checkpoints_has_no_recall_of_another_run_before(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path, capsys
) -> None:
    train_and_evaluate(dataclasses.replace(config, steps=2), tmp_path / "run")
    data = dataclasses.replace(config.data, index=finished[0] / "index")
    later = dataclasses.replace(config, steps=2, data=data, start_from=finished[0])
    found = train_and_evaluate(later, tmp_path / "run")
    assert found is not None
    assert "recall@1_before" not in found.results
    assert "not as it was when this run began" in capsys.readouterr().err
