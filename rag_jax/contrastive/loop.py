"""The loop of contrastive training: one compiled step from state to state; logged, evaluated and saved."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive import batches, negatives
from rag_jax.contrastive.batches import Collator
from rag_jax.contrastive.examples import Examples, draws
from rag_jax.contrastive.towers import Towers, training_tower
from rag_jax.core import contrastive, contrastive_training, training
from rag_jax.core.contrastive_training import ContrastiveRecipe
from rag_jax.core.packing import unpacked
from rag_jax.core.training import TrainState
from rag_jax.index.store import Store
from rag_jax.models import registry
from rag_jax.parallel import devices, partitioning
from rag_jax.pipeline import recipes
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.training.metrics_buffer import MetricsBuffer
from rag_jax.training.provenance import Dependencies
from rag_jax.training.resume import restore_or_begin
from rag_jax.training.step_timer import StepTimer
from rag_jax.training.steps import Task, run_steps
from rag_jax.types import BiEncoderParams, ContrastiveBatch


class Run(NamedTuple):
    """Everything that a contrastive run is made of."""

    config: ContrastiveConfig
    towers: Towers
    store: Store  # the corpus; its vectors are not used
    examples: Examples
    mesh: Mesh | None

    @property
    def recipe(self) -> ContrastiveRecipe:
        """The components of the training step."""
        c, sizes = self.config.contrastive, self.towers.question.checkpoint.config
        return ContrastiveRecipe(
            training_tower(self.config, sizes, self.mesh),
            training_tower(self.config, self.towers.passage.checkpoint.config, self.mesh),
            contrastive.objective(c.temperature, c.symmetric, c.widths, sizes.vector_norm, c.margin_mse),
            recipes.clipped_adamw(self.config.optimizer, self.config.steps),
            c.chunk,
            partial(_trained, self.config.retriever.trained),
        )

    @property
    def collator(self) -> Collator:
        """How draws become batches."""
        encoder = self.towers.passage_encoder(self.config, self.towers.params)
        return batches.collator(self.config, self.examples, self.store, encoder)


class Drawn(NamedTuple):
    """What the host knows of a batch, and the state of the stream after it. Tokens are counted without padding."""

    examples: Int[np.ndarray, " B"]  # indices into `Examples`
    stream_state: dict[str, Any]
    num_passages: int
    question_tokens: int
    passage_tokens: int


def train(
    run: Run,
    first: BiEncoderParams,
    workdir: Path,
    depends: Dependencies,
    evaluate: Callable[[BiEncoderParams], dict[str, float]],
) -> BiEncoderParams:
    """Run the compiled step until `config.steps`; log, evaluate and save checkpoints.

    Args:
        first: initial parameters, if there is no checkpoint.
        depends: digests that each checkpoint stores, see `rag_jax.training.provenance`.
        evaluate: the scores of some parameters, for the evaluations during training.
    """
    config, checkpoints = run.config, Checkpoints(workdir)
    state, resumed = _restore_or_init(run, first, checkpoints)
    program = partial(contrastive_training.train_step, run.recipe)
    step = devices.compile_per_shape(devices.jitted(program, run.mesh, state, config.compute.matmul_precision))
    metrics_buffer = MetricsBuffer(resumed["window"])
    task = Task(
        step,
        lambda current: _stream(run, resumed["input"]),
        [question.id for question in run.examples.questions],
        recipes.adamw_rates(config.optimizer, config.steps),
        work=lambda inputs, drawn, values: _work(run, drawn),
        evaluate=lambda state: evaluate(state.params),
        host_state=lambda drawn: _host_state(depends, drawn, metrics_buffer),
        evaluates_last=False,  # the results of the run are an evaluation of it
    )
    timer = StepTimer(devices=config.mesh.size)
    return run_steps(config, workdir, checkpoints, task, state, metrics_buffer, timer).params


def _restore_or_init(run: Run, first: BiEncoderParams, checkpoints: Checkpoints) -> tuple[TrainState, HostState]:
    """The newest saved training and host state; without a checkpoint, those of step 0 with the `first` parameters."""
    recipe, key = run.recipe, jax.random.key(run.config.seed)
    rules = partitioning.rules(
        run.towers.question.checkpoint.config, passage_tower=run.towers.passage.checkpoint.config
    )

    def init(params: BiEncoderParams) -> TrainState:
        return training.init(recipe, params, key)

    return restore_or_begin(init, first, checkpoints, run.mesh, rules)


def _host_state(depends: Dependencies, drawn: Drawn, buffer: MetricsBuffer) -> HostState:
    return {"input": drawn.stream_state, "window": buffer.state(), "made_of": depends}


def _stream(run: Run, stream_state: dict[str, Any] | None) -> Iterator[tuple[tuple[ContrastiveBatch], Drawn]]:
    """Batches endlessly, starting at `stream_state` (None: the beginning)."""
    c, collate = run.config.contrastive, run.collator
    drawn = draws(run.examples, run.config.batch_size, c.hard_negatives, run.config.seed)
    if stream_state is not None:
        drawn.set_state(stream_state)
    masks = negatives.Candidates(run.examples.questions, run.examples.right, run.store, c.false_negatives == "answer")
    known = run.examples
    log_q = negatives.log_q(known.gold, run.config.batch_size, known.negatives, c.hard_negatives) if c.log_q else None
    for each in drawn:
        rows = batches.passage_rows(each)
        batch = collate(each, masks(each[:, 0], rows), None if log_q is None else log_q(rows))
        asked = int(np.sum(unpacked(batch.questions).lengths))
        read = sum(int(np.sum(unpacked(group).lengths)) for group in batch.passages)
        yield (devices.shard(batch, run.mesh),), Drawn(each[:, 0], drawn.get_state(), len(rows), asked, read)


def _trained(trained: str, params: BiEncoderParams) -> BiEncoderParams:
    """Whether each parameter is trained; see `rag_jax.core.trainable`."""
    is_trained = BiEncoderParams(True, trained == "both")
    return BiEncoderParams(
        *(jax.tree.map(lambda _, own=own: own, tree) for own, tree in zip(is_trained, params, strict=True))
    )


def _work(run: Run, drawn: Drawn) -> tuple[float, float]:
    """The tokens that the towers read for one question, and the model FLOPs, without padding or second passes."""
    size = run.config.batch_size
    question, passage = (side.checkpoint.config for side in (run.towers.question, run.towers.passage))
    asked, read = drawn.question_tokens / size, drawn.passage_tokens / drawn.num_passages
    cost_of_passages = 1.0 if run.config.retriever.trained == "question" else 3.0
    flops = 3.0 * registry.tower_of(question).flops(question, asked)
    flops += cost_of_passages * drawn.num_passages / size * registry.tower_of(passage).flops(passage, read)
    return asked + drawn.passage_tokens / size, flops
