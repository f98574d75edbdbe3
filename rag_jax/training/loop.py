"""The training loop: one compiled step from state to state, retrieval included; logged, evaluated and saved."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from rag_jax.config.config import Config
from rag_jax.core import training
from rag_jax.data.batches import Examples
from rag_jax.data.questions import Question
from rag_jax.evaluation import evaluate
from rag_jax.parallel import devices
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.pipeline.components import Parts
from rag_jax.pipeline.recipes import learning_rates
from rag_jax.rag import RAG
from rag_jax.training import step_timer
from rag_jax.training.collapse_monitor import Watchdog
from rag_jax.training.input_stream import Given, feed
from rag_jax.training.metric_logger import Journal, Silent
from rag_jax.training.metric_writers import TensorBoard, Wandb, Writer
from rag_jax.training.metrics_buffer import Window
from rag_jax.training.preemption import Stopping
from rag_jax.training.provenance import MadeOf
from rag_jax.training.resume import begin, kept, not_finite, rate
from rag_jax.types import RagParams

console = Console()


def train(
    parts: Parts,
    first: RagParams,
    examples: Examples,
    workdir: Path,
    depends: MadeOf,
    judged: Sequence[Question] = (),
) -> RAG:
    """The loop: one compiled step from state to state, retrieval included; checkpoints say what it `depends` on."""
    config, checkpoints = parts.config, Checkpoints(workdir)
    state, place = begin(parts, first, checkpoints)
    step = devices.compiled_first(devices.jitted(partial(training.train_step, parts.recipe), parts.mesh, state))
    done, rates = int(state.step), learning_rates(config)
    window, watchdog, clock = (
        Window(place["window"]),
        Watchdog(place["watchdog"]),
        step_timer.Clock(step_timer.searching(parts)),
    )
    batches = feed(parts, examples, place["input"], lambda: state.params, clock)

    with Stopping() as stopping, open_journal(config, workdir, done) as journal:
        for number in range(done + 1, config.steps + 1):
            last = number == config.steps
            with clock("input"):
                given, drawn = next(batches)
            with clock("step"):
                state, metrics = step(state, *given)
                window.add(number, drawn, metrics)
            clock.saw(config.batch_size)
            if number % config.log_every == 0 or last:
                with clock("step"):
                    values = window.close()
                values["learning_rate"] = rate(rates, number, values)
                journal.log(number, values, clock.close(*work(parts, given, values["input_tokens"])))
                warned = watchdog.judge(values)
                if warned:
                    journal.warn(warned)
            if window.last and window.last.skipped_in_a_row >= config.max_bad_steps:
                checkpoints.close()
                raise not_finite(examples, window.last, workdir)
            if config.eval_every and number % config.eval_every == 0:
                with clock("evaluation"):
                    journal.evaluated(number, evaluate.scores(RAG(parts, state.params), judged))
            stop = stopping.after(number)
            due = number % config.save_every == 0 and not window.skips()  # lest bad steps push good ones out
            if due or last or stop:
                with clock("save"):
                    checkpoints.save(state, kept(depends, drawn, window, watchdog))
            if stop and not last:
                checkpoints.close()
                raise stopping.stopped(number, workdir)
    checkpoints.close()
    return RAG(parts, state.params)


def open_journal(config: Config, workdir: Path, first_step: int) -> Journal | Silent:
    """Where the run is told, by the first process."""
    if not devices.is_first():
        return Silent()
    watchers: list[Writer] = []
    if config.watch.tensorboard:
        watchers.append(TensorBoard(workdir, first_step))
    if config.watch.wandb:
        watchers.append(Wandb(workdir, config.watch.wandb, dataclasses.asdict(config)))
    return Journal(workdir, first_step, config.steps, console, watchers)


def work(parts: Parts, given: Given, read: float) -> tuple[float, float]:
    """The tokens that the generator reads and is taught for one question, and its model FLOPs.

    `read` is the mean length of an input; questions and targets count with the padding of this batch.
    """
    c, question, target = parts.config, given.batch.question.ids.shape[1], given.batch.targets.shape[1]
    trains = c.retriever.mode == "trained" and not c.data.is_closed_book
    sizes = parts.towers.config, parts.reader.config
    flops = step_timer.flops(*sizes, 1, parts.num_docs, (question, read, target), trains)
    return parts.num_docs * (read + target), flops
