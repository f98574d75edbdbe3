"""A training step of SmolLM2 in this library, as a process that answers requests."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import smollm2_model
from benchmarks.conversation import serve
from benchmarks.ours import matrix_product
from benchmarks.smollm2_cases import CLIP, DECAY, RATE
from rag_jax.core import optimizers, training
from rag_jax.parallel import devices
from rag_jax.pipeline.question_batches import target_batches
from rag_jax.types import SearchResults


def main(folder: Path, matmul_precision: str) -> None:
    """Load the weights, then take the steps that are asked for. The question tower is not trained."""
    rag = smollm2_model.load(folder, matmul_precision)
    adamw = optimizers.adamw(optax.constant_schedule(RATE), DECAY)
    recipe = rag.components.recipe._replace(optimizer=optimizers.rag(adamw, adamw, CLIP))
    state = training.init(recipe, jax.tree.map(jnp.asarray, rag.params), jax.random.key(0))
    program = partial(training.train_step, recipe)
    step = devices.compile_per_shape(devices.jitted(program, None, state, matmul_precision))
    knowledge = rag.knowledge

    def take(request: dict, inputs: dict[str, np.ndarray]) -> dict[str, list[float]]:
        nonlocal state
        asked, rows = inputs["questions"].tolist(), inputs["rows"]
        ((_, batch),) = target_batches(rag.components, asked, inputs["answers"].tolist(), len(asked))
        state, metrics = step(state, knowledge, batch, rows[:, :1], SearchResults(jnp.asarray(rows), None))
        return {"log_probs": [-float(metrics.loss) * float(np.mean(inputs["label_lengths"]))]}

    serve(take, matrix_product)


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        main(Path(sys.argv[1]), sys.argv[2])
