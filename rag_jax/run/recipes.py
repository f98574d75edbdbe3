"""The training step that a config asks for, around networks of any sizes."""

import dataclasses
from functools import partial

import jax.numpy as jnp
import optax

from rag_jax.core import losses, optimizers, training
from rag_jax.knowledge.loading import Placement
from rag_jax.models import bart, bert
from rag_jax.run.config import Config
from rag_jax.types import Networks

OBJECTIVES = {"token": losses.rag_token_loss, "sequence": losses.rag_sequence_loss}
TRAINING = {  # by the retriever's mode: what becomes of the question tower, and where the passages come from
    "trained": (lambda tower: tower, training.nearest),
    "frozen": (training.frozen, training.nearest),
    "gold": (training.absent, training.gold),
    "closed book": (training.absent, training.nearest),
}


def trained(config: Config, tower: bert.BertConfig, reader: bart.BartConfig) -> Networks:
    """The networks as a training step computes them."""
    c = config.compute
    return _networks(config, tower, reader, c.scan, c.remat)


def answering(config: Config, tower: bert.BertConfig, reader: bart.BartConfig) -> Networks:
    """The networks as answers are computed: layer by layer, which decodes faster, and nothing twice."""
    return _networks(config, tower, reader, False, "none")


def recipe(
    config: Config, tower: bert.BertConfig, reader: bart.BartConfig, num_docs: int, placement: Placement
) -> training.Recipe:
    """The training step's parts."""
    networks = trained(config, tower, reader)
    change, search = TRAINING["closed book" if config.data.is_closed_book else config.retriever.mode]
    return training.Recipe(
        networks._replace(tower=change(networks.tower)),
        partial(OBJECTIVES[config.model], label_smoothing=config.optimizer.label_smoothing),
        _optimizer(config),
        num_docs,
        config.generator.max_input,
        search,
        placement.index,
        config.compute.accumulate,
        config.generator.lengths,
        config.mesh.data * config.mesh.fsdp,
    )


def learning_rates(config: Config, peak: float | None = None) -> optax.Schedule:
    """The schedule of the generator's learning rate, or the same schedule with another peak."""
    c = config.optimizer
    return optimizers.warmup_linear_decay(c.learning_rate if peak is None else peak, c.warmup, config.steps)


def _networks(config: Config, tower: bert.BertConfig, reader: bart.BartConfig, scan: bool, remat: str) -> Networks:
    how = {"dtype": jnp.dtype(config.compute.dtype), "attention": config.compute.attention}
    how |= {"scan": scan, "remat": remat}
    return Networks(
        bert.tower(dataclasses.replace(tower, **how)),
        bart.generator(dataclasses.replace(reader, **how)),
    )


def _optimizer(config: Config) -> optax.GradientTransformation:
    c, rates = config.optimizer, partial(learning_rates, config)
    if c.kind == "muon":
        generator = optimizers.muon(rates(), rates(c.adam_learning_rate), c.weight_decay)
    else:
        generator = optimizers.adamw(rates(), c.weight_decay)
    tower = optimizers.adamw(rates(c.tower_learning_rate), c.weight_decay)
    if config.retriever.mode != "trained":
        tower = optax.set_to_zero()
    return optimizers.rag(tower, generator, c.clip)
