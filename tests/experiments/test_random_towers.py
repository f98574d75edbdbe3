"""Towers of random weights: their sizes, and the folders that they are kept in."""

from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

import world
from experiment_files import Files
from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.experiments import options, random_towers, refresh


def test_each_random_tower_has_a_folder_and_an_index_of_its_own(files: Files, tmp_path: Path) -> None:
    world.write_tower(tmp_path / "larger", max_positions=32)
    larger = tmp_path / "larger.py"
    larger.write_text(
        files.config.read_text().replace(
            "config.retriever, ", f"config.retriever, tower={str(tmp_path / 'larger')!r}, "
        )
    )
    made = []
    for config in (files.config, larger, files.config):
        first, *_ = refresh.plan(options.Refresh(str(config), workdir=tmp_path, every=4)).runs
        made.append((first.config.retriever.tower, first.config.data.index))
    assert made[0] == made[2]
    assert made[0][0] != made[1][0]
    assert made[0][1] != made[1][1]


@pytest.mark.extended
def test_a_random_tower_has_the_sizes_of_the_other(towns: Config, tmp_path: Path) -> None:
    known = hub.load_tower(towns.retriever.tower)
    random_towers.write_tower(tmp_path / "tower", known)
    random = hub.load_tower(tmp_path / "tower")
    assert random.config == known.config
    shapes = jax.tree.map(np.shape, known.params)
    assert jax.tree.map(np.shape, random.params) == shapes
    kernels = [tower.params["layer_0"]["up"]["kernel"] for tower in (known, random)]
    assert not np.allclose(*kernels)
