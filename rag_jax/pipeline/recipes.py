"""The training step of a config."""

from functools import partial
from typing import Any

import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rag_jax.config.config import AdamW, Config
from rag_jax.core import modes, optimizers, training
from rag_jax.core.reading import InputLayout
from rag_jax.core.refresh import Refresh
from rag_jax.core.variants import VARIANTS
from rag_jax.index.placement import Placement
from rag_jax.models.architecture import GeneratorConfig, TowerConfig
from rag_jax.pipeline import distillation, finetuning, networks
from rag_jax.types import Networks

RETRIEVER_MODES = {  # mode: (transformation of the question tower, retrieval function)
    "trained": (lambda tower: tower, modes.retrieve_nearest),
    "frozen": (modes.frozen, modes.retrieve_nearest),
    "gold": (modes.uniform_prior, modes.retrieve_gold),
    "closed book": (modes.uniform_prior, modes.retrieve_nearest),
}


def training_networks(
    config: Config, tower: TowerConfig, generator: GeneratorConfig, mesh: Mesh | None = None
) -> Networks:
    """The networks of the training step; on a mesh, activations are sharded by question.

    Raises `InputError` for a dropout rate that the generator cannot be trained with.
    """
    c, generator = config.compute, networks.with_dropout(config, generator)
    return _networks(config, tower, generator, scan=c.scan, remat=c.remat, sharding=_by_row(mesh))


def inference_networks(
    config: Config, tower: TowerConfig, generator: GeneratorConfig, mesh: Mesh | None = None
) -> Networks:
    """The networks for inference: without scan over layers, which decodes faster, and without rematerialisation.

    On a mesh, inputs are encoded as in training, sharded by row. A decoding step has one token of each answer: its
    states are exchanged, since sharding them by row would gather all parameters for every token.
    """
    compute: dict[str, Any] = {"scan": False, "remat": "none", "prefill_chunk": config.compute.prefill_chunk}
    by_row, free = (
        _networks(config, tower, generator, sharding=sharding, **compute) for sharding in (_by_row(mesh), None)
    )
    return by_row._replace(generator=free.generator._replace(encode=by_row.generator.encode))


def layout(config: Config, header: tuple[int, ...] = (), separator: tuple[int, ...] = ()) -> InputLayout:
    """How passages become the generator's inputs."""
    return InputLayout(
        config.generator.max_input,
        header,
        config.generator.passages_per_prompt,
        separator,
        VARIANTS[config.model].fuses,
        config.generator.lengths,
        config.mesh.data * config.mesh.fsdp,
    )


def recipe(
    config: Config,
    tower: TowerConfig,
    generator: GeneratorConfig,
    num_docs: int,
    layout: InputLayout,
    placement: Placement,
    passage_tower: TowerConfig | None = None,
) -> training.Recipe:
    """The components of the training step. `passage_tower` is that of runs that train it."""
    networks = finetuning.adapted(config, training_networks(config, tower, generator, placement.mesh))
    transform, retrieve = RETRIEVER_MODES[
        "closed book" if config.data.is_closed_book else finetuning.retriever_mode(config)
    ]
    return training.Recipe(
        networks._replace(tower=transform(networks.tower)),
        partial(VARIANTS[config.model].objective, label_smoothing=config.optimizer.label_smoothing),
        _optimizer(config),
        num_docs,
        layout,
        retrieve,
        placement.index,
        config.compute.accumulate,
        trainable=partial(finetuning.mask, config),
        distillation=distillation.of(config, networks),
        distillation_weight=config.retriever.distillation.weight,
        prior_docs=config.retriever.prior_docs,
        refresh=None if passage_tower is None else _refresh(config, passage_tower, placement.mesh),
    )


def learning_rates(config: Config, peak: float | None = None) -> optax.Schedule:
    """The schedule of the generator's learning rate, or the same schedule with another peak."""
    c = config.optimizer
    return optimizers.warmup_linear_decay(c.learning_rate if peak is None else peak, c.warmup, config.steps)


def adamw_rates(optimizer: AdamW, steps: int) -> optax.Schedule:
    """The schedule of a run with one optimizer."""
    return optimizers.warmup_linear_decay(optimizer.learning_rate, optimizer.warmup, steps)


def clipped_adamw(optimizer: AdamW, steps: int) -> optax.GradientTransformation:
    """The optimizer of such a run: the gradient is clipped by its norm first."""
    adamw = optimizers.adamw(adamw_rates(optimizer, steps), optimizer.weight_decay)
    return optax.chain(optax.clip_by_global_norm(optimizer.clip), adamw)


def _by_row(mesh: Mesh | None) -> NamedSharding | None:
    return None if mesh is None else NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def _refresh(config: Config, tower: TowerConfig, mesh: Mesh | None) -> Refresh:
    """How the passage tower is trained: each device encodes rows of its own, the step's passages are sharded."""
    c, r = config.compute, config.retriever
    in_step, on_device = (
        networks.tower(tower, c, scan=c.scan, remat=c.remat, sharding=sharding) for sharding in (_by_row(mesh), None)
    )
    return Refresh(in_step, on_device, r.refresh_every, r.refresh_at_once, r.candidates, mesh)


def _networks(config: Config, tower: TowerConfig, generator: GeneratorConfig, **compute: Any) -> Networks:
    return Networks(
        networks.tower(tower, config.compute, **compute),
        networks.generator(generator, config.compute, **compute),
    )


def _optimizer(config: Config) -> optax.GradientTransformation:
    c, rates = config.optimizer, partial(learning_rates, config)
    if c.kind == "muon":
        generator = optimizers.muon(rates(), rates(c.adam_learning_rate), c.weight_decay)
    else:
        generator = optimizers.adamw(rates(), c.weight_decay)
    towers = optimizers.adamw(rates(c.tower_learning_rate), c.weight_decay)
    return optimizers.rag(towers, generator, c.clip, towers if config.retriever.train_passages else None)
