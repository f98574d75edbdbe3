"""Instruction tuning of a language model: one step on conversations, whose responses it learns to write.

The loss of a batch is the negative log-likelihood of its N response tokens y_t, each given all tokens before it in its
conversation, the instructions included (Wei et al. 2022, "Finetuned language models are zero-shot learners"):

    -1/N sum_t log p(y_t | y_<t)

N counts the tokens of the whole batch, on all devices and in all microbatches: a mean of means would weight a token by
how many others are in its part.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32, Int, Key, PyTree

from rag_jax.core import microbatches
from rag_jax.core.likelihood import target_log_probs
from rag_jax.core.trainable import Mask, combine, everything, partition
from rag_jax.core.update import TrainState, update
from rag_jax.types import Conversations, DropoutKey, Generator, Params

Batch = tuple[Conversations, ...]


class InstructionRecipe(NamedTuple):
    """The parts of a training step. `num_microbatches` must divide the rows and the packs of every group."""

    generator: Generator
    optimizer: optax.GradientTransformation
    num_microbatches: int = 1
    trainable: Mask = everything  # the others get neither gradient nor optimizer state


class InstructionMetrics(NamedTuple):
    """Metrics of one step, as scalars on the device."""

    loss: Float[Array, ""]  # per token of the responses, in nats
    grad_norm: Float[Array, ""]  # before clipping
    response_tokens: Int[Array, ""]  # N
    skipped: Int[Array, ""]  # steps so far whose loss, gradient or update was not finite
    skipped_in_a_row: Int[Array, ""]  # this one included


def train_step(recipe: InstructionRecipe, state: TrainState, batch: Batch) -> tuple[TrainState, InstructionMetrics]:
    """Minimise the loss of one batch.

    Where loss, gradient or updated parameters are not finite, or their norms overflow, parameters and optimizer state
    stay as they are. Raises `ValueError` for a generator that is no language model of its inputs.
    """
    trained, frozen = partition(state.params, recipe.trainable)
    count, parts = num_targets(batch), recipe.num_microbatches

    def loss_and_gradient(microbatch: Batch, key: Key[Array, ""]) -> tuple[Float[Array, ""], PyTree, None]:
        def loss(trained: Params) -> Float[Array, ""]:
            total = log_likelihood(recipe.generator, combine(trained, frozen), microbatch, key)
            return -parts * total / count.astype(total.dtype)  # the mean over the microbatches is the loss of the batch

        return *jax.value_and_grad(loss)(trained), None

    key = jax.random.fold_in(state.key, state.step)
    loss, gradient, _ = microbatches.accumulate(loss_and_gradient, trained, batch, parts, key)
    state, grad_norm = update(recipe, state, loss, gradient)
    return state, InstructionMetrics(loss, grad_norm, count, state.skipped, state.skipped_in_a_row)


def log_likelihood(generator: Generator, params: Params, batch: Batch, key: DropoutKey = None) -> Float32[Array, ""]:
    """The sum of the log-probabilities of all response tokens, in nats. Raises `ValueError` as `train_step`."""
    keys = [None if key is None else jax.random.fold_in(key, number) for number in range(len(batch))]
    found = [response_log_probs(generator, params, *each) for each in zip(batch, keys, strict=True)]
    totals = [jnp.sum(jnp.where(group.target_mask, each, 0.0)) for group, each in zip(batch, found, strict=True)]
    return jnp.sum(jnp.stack(totals))


def num_targets(batch: Batch) -> Int[Array, ""]:
    """N, the response tokens of a batch."""
    return jnp.sum(jnp.stack([jnp.sum(group.target_mask, dtype=jnp.int32) for group in batch]))


def response_log_probs(
    generator: Generator, params: Params, conversations: Conversations, key: DropoutKey = None
) -> Float32[Array, "G T"]:
    """`log p(y_t | y_<t)` of each response token.

    Logits are computed of these tokens only: those of all tokens would be most of the work of a small network.
    """
    if generator.read is None:
        raise ValueError("the generator reads its inputs by an encoder; give a language model, which has a `read`")
    states = generator.read(params, conversations.inputs, key)
    by_pack = states.reshape(conversations.before.shape[0], -1, states.shape[2])
    before = jnp.take_along_axis(by_pack, conversations.before[:, :, None], axis=1)
    logits = generator.logits(params, before)
    return target_log_probs(logits[:, None], conversations.targets)[:, 0]
