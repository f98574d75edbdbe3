"""The training loop: one compiled step from state to state, retrieval included; logged, evaluated and saved."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from rag_jax.config.files import AnyConfig
from rag_jax.core import training
from rag_jax.core.variants import VARIANTS
from rag_jax.data.batches import Examples
from rag_jax.data.questions import Question
from rag_jax.evaluation import evaluate
from rag_jax.parallel import devices
from rag_jax.pipeline import finetuning, refreshing
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Components
from rag_jax.pipeline.finetuning import retriever_mode
from rag_jax.pipeline.recipes import learning_rates
from rag_jax.rag import RAG
from rag_jax.training import step_timer
from rag_jax.training.collapse_monitor import CollapseMonitor
from rag_jax.training.input_stream import StepInputs, step_inputs
from rag_jax.training.metric_logger import MetricLogger, NullLogger
from rag_jax.training.metric_writers import MetricWriter, TensorBoard, Wandb
from rag_jax.training.metrics_buffer import MetricsBuffer
from rag_jax.training.preemption import PreemptionHandler
from rag_jax.training.provenance import Dependencies
from rag_jax.training.resume import current_learning_rate, host_state, non_finite_error, restore_or_init
from rag_jax.types import RagParams

console = Console()


def train(
    components: Components,
    first: RagParams,
    examples: Examples,
    workdir: Path,
    depends: Dependencies,
    judged: Sequence[Question] = (),
) -> RAG:
    """Run the compiled step until `config.steps`; log, evaluate and save checkpoints.

    Args:
        first: initial parameters, if there is no checkpoint.
        depends: digests that each checkpoint stores, see `rag_jax.training.provenance`.
        judged: questions of the evaluations during training.
    """
    config, checkpoints = components.config, Checkpoints(workdir)
    if config.retriever.train_passages:
        components = refreshing.for_training(components)
    state, resumed = restore_or_init(components, first, checkpoints)
    step = devices.compile_per_shape(
        devices.jitted(partial(training.train_step, components.recipe), components.mesh, state)
    )
    done, rates = int(state.step), learning_rates(config)
    metrics_buffer, collapse_monitor, timer = (
        MetricsBuffer(resumed["window"]),
        CollapseMonitor(resumed["watchdog"]),
        step_timer.StepTimer(step_timer.search_seconds(refreshing.searching(components, state))),
    )
    merged = partial(finetuning.merged, config)
    batches = step_inputs(components, examples, resumed["input"], lambda: merged(state.params), timer)

    with PreemptionHandler() as preemption, open_logger(config, workdir, done) as logger:
        for number in range(done + 1, config.steps + 1):
            last = number == config.steps
            with timer("input"):
                given, host_batch = next(batches)
            with timer("step"):
                state, metrics = step(state, *given)
                metrics_buffer.add(number, host_batch, metrics)
            timer.saw(config.batch_size)
            if number % config.log_every == 0 or last:
                with timer("step"):
                    values = metrics_buffer.close()
                values["learning_rate"] = current_learning_rate(rates, number, values)
                logger.log(number, values, timer.close(*work(components, given, values["input_tokens"])))
                warned = collapse_monitor.judge(values)
                if warned:
                    logger.warn(warned)
            if metrics_buffer.last and metrics_buffer.last.skipped_in_a_row >= config.max_bad_steps:
                checkpoints.close()
                raise non_finite_error(examples.questions.ids, metrics_buffer.last, workdir)
            if config.eval_every and number % config.eval_every == 0:
                with timer("evaluation"):
                    rag = RAG(refreshing.searching(components, state), merged(state.params))
                    logger.evaluated(number, evaluate.scores(rag, judged))
            stop = preemption.after(number)
            # skipped steps must not replace good checkpoints
            due = number % config.save_every == 0 and not metrics_buffer.skips()
            if due or last or stop:
                with timer("save"):
                    checkpoints.save(state, host_state(depends, host_batch, metrics_buffer, collapse_monitor))
            if stop and not last:
                checkpoints.close()
                raise preemption.stopped(number, workdir)
    checkpoints.close()
    return RAG(refreshing.searching(components, state), merged(state.params))


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


def work(components: Components, given: StepInputs, read: float) -> tuple[float, float]:
    """The generator's input and target tokens for one question, and the model FLOPs.

    `read` is the mean input length; questions and targets count with the padding of this batch.
    """
    c, question, target = components.config, given.batch.question.ids.shape[1], given.batch.targets.shape[1]
    trains = retriever_mode(c) == "trained" and not c.data.is_closed_book
    sizes, fuses = (components.bi_encoder.config, components.generator.config), VARIANTS[c.model].fuses
    inputs = -(-components.num_docs // c.generator.passages_per_prompt)
    flops = step_timer.flops(*sizes, 1, inputs, (question, read, target), trains, fuses)
    flops += step_timer.passage_flops(components, given.knowledge.tower_tokens)
    return inputs * read + (1 if fuses else inputs) * target, flops
