"""A contrastive step of this library, as a process of its own that answers requests on its standard input."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.conversation import serve
from benchmarks.ours import matrix_product
from benchmarks.retriever_cases import Arrays
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.files import load_config_of
from rag_jax.contrastive import towers
from rag_jax.contrastive.layout import Layout, Size
from rag_jax.core import contrastive, contrastive_training, optimizers, training
from rag_jax.core.contrastive_training import ContrastiveRecipe
from rag_jax.parallel import devices
from rag_jax.parallel.host import release_memory
from rag_jax.types import BiEncoderParams, ContrastiveBatch, host


def main(path: Path, layout_path: Path) -> None:
    """Load the tower of the config, then answer: the loss of a step; or, to `plan`, the bytes that it computes in.

    A plan compiles the step and does not take it.
    """
    config, layout = load_config_of(ContrastiveConfig, path), read_layout(layout_path)
    recipe, params = made(config)
    state = training.init(recipe, jax.tree.map(jnp.asarray, params), jax.random.key(0))
    step = devices.jitted(partial(contrastive_training.train_step, recipe), None, state)
    programs: dict[tuple, Any] = {}

    def program(batch: ContrastiveBatch) -> Any:
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in programs:
            programs[shapes] = step.lower(state, batch).compile()
            release_memory()
        return programs[shapes]

    def answer(request: dict, inputs: Arrays) -> float:
        nonlocal state
        batch = collated(layout, inputs)
        if request.get("plan"):
            return program(batch).memory_analysis().temp_size_in_bytes
        state, metrics = program(batch)(state, batch)
        return float(metrics.loss)

    serve(answer, matrix_product)


def made(config: ContrastiveConfig) -> tuple[ContrastiveRecipe, BiEncoderParams]:
    """The step of a training run, at a constant learning rate; and the parameters that it starts from."""
    loaded, c = towers.load(config), config.optimizer
    sizes: Any = loaded.question.checkpoint.config
    tower = towers.training_tower(config, sizes, None)
    objective = contrastive.objective(config.contrastive.temperature, vector_norm=sizes.vector_norm)
    adamw = optimizers.adamw(optax.constant_schedule(c.learning_rate), c.weight_decay)
    optimizer = optax.chain(optax.clip_by_global_norm(c.clip), adamw)
    return ContrastiveRecipe(tower, tower, objective, optimizer, config.contrastive.chunk), loaded.params


def read_layout(path: Path) -> Layout:
    """The layout that `retriever_cases` wrote."""
    question, passages, *rest = json.loads(path.read_text())
    return Layout(Size(*question), tuple(Size(*each) for each in passages), *rest)


def collated(layout: Layout, inputs: Arrays) -> ContrastiveBatch:
    """A batch as in training, but for accidental hits, which the opponent takes for negatives."""
    asked, read = (
        [row[:length].tolist() for row, length in zip(inputs[name], inputs[lengths], strict=True)]
        for name, lengths in (("questions", "question_lengths"), ("passages", "passage_lengths"))
    )
    questions, passages, place = layout(asked, read)
    candidates = np.ones((len(asked), len(read)), bool)
    return ContrastiveBatch(questions, passages, host(place), host(candidates))


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        main(Path(sys.argv[1]), Path(sys.argv[2]))
