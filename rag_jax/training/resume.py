"""Restore or initialise a run; the host state saved with a checkpoint; the error of a run that diverged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from rag_jax.core import training
from rag_jax.core.training import TrainState
from rag_jax.data import strict_json
from rag_jax.data.files import write_atomically
from rag_jax.errors import InputError
from rag_jax.parallel import devices, partitioning
from rag_jax.pipeline import finetuning, refreshing
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.pipeline.components import Components
from rag_jax.training.collapse_monitor import CollapseMonitor
from rag_jax.training.input_stream import HostBatch
from rag_jax.training.metrics_buffer import LastStep, MetricsBuffer
from rag_jax.training.provenance import Dependencies
from rag_jax.types import RagParams

IDS_LISTED = 16  # question ids listed in an error message


def restore_or_init(components: Components, first: RagParams, checkpoints: Checkpoints) -> tuple[TrainState, HostState]:
    """The newest saved training and host state; without a checkpoint, those of step 0 with the `first` parameters.

    These are the networks' own; a run with LoRA adds its adapters.
    """
    config, recipe, mesh = components.config, components.recipe, components.mesh
    networks = components.bi_encoder.config, components.generator.config, components.trained_passage_tower
    rules = partitioning.rules(*networks)

    def init(params: RagParams) -> TrainState:
        return training.init(recipe, finetuning.with_adapters(config, params), jax.random.key(config.seed))

    shapes = jax.eval_shape(init, first)
    if config.retriever.train_passages:
        shapes = shapes._replace(refreshed=refreshing.index_shapes(components))
    shardings = devices.shardings(shapes, mesh, rules)
    found = checkpoints.restore(shapes, shardings)
    if found is not None:
        return found
    params = checkpoints.restore_params(first) or first
    host_state = {"input": None, "window": [], "watchdog": None}
    if (
        shardings is None
    ):  # copies: the step donates its state, and the initial parameters are used again in the evaluation
        state = init(jax.tree.map(lambda leaf: jnp.array(leaf), params))
    else:
        spread = devices.put(params, devices.shardings(params, mesh, rules))
        state = jax.jit(init, out_shardings=shardings._replace(refreshed=None))(spread)
    if config.retriever.train_passages:
        state = state._replace(refreshed=refreshing.first_index(components, params.passage_tower))
    return state, host_state


def restore_or_begin(
    init: Callable[[Any], TrainState],
    first: Any,
    checkpoints: Checkpoints,
    mesh: Mesh | None,
    rules: partitioning.Rules,
) -> tuple[TrainState, HostState]:
    """`restore_or_init` of a run whose state is a function of its `first` parameters, and of nothing else."""
    shapes = jax.eval_shape(init, first)
    shardings = devices.shardings(shapes, mesh, rules)
    found = checkpoints.restore(shapes, shardings)
    if found is not None:
        return found
    host_state: HostState = {"input": None, "window": []}
    if shardings is None:  # copies: the step donates its state
        return init(jax.tree.map(jnp.array, first)), host_state
    spread = devices.put(first, devices.shardings(first, mesh, rules))
    return jax.jit(init, out_shardings=shardings)(spread), host_state


def host_state(
    dependencies: Dependencies, host_batch: HostBatch, metrics_buffer: MetricsBuffer, collapse_monitor: CollapseMonitor
) -> HostState:
    """The host-side state that resumes after the last batch."""
    return {
        "input": host_batch.stream_state,
        "window": metrics_buffer.state(),
        "watchdog": collapse_monitor.state(),
        "made_of": dependencies,
    }


def current_learning_rate(rates: optax.Schedule, step: int, values: dict[str, float]) -> float:
    """The learning rate of the last step. The schedule does not count skipped steps."""
    return float(np.asarray(rates(step - 1 - int(values["skipped"]))))


def non_finite_error(question_ids: Sequence[str], bad: LastStep, workdir: Path) -> InputError:
    """The error of a run without finite updates. Writes the ids of its last batch to not_finite.json."""
    step, host_batch, in_a_row = bad
    ids = [question_ids[i] for i in host_batch.examples]
    path = workdir / "not_finite.json"
    if devices.is_first():
        write_atomically(path, strict_json.dumps({"step": step, "questions": ids}) + "\n")
    more = f" and {len(ids) - IDS_LISTED} more: {path}" if len(ids) > IDS_LISTED else ""
    listed = ", ".join(map(repr, ids[:IDS_LISTED])) + more
    what = (
        f"{workdir}: step {step}: no finite loss, gradient or update for {in_a_row} steps in a row (questions {listed})"
    )
    remedy = (
        "look at these questions, or begin another --workdir with lower learning rates; these steps changed nothing"
    )
    return InputError(f"{what}; {remedy}")
