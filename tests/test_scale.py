"""One device, eight, and two processes of four: the same run, but for the order of its sums."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import launch
from rag_jax.config.config import Compute, Config, Optimizer
from rag_jax.index.store import open_store


@pytest.fixture(scope="module")
def config(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps with dropout and accumulation, over a knowledge store and a vocabulary that exist."""
    folder = tmp_path_factory.mktemp("scale")
    changed = dataclasses.replace(
        towns,
        data=dataclasses.replace(towns.data, index=folder / "index"),
        generator=dataclasses.replace(towns.generator, dropout=0.1, lengths=(16,)),
        optimizer=Optimizer(learning_rate=1e-3, tower_learning_rate=1e-4, warmup=5, clip=1.0),
        compute=Compute(accumulate=2),
        steps=20,
        log_every=1,
        save_every=20,
        eval_every=10,
    )
    launch.ended(launch.start(launch.write(changed, folder), "--workdir", folder / "made", "--steps", 1))
    words = dataclasses.replace(changed.generator, tokenizer=folder / "made" / "tokenizer.json")
    return launch.write(dataclasses.replace(changed, generator=words), folder)


@pytest.fixture(scope="module")
def alone(config: Path) -> list[dict]:
    launch.ended(launch.start(config, "--workdir", config.parent / "alone"))
    return told(config.parent / "alone")


def told(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same(found: list[dict], expected: list[dict]) -> None:
    losses, others = ([line["loss"] for line in lines if "loss" in line] for lines in (found, expected))
    assert len(losses) == 20
    np.testing.assert_allclose(losses, others, rtol=1e-5, atol=1e-5)
    judged, others = ([line["evaluation"] for line in lines if "loss" not in line] for lines in (found, expected))
    assert judged == others
    assert len(judged) == 2


MESHES = {
    "all": ("--mesh.data", 2, "--mesh.fsdp", 2, "--mesh.tensor", 2),
    "data": ("--mesh.data", 8),
    "fsdp": ("--mesh.fsdp", 8),
}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_compute_what_one_does(config: Path, alone: list[dict], mesh: str) -> None:
    workdir = config.parent / mesh
    launch.ended(launch.start(config, "--workdir", workdir, *MESHES[mesh], devices=8))
    assert_same(told(workdir), alone)


@pytest.mark.slow
def test_two_processes_of_four_devices_compute_what_one_does(config: Path, alone: list[dict]) -> None:
    workdir = config.parent / "processes"
    for process in launch.together((config, "--workdir", workdir, *MESHES["all"]), 2, 4):
        launch.ended(process)
    assert_same(told(workdir), alone)
    assert (workdir / "results.json").exists()


@pytest.mark.slow
def test_both_towers_and_their_index_are_trained_alike(config: Path) -> None:
    both = config, "--retriever.train-passages", "--retriever.refresh-every", 6
    alone, eight, processes = (config.parent / f"both-{name}" for name in ("alone", "eight", "processes"))
    launch.ended(launch.start(*both, "--workdir", alone))
    launch.ended(launch.start(*both, "--workdir", eight, *MESHES["fsdp"], devices=8))
    for process in launch.together((*both, "--workdir", processes, *MESHES["all"]), 2, 4):
        launch.ended(process)
    for workdir in (eight, processes):
        assert_same(told(workdir), told(alone))
        ages = [[line["staleness_mean"] for line in told(each) if "loss" in line] for each in (workdir, alone)]
        assert ages[0] == ages[1]
        indexes = (open_store(each / "refreshed_index", None, None) for each in (workdir, alone))
        np.testing.assert_allclose(*(index.passage_vectors.whole for index in indexes), rtol=1e-3, atol=1e-4)
