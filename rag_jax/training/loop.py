"""The training loop of a RAG model: one compiled step from state to state, retrieval included."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rag_jax.core import training
from rag_jax.core.training import TrainState
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
from rag_jax.training.input_stream import HostBatch, StepInputs, step_inputs
from rag_jax.training.metrics_buffer import MetricsBuffer
from rag_jax.training.provenance import Dependencies
from rag_jax.training.resume import host_state, restore_or_init
from rag_jax.training.steps import Task, run_steps
from rag_jax.types import RagParams


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
    program = partial(training.train_step, components.recipe)
    step = devices.compile_per_shape(devices.jitted(program, components.mesh, state, config.compute.matmul_precision))
    metrics_buffer, collapse_monitor, timer = (
        MetricsBuffer(resumed["window"]),
        CollapseMonitor(resumed["watchdog"]),
        step_timer.StepTimer(step_timer.search_seconds(refreshing.searching(components, state)), config.mesh.size),
    )

    def model(state: TrainState) -> RAG:
        return RAG(refreshing.searching(components, state), finetuning.merged(config, state.params))

    def stream(current: Callable[[], TrainState]) -> Iterator[tuple[StepInputs, HostBatch]]:
        def params() -> RagParams:
            return finetuning.merged(config, current().params)

        return step_inputs(components, examples, resumed["input"], params, timer)

    task = Task(
        step,
        stream,
        examples.questions.ids,
        learning_rates(config),
        work=lambda inputs, batch, values: work(components, inputs, values["input_tokens"]),
        evaluate=lambda state: evaluate.scores(model(state), judged),
        host_state=lambda batch: host_state(depends, batch, metrics_buffer, collapse_monitor),
        warning=collapse_monitor.judge,
    )
    return model(run_steps(config, workdir, checkpoints, task, state, metrics_buffer, timer))


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
