"""The random weights that both sides start from, as a checkpoint in a folder: BERT and BART of the scale's sizes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.part import Record, run
from benchmarks.accelerator.scale import Scale
from benchmarks.ours import plain
from rag_jax import hub
from rag_jax.models import bart, bert
from rag_jax.models.bart import BartConfig
from rag_jax.models.bert import BertConfig
from rag_jax.types import Params, RagParams


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Draw them, and save them as transformers does, which can then be the opponent."""
    sizes = scale.networks
    tower = BertConfig(
        width=sizes.tower_width,
        layers=sizes.tower_layers,
        heads=sizes.tower_width // 64,
        ffn_width=4 * sizes.tower_width,
    )
    reader = BartConfig(
        vocab_size=sizes.vocabulary,
        width=sizes.width,
        encoder_layers=sizes.layers,
        decoder_layers=sizes.layers,
        heads=sizes.width // 64,
        ffn_width=4 * sizes.width,
    )
    both = drawn(partial(bert.init, tower), 0), drawn(partial(bart.init, reader), 1)
    hub.save(_tower(weights), hub.TowerCheckpoint(tower, both[0], None, side="question"))
    hub.save(_generator(weights), hub.GeneratorCheckpoint(reader, both[1], None, {}))
    record(parameters=sum(leaf.size for leaf in jax.tree.leaves(both)))


def drawn(init: Callable, seed: int) -> Params:
    """Parameters of the shapes that `init` gives: compiling all its draws would take longer than everything else."""
    draw = np.random.default_rng(seed)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        if path[-1].key == "scale":
            return np.ones(shape.shape, np.float32)
        return np.float32(0.02) * draw.standard_normal(shape.shape, np.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))


def configs(weights: Path, dtype: Any) -> tuple[BertConfig, BartConfig]:
    """The sizes of both networks, without dropout."""
    tower, generator = hub.load_tower(_tower(weights)), hub.load_generator(_generator(weights))
    return plain(tower.config, dtype), plain(generator.config, dtype)


def params(weights: Path, dtype: Any) -> RagParams:
    """The parameters of both networks."""
    both = RagParams(hub.load_tower(_tower(weights)).params, hub.load_generator(_generator(weights)).params)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), both)


def _tower(weights: Path) -> Path:
    return weights / "question_encoder"


def _generator(weights: Path) -> Path:
    return weights / "generator"


if __name__ == "__main__":
    run(main)
