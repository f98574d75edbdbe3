"""The random weights that both sides start from, as checkpoints in a folder, and their use on the device."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import weights as shared
from benchmarks.accelerator.part import Record, run
from benchmarks.accelerator.scale import Scale
from benchmarks.cases import GENERATOR, TOWER
from benchmarks.ours import plain
from rag_jax import hub
from rag_jax.models.architecture import GeneratorConfig, TowerConfig
from rag_jax.types import RagParams


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Draw them, and save them as transformers does, which can then be the opponent."""
    record(parameters=shared.save(scale.networks, weights))


@cache  # reading their weights takes seconds
def configs(weights: Path, dtype: Any) -> tuple[TowerConfig, GeneratorConfig]:
    """The sizes of both networks, without dropout."""
    tower, generator = hub.load_tower(weights / TOWER), hub.load_generator(weights / GENERATOR)
    return plain(tower.config, dtype), plain(generator.config, dtype)


def params(weights: Path, dtype: Any) -> RagParams:
    """The parameters of both networks."""
    both = RagParams(hub.load_tower(weights / TOWER).params, hub.load_generator(weights / GENERATOR).params)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), both)


if __name__ == "__main__":
    run(main)
