"""A training step of this library, as a process of its own that answers requests on its standard input."""

import sys
from functools import partial
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cases import Sizes
from benchmarks.conversation import serve
from benchmarks.ours import load, matrix_product
from benchmarks.train_cases import CLIP, DECAY, RATE, REFERENCE_LENGTH, Arrays
from rag_jax.core import optimizers, training
from rag_jax.core.reading import InputLayout
from rag_jax.core.variants import VARIANTS, Model
from rag_jax.parallel import devices
from rag_jax.types import Batch, Knowledge, Networks, SearchResults, Tokens


def main(sizes: Sizes, folder: Path, model: Model, docs: int, lengths: tuple[int, ...]) -> None:
    """Load the weights that the other process made, then take the steps that are asked for."""
    tower, generator, params = load(folder, jnp.float32)
    rate = optax.constant_schedule(RATE)
    optimizer = optimizers.rag(optimizers.adamw(rate, DECAY), optimizers.adamw(rate, DECAY), CLIP)
    networks, objective = Networks(tower, generator), VARIANTS[model].objective
    recipe = training.Recipe(networks, objective, optimizer, docs, InputLayout(REFERENCE_LENGTH, pack_lengths=lengths))
    state = training.init(recipe, params, jax.random.key(0))
    step = devices.compile_per_shape(devices.jitted(partial(training.train_step, recipe), None, state))

    def take(request: dict, inputs: Arrays) -> float:
        nonlocal state
        batch = inputs["question"].shape[0]
        rows = np.arange(batch * docs, dtype=np.int32).reshape(batch, docs)
        state, metrics = step(state, *given(inputs), rows[:, :1], SearchResults(jnp.asarray(rows), None))
        return float(metrics.loss) * float(np.mean(inputs["label_lengths"] - 1))

    serve(take, matrix_product)


def given(inputs: Arrays) -> tuple[Knowledge, Batch]:
    """The passages that were found, and the questions."""

    def tokens(name: str, lengths: str) -> Tokens:
        return Tokens(jnp.asarray(inputs[name]), jnp.asarray(inputs[lengths]))

    labels, size = inputs["labels"], inputs["labels"].shape[1]
    targets = np.roll(labels, -1, axis=1)
    mask = np.arange(size)[None, :] < inputs["label_lengths"][:, None] - 1
    taught = (jnp.asarray(each) for each in (labels, targets, mask))
    questions = tokens("question", "question_lengths"), tokens("prompt", "prompt_lengths")
    return Knowledge(jnp.asarray(inputs["vectors"]), tokens("passages", "passage_lengths")), Batch(*questions, *taught)


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        main(
            Sizes.parse(sys.argv[1]),
            Path(sys.argv[2]),
            cast(Model, sys.argv[3]),
            int(sys.argv[4]),
            tuple(map(int, sys.argv[5:])),
        )
