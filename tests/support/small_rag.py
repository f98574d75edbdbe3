"""A model of two small networks, with an index and a batch: to train a few steps of any recipe."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rag_jax.core import losses, optimizers, training
from rag_jax.core.reading import InputLayout
from rag_jax.models import bart, bert
from rag_jax.types import Batch, Knowledge, Networks, RagParams, Tokens

B, K, N, D, P, T, V = 4, 2, 6, 16, 7, 3, 40
TOWER = bert.BertConfig(vocab_size=V, width=D, layers=1, heads=2, ffn_width=24, max_positions=16, dropout=0.0,
                        attention_dropout=0.0, init_std=0.3)  # fmt: skip
READER = bart.BartConfig(vocab_size=V, width=16, encoder_layers=1, decoder_layers=1, heads=2, ffn_width=24,
                         max_positions=32, dropout=0.0, init_std=0.3)  # fmt: skip
NO_GOLD = jnp.full((B, 1), -1)


def networks(**compute: Any) -> Networks:
    """Tower and generator, computed with the given options of `BartConfig`."""
    return Networks(bert.tower(TOWER), bart.generator(replace(READER, **compute)))


def params() -> RagParams:
    return RagParams(bert.init(TOWER, jax.random.key(0)), bart.init(READER, jax.random.key(1)))


def tokens(draw: np.random.Generator, *shape: int) -> Tokens:
    ids = jnp.asarray(draw.integers(3, V, shape).astype(np.int32))
    return Tokens(ids, jnp.asarray(draw.integers(2, shape[-1] + 1, shape[:-1]).astype(np.int32)))


def knowledge() -> Knowledge:
    draw = np.random.default_rng(0)
    return Knowledge(jnp.asarray(draw.standard_normal((N, D)).astype(np.float32)), tokens(draw, N, P))


def batch() -> Batch:
    draw = np.random.default_rng(1)
    target = draw.integers(3, V, (B, T)).astype(np.int32)
    asked = tokens(draw, B, 5), tokens(draw, B, 6)
    return Batch(*asked, jnp.asarray(target), jnp.asarray(np.roll(target, -1, 1)), jnp.ones((B, T), bool))


def recipe(nets: Networks, optimizer: optax.GradientTransformation | None = None, **options: Any) -> training.Recipe:
    """RAG-Token's training step."""
    rate = optax.constant_schedule(1e-2)
    usual = optimizers.rag(optimizers.adamw(rate, 0.1), optimizers.adamw(rate, 0.1), 1.0)
    return training.Recipe(nets, losses.rag_token_loss, optimizer or usual, K, InputLayout(16), **options)


def trained(made_of: training.Recipe, first: RagParams, steps: int) -> tuple[training.TrainState, list[float]]:
    """The state after some steps on the one batch, and their losses."""
    state, told = training.init(made_of, first, jax.random.key(2)), []
    step = jax.jit(partial(training.train_step, made_of))
    for _ in range(steps):
        state, metrics = step(state, knowledge(), batch(), NO_GOLD)
        told.append(float(metrics.loss))
    return state, told
