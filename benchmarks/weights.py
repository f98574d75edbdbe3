"""The random weights that every side starts from, as checkpoints that transformers loads as well."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.cases import GENERATOR, TOWER, Sizes
from rag_jax import hub
from rag_jax.models import registry
from rag_jax.types import Params

INIT_STD = 0.02  # BERT's and BART's


@contextmanager
def saved(sizes: Sizes, gain: float | None = None) -> Iterator[Path]:
    """A temporary folder that holds them."""
    with tempfile.TemporaryDirectory() as folder:
        save(sizes, Path(folder), gain)
        yield Path(folder)


def save(sizes: Sizes, folder: Path, gain: float | None = None) -> int:
    """Draw them, save each network in a folder of its own, and return how many there are.

    With BERT's and BART's deviations of 0.02 the passages hardly matter to an answer. With a `gain` the deviation of a
    matrix is `gain / sqrt(rows)`: above 1 they do.
    """
    tower, generator = sizes.tower, sizes.generator
    inits = partial(registry.tower_of(tower).init, tower), partial(registry.generator_of(generator).init, generator)
    both = drawn(inits[0], 0, gain), drawn(inits[1], 1, gain)
    hub.save(folder / TOWER, hub.TowerCheckpoint(tower, both[0], None, side="question"))
    hub.save(folder / GENERATOR, hub.GeneratorCheckpoint(generator, both[1], None, {}))
    return sum(leaf.size for leaf in jax.tree.leaves(both))


def drawn(init: Callable, seed: int, gain: float | None) -> Params:
    """Parameters of the shapes that `init` gives: compiling all its draws would take longer than everything else."""
    draw = np.random.default_rng(seed)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        if path[-1].key == "scale":
            return np.ones(shape.shape, np.float32)
        is_scaled = gain is not None and path[-1].key == "kernel"
        std = gain / np.sqrt(shape.shape[0]) if is_scaled else INIT_STD
        return np.float32(std) * draw.standard_normal(shape.shape, np.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))
