"""The loop over compiled steps, whatever is trained: timed, logged, evaluated, saved, and stopped cleanly."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optax

from rag_jax.config.files import AnyConfig
from rag_jax.core.training import TrainState
from rag_jax.parallel import devices
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.terminal import Terminal
from rag_jax.training.metric_logger import MetricLogger, NullLogger
from rag_jax.training.metric_writers import MetricWriter, TensorBoard, Wandb
from rag_jax.training.metrics_buffer import MetricsBuffer
from rag_jax.training.preemption import PreemptionHandler
from rag_jax.training.resume import current_learning_rate, non_finite_error
from rag_jax.training.step_timer import StepTimer

console = Terminal()


class Task(NamedTuple):
    """What differs between kinds of training. `inputs` are a step's arguments after its state."""

    step: Callable[..., tuple[TrainState, Any]]  # (state, *inputs) -> (state, metrics), compiled
    # (current state) -> (inputs, batch of the host) endlessly; a batch has the `examples` that it holds
    stream: Callable[[Callable[[], TrainState]], Iterator[tuple[Sequence[Any], Any]]]
    question_ids: Sequence[str]  # of the examples
    rates: optax.Schedule
    work: Callable[[Any, Any, Mapping[str, float]], tuple[float, float]]  # (inputs, batch, metrics) -> tokens and FLOPs
    evaluate: Callable[[TrainState], Mapping[str, float]]
    host_state: Callable[[Any], HostState]  # of a checkpoint after this batch
    warning: Callable[[dict[str, float]], str | None] = lambda metrics: None
    evaluates_last: bool = True  # whether the last step may be evaluated too


def run_steps(
    config: AnyConfig,
    workdir: Path,
    checkpoints: Checkpoints,
    task: Task,
    state: TrainState,
    metrics_buffer: MetricsBuffer,
    timer: StepTimer,
) -> TrainState:
    """Run the compiled step until `config.steps`. Returns the last state, which is saved; closes the checkpoints."""
    done, stream = int(state.step), task.stream(lambda: state)
    with PreemptionHandler() as preemption, open_logger(config, workdir, done) as logger:
        for number in range(done + 1, config.steps + 1):
            last = number == config.steps
            with timer("input"):
                inputs, batch = next(stream)
            with timer("step"):
                state, metrics = task.step(state, *inputs)
                metrics_buffer.add(number, batch, metrics)
            timer.saw(config.batch_size)
            if number % config.log_every == 0 or last:
                with timer("step"):
                    values = metrics_buffer.close()
                values["learning_rate"] = current_learning_rate(task.rates, number, values)
                logger.log(number, values, timer.close(*task.work(inputs, batch, values)))
                warned = task.warning(values)
                if warned:
                    logger.warn(warned)
            if metrics_buffer.last and metrics_buffer.last.skipped_in_a_row >= config.max_bad_steps:
                checkpoints.close()
                raise non_finite_error(task.question_ids, metrics_buffer.last, workdir)
            if config.eval_every and number % config.eval_every == 0 and (task.evaluates_last or not last):
                with timer("evaluation"):
                    logger.evaluated(number, task.evaluate(state))
            stop = preemption.after(number)
            # skipped steps must not replace good checkpoints
            due = number % config.save_every == 0 and not metrics_buffer.skips()
            if due or last or stop:
                with timer("save"):
                    checkpoints.save(state, task.host_state(batch))
            if stop:
                logger.stopped(number, timer.seconds)
                checkpoints.close()
                raise preemption.stopped(number, workdir)
    checkpoints.close()
    return state


def open_logger(config: AnyConfig, workdir: Path, first_step: int) -> MetricLogger | NullLogger:
    """The metric logger of the first process; a null logger elsewhere."""
    if not devices.is_first():
        return NullLogger()
    watchers: list[MetricWriter] = []
    if config.watch.tensorboard:
        watchers.append(TensorBoard(workdir, first_step))
    if config.watch.wandb:
        watchers.append(Wandb(workdir, config.watch.wandb, dataclasses.asdict(config)))
    return MetricLogger(workdir, first_step, config.steps, console, watchers)
