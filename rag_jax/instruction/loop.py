"""The loop of instruction tuning: one compiled step from state to state; logged, evaluated and saved."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int

from rag_jax.config.instruction import InstructionConfig
from rag_jax.core import instruction, lora, training
from rag_jax.core.instruction import InstructionRecipe
from rag_jax.core.training import TrainState
from rag_jax.data.chats import Example
from rag_jax.instruction import batches
from rag_jax.instruction.checks import finetuning
from rag_jax.instruction.examples import Mixture, draws
from rag_jax.models import registry
from rag_jax.parallel import devices, partitioning
from rag_jax.pipeline import networks, recipes
from rag_jax.pipeline.checkpoints import Checkpoints, HostState
from rag_jax.pipeline.components import GeneratorBundle
from rag_jax.pipeline.finetuning import ADAPTERS
from rag_jax.training.metrics_buffer import MetricsBuffer
from rag_jax.training.provenance import Dependencies
from rag_jax.training.resume import restore_or_begin
from rag_jax.training.step_timer import StepTimer
from rag_jax.training.steps import Task, run_steps
from rag_jax.types import Conversations, Generator, Params

DRAWN = 2_048  # examples whose lengths are looked at


class Drawn(NamedTuple):
    """What the host knows of a batch, and the state of the stream after it. Tokens are counted without padding."""

    examples: Int[np.ndarray, " B"]  # indices into the mixture's examples
    stream_state: dict[str, Any]
    tokens: int
    targets: int


@dataclass(frozen=True)
class Run:
    """Everything that a run is made of but its files."""

    config: InstructionConfig
    generator: GeneratorBundle
    mesh: Mesh | None

    @cached_property
    def network(self) -> Generator:
        """The generator as a function of the parameters that are trained; on a mesh, activations are sharded by row."""
        c = self.config.compute
        sharding = None if self.mesh is None else NamedSharding(self.mesh, devices.BATCH)
        network = networks.generator(self.generator.config, c, scan=c.scan, remat=c.remat, sharding=sharding)
        plan = finetuning(self.config)
        return lora.generator(network, plan.lora.alpha) if plan.has_adapters else network

    @property
    def recipe(self) -> InstructionRecipe:
        """The components of the training step."""
        optimizer = recipes.clipped_adamw(self.config.optimizer, self.config.steps)
        return InstructionRecipe(self.network, optimizer, self.config.compute.accumulate, finetuning(self.config).mask)

    @property
    def rules(self) -> partitioning.Rules:
        """How parameters are sharded."""
        return partitioning.rules_of(self.generator.config)

    def with_adapters(self, params: Params) -> Params:
        """The parameters that are trained, from the network's own: new adapters, by the config's seed."""
        key = jax.random.fold_in(jax.random.key(self.config.seed), ADAPTERS)
        return finetuning(self.config).with_adapters(params, key)

    def merged(self, params: Params) -> Params:
        """The network's own parameters, from those that are trained."""
        plan = finetuning(self.config)
        return jax.jit(partial(lora.merge, alpha=plan.lora.alpha))(params) if plan.has_adapters else params

    def spread(self, params: Params) -> Params:
        """Parameters that every process holds, on the devices of the mesh."""
        shardings = devices.shardings(params, self.mesh, self.rules)
        return params if shardings is None else devices.put(params, shardings)

    @cached_property
    def log_likelihood(self) -> Callable[[Params, tuple[Conversations, ...]], jax.Array]:
        """The compiled log-likelihood of a batch."""
        return jax.jit(partial(instruction.log_likelihood, self.network))

    def negative_log_likelihood(self, params: Params, examples: Sequence[Example]) -> float:
        """-log p of the responses per token, in nats, by the parameters that are trained."""
        layout = batches.usual_layout(self.config, examples)._replace(num_microbatches=1)  # a batch is not split
        packed = (layout(each) for each in batches.batched(examples, self.config.batch_size))
        total = sum(float(self.log_likelihood(params, devices.shard(batch, self.mesh))) for batch in packed)
        return -total / sum(len(each.targets) for each in examples)


def train(
    run: Run, mixture: Mixture, first: Params, workdir: Path, depends: Dependencies, judged: Sequence[Example]
) -> Params:
    """Run the compiled step until `config.steps`; log, evaluate and save checkpoints.

    Args:
        first: the network's initial parameters, if there is no checkpoint.
        depends: digests that each checkpoint stores, see `rag_jax.training.provenance`.
        judged: examples of the evaluations during training.

    Returns the parameters that are trained, on the devices of the mesh.
    """
    config, recipe, checkpoints = run.config, run.recipe, Checkpoints(workdir)

    def init(params: Params) -> TrainState:
        return training.init(recipe, run.with_adapters(params), jax.random.key(config.seed))

    state, resumed = restore_or_begin(init, first, checkpoints, run.mesh, run.rules)
    program = partial(instruction.train_step, recipe)
    step = devices.compile_per_shape(devices.jitted(program, run.mesh, state, config.compute.matmul_precision))
    metrics_buffer = MetricsBuffer(resumed["window"])

    def host_state(drawn: Drawn) -> HostState:
        return {"input": drawn.stream_state, "window": metrics_buffer.state(), "made_of": depends}

    task = Task(
        step,
        lambda current: _stream(run, mixture, resumed["input"]),
        [example.id for example in mixture.examples],
        recipes.adamw_rates(config.optimizer, config.steps),
        work=lambda inputs, drawn, values: _work(run, drawn),
        evaluate=lambda state: {"nll": run.negative_log_likelihood(state.params, judged)},
        host_state=host_state,
        evaluates_last=False,  # the results of the run are an evaluation of it
    )
    timer = StepTimer(devices=config.mesh.size)
    return run_steps(config, workdir, checkpoints, task, state, metrics_buffer, timer).params


def _stream(
    run: Run, mixture: Mixture, stream_state: dict[str, Any] | None
) -> Iterator[tuple[tuple[tuple[Conversations, ...]], Drawn]]:
    """Batches endlessly, starting at `stream_state` (None: the beginning)."""
    config, examples = run.config, mixture.examples
    first = next(draws(mixture, DRAWN, config.seed))
    layout = batches.usual_layout(config, [examples[number] for number in first])
    drawn = draws(mixture, config.batch_size, config.seed)
    if stream_state is not None:
        drawn.set_state(stream_state)
    for numbers in drawn:
        some = [examples[number] for number in numbers]
        counts = sum(map(len, some)), sum(len(each.targets) for each in some)
        yield (devices.shard(layout(some), run.mesh),), Drawn(numbers, drawn.get_state(), *counts)


def _work(run: Run, drawn: Drawn) -> tuple[float, float]:
    """The tokens of one conversation, and the model FLOPs, without padding or recomputation."""
    tokens, targets = drawn.tokens / run.config.batch_size, drawn.targets / run.config.batch_size
    family = registry.generator_of(run.generator.config)
    return tokens, 3.0 * family.flops(run.generator.config, tokens - targets, targets)
