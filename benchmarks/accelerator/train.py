"""The whole training step, the index resident: encode, search, gather, read, marginalise, update."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.accelerator import device
from benchmarks.accelerator.part import Record, reason, run, spread
from benchmarks.accelerator.scale import Scale
from benchmarks.accelerator.search import drawn, filled, fitting
from benchmarks.accelerator.weights import configs
from benchmarks.accelerator.weights import params as load_params
from benchmarks.train_cases import CLIP, DECAY, RATE, Arrays, fixed
from benchmarks.train_ours import given
from rag_jax.core import losses, optimizers, retrieval, training
from rag_jax.core.reading import InputLayout
from rag_jax.models import registry
from rag_jax.training.step_timer import flops
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Tokens

ROOM = 30e9  # bytes that the step itself takes beside the index, at most
VARIANTS: dict[str, dict[str, Any]] = {
    # A loop: it compiles in a fraction of the time. The second where the first fails.
    "fused attention, layers as a loop": {"attention": "fused", "scan": True},
    "plain attention, layers as a loop": {"attention": "plain", "scan": True},
}


def main(scale: Scale, weights: Path, record: Record) -> None:
    """Seconds of a step, questions per second, model FLOP/s, memory, compile time and the longest kernels."""
    shapes = scale.train
    knowledge = resident(scale)
    batches = [given(arrays)[1] for arrays in fixed(shapes, scale.networks.tower_width, 2)]
    params = load_params(weights, jnp.float32)
    work = flops(*configs(weights, jnp.bfloat16), shapes.questions, shapes.docs, lengths(scale), True)
    record(passages=len(knowledge.passage_vectors), flops=work, questions=shapes.questions, docs=shapes.docs, steps=[])
    steps: list[dict[str, Any]] = []
    try:
        leave_batch(scale, weights, params, knowledge, batches[0])
    except device.FAILURES as error:
        record(batch={"error": reason(error)})
    for name, how in VARIANTS.items():
        steps.append({"name": name})
        try:
            for told in stepped(scale, recipe_of(scale, weights, **how), params, knowledge, batches):
                steps[-1] |= told
                record(steps=steps)
        except device.FAILURES as error:
            steps[-1] |= {"error": reason(error)}
            record(steps=steps)
        if "median" in steps[-1]:
            return


def resident(scale: Scale) -> Knowledge:
    """As many passages as fit beside the step: vectors in bfloat16, tokens as uint16."""
    row = 2 * scale.width + 2 * scale.train.passage + 4
    most, passages = device.limit(), scale.passages
    if most is not None:
        passages = min(passages, int(most - ROOM) // row)
    vectors = drawn(fitting(passages, 2 * scale.width), scale.width)
    tokens = filled(
        jnp.zeros((len(vectors), scale.train.passage), jnp.uint16),
        lambda key, shape: jax.random.randint(key, shape, 4, scale.networks.vocabulary - 1, jnp.uint16),
    )
    return Knowledge(vectors, Tokens(tokens, jnp.full(len(vectors), scale.train.passage, jnp.int32)))


def lengths(scale: Scale) -> tuple[float, float, float]:
    """Q, S and T."""
    shapes = scale.train
    return shapes.question, shapes.passage + shapes.prompt, shapes.target


def recipe_of(scale: Scale, weights: Path, **how: Any) -> training.Recipe:
    """RAG-Token with AdamW on both networks, without dropout, as the opponent's."""
    tower, reader = configs(weights, jnp.bfloat16)
    tower, reader = replace(tower, **how), replace(reader, **how)
    rate = optax.constant_schedule(RATE)
    optimizer = optimizers.rag(optimizers.adamw(rate, DECAY), optimizers.adamw(rate, DECAY), CLIP)
    networks = Networks(registry.tower(tower), registry.generator(reader))
    return training.Recipe(
        networks, losses.rag_token_loss, optimizer, scale.train.docs, InputLayout(int(lengths(scale)[1]))
    )


def stepped(
    scale: Scale, recipe: training.Recipe, params: RagParams, knowledge: Knowledge, batches: list[Batch]
) -> Iterator[dict[str, Any]]:
    """A variant of the step, compiled and timed; then the longest kernels, as a profiler may take the process along."""
    state = training.init(recipe, jax.tree.map(jnp.array, params), jax.random.key(0))
    positives = jnp.full((scale.train.questions, 1), -1, jnp.int32)
    step = jax.jit(partial(training.train_step, recipe), donate_argnums=0)
    program, took, memory = device.compiled(step, state, knowledge, batches[0], positives)
    held, said = [state], []
    del state

    def take() -> Any:
        held[0], metrics = program(held[0], knowledge, batches[len(said) % len(batches)], positives)
        said.append(metrics.loss)
        return metrics.loss

    def stretch() -> Any:
        return [take() for _ in range(scale.stretch)]

    times = [seconds / scale.stretch for seconds in device.timed(stretch, scale.rounds)]
    told = spread(times) | memory | {"compile": took, "times": times}
    told["questions/s"] = scale.train.questions / told["median"]
    told["losses"] = [float(loss) for loss in said]
    yield told
    yield {"kernels": device.longest_kernels(take)}


def leave_batch(scale: Scale, weights: Path, params: RagParams, knowledge: Knowledge, batch: Batch) -> None:
    """Write the first batch with the passages that were found, for the opponent to train on the same."""
    recipe = recipe_of(scale, weights)

    @jax.jit
    def ask(params: RagParams, knowledge: Knowledge):
        queries = recipe.networks.tower(params.question_tower, batch.question)
        rows = retrieval.nearest(queries, knowledge, scale.train.docs).rows
        return knowledge.passage_vectors[rows], knowledge.passage_tokens.ids[rows]

    vectors, passages = jax.device_get(ask(params, knowledge))
    prompt = np.repeat(np.asarray(batch.prompt.ids)[:, None], scale.train.docs, axis=1)
    contexts = np.concatenate([passages.astype(np.int32), prompt], axis=2)
    arrays: Arrays = {
        "question": np.asarray(batch.question.ids),
        "contexts": contexts.reshape(-1, contexts.shape[2]),
        "vectors": vectors.astype(np.float32),
        "labels": np.asarray(batch.decoder_inputs),
    }
    np.savez(weights / "batch.npz", **arrays)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    with jax.numpy_dtype_promotion("standard"):
        run(main)
