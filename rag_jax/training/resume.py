"""Where a run begins or goes on, what a checkpoint keeps of it beside the state, and how it ends before its time."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rag_jax.core import training
from rag_jax.core.training import TrainState
from rag_jax.data.batches import Examples
from rag_jax.data.files import write_atomically
from rag_jax.errors import InputError
from rag_jax.parallel import devices, partitioning
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.pipeline.components import Components
from rag_jax.training.collapse_monitor import CollapseMonitor
from rag_jax.training.input_stream import HostBatch
from rag_jax.training.metrics_buffer import LastStep, MetricsBuffer
from rag_jax.training.provenance import Dependencies
from rag_jax.types import RagParams

IDS_TOLD = 16  # of the questions of a batch, in an error's one line


def restore_or_init(components: Components, first: RagParams, checkpoints: Checkpoints) -> tuple[TrainState, HostState]:
    """The newest state that was saved, and where the host stood; or the first state, made of given parameters."""
    init = partial(training.init, components.recipe)
    seed = components.config.seed
    shapes = jax.eval_shape(lambda params: init(params, jax.random.key(seed)), first)
    shardings = devices.shardings(
        shapes, components.mesh, partitioning.rules(components.bi_encoder.config, components.generator.config)
    )
    found = checkpoints.restore(shapes, shardings)
    if found is not None:
        return found
    params = checkpoints.restore_params(first) or first
    host_state = {"input": None, "window": [], "watchdog": None}
    if shardings is None:  # copies: the step donates its state, and the first parameters are needed to the end
        return init(jax.tree.map(lambda leaf: jnp.array(leaf), params), jax.random.key(seed)), host_state
    make = jax.jit(lambda params: init(params, jax.random.key(seed)), out_shardings=shardings)
    return make(devices.put(params, shardings.params)), host_state


def host_state(
    dependencies: Dependencies, host_batch: HostBatch, metrics_buffer: MetricsBuffer, collapse_monitor: CollapseMonitor
) -> HostState:
    """What the host must know to go on behind the batch that was drawn last."""
    return {
        "input": host_batch.stream_state,
        "window": metrics_buffer.state(),
        "watchdog": collapse_monitor.state(),
        "made_of": dependencies,
    }


def current_learning_rate(rates: optax.Schedule, step: int, values: dict[str, float]) -> float:
    """The learning rate of the last step: a schedule counts the steps that changed something."""
    return float(np.asarray(rates(step - 1 - int(values["skipped"]))))


def non_finite_error(examples: Examples, bad: LastStep, workdir: Path) -> InputError:
    """The error of a run that gets nowhere; the ids of its last batch, however many, are left in a file."""
    step, host_batch, in_a_row = bad
    ids = [examples.ids[i] for i in host_batch.examples]
    path = workdir / "not_finite.json"
    if devices.is_first():
        write_atomically(path, json.dumps({"step": step, "questions": ids}) + "\n")
    more = f" and {len(ids) - IDS_TOLD} more: {path}" if len(ids) > IDS_TOLD else ""
    told = ", ".join(map(repr, ids[:IDS_TOLD])) + more
    what = (
        f"{workdir}: step {step}: no finite loss, gradient or update for {in_a_row} steps in a row (questions {told})"
    )
    remedy = (
        "look at these questions, or begin another --workdir with lower learning rates; no checkpoint is made of them"
    )
    return InputError(f"{what}; {remedy}")
