"""One step of contrastive training: encode questions and passages, contrast them, update.

On a mesh the arrays of a batch are global: the negatives of a question are those of all devices, and the loss is the
mean over all questions, so that loss and gradient are those of one device.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from rag_jax.core import contrastive
from rag_jax.core.contrastive import ContrastiveObjective
from rag_jax.core.dropout import split
from rag_jax.core.grad_cache import encode
from rag_jax.core.trainable import Mask, combine, everything, partition
from rag_jax.core.update import TrainState, update
from rag_jax.types import BiEncoderParams, ContrastiveBatch, Tower


class ContrastiveRecipe(NamedTuple):
    """The parts of a contrastive training step.

    `chunk` trades time for memory, see `rag_jax.core.grad_cache`; it must divide B and every group of passages. It
    changes which dropout masks are drawn, and nothing else.
    """

    question_tower: Tower
    passage_tower: Tower  # may be the same function, with parameters of its own or shared
    objective: ContrastiveObjective
    optimizer: optax.GradientTransformation
    chunk: int | None = None  # questions or passages encoded at once; None: all
    trainable: Mask = everything  # the others get neither gradient nor optimizer state


class ContrastiveMetrics(NamedTuple):
    """Metrics of one step, as scalars on the device."""

    loss: Float[Array, ""]  # per question, in nats without Margin-MSE
    grad_norm: Float[Array, ""]  # before clipping
    accuracy: Float[Array, ""]  # questions whose positive scores higher than every other candidate
    skipped: Int[Array, ""]  # steps so far whose loss, gradient or update was not finite
    skipped_in_a_row: Int[Array, ""]  # this one included


def train_step(
    recipe: ContrastiveRecipe, state: TrainState, batch: ContrastiveBatch
) -> tuple[TrainState, ContrastiveMetrics]:
    """Minimise the objective on one batch.

    A tower of which nothing is trained is encoded once, without dropout or backward pass. Where loss, gradient or
    updated parameters are not finite, or their norms overflow, parameters and optimizer state stay as they are. Raises
    `ValueError` if the chunk does not divide B and every group of passages.
    """
    key = jax.random.fold_in(state.key, state.step)
    trained, frozen = partition(state.params, recipe.trainable)

    def mean_loss(trained: BiEncoderParams) -> tuple[Float[Array, ""], Float[Array, ""]]:
        questions, passages = _encode(recipe, trained, frozen, batch, key)
        losses = recipe.objective(questions, passages, batch.candidates, batch.log_q, batch.teacher)
        scores = contrastive.scores(questions, passages)
        return jnp.mean(losses), contrastive.accuracy(jax.lax.stop_gradient(scores), batch.candidates)

    (loss, accuracy), gradient = jax.value_and_grad(mean_loss, has_aux=True)(trained)
    state, grad_norm = update(recipe, state, loss, gradient)
    return state, ContrastiveMetrics(loss, grad_norm, accuracy, state.skipped, state.skipped_in_a_row)


def _encode(
    recipe: ContrastiveRecipe,
    trained: BiEncoderParams,
    frozen: BiEncoderParams,
    batch: ContrastiveBatch,
    key: Key[Array, ""],
) -> tuple[Float[Array, "B D"], Float[Array, "M D"]]:
    """The vectors of the questions and of the passages. Each group of passages has a dropout key of its own."""
    params = combine(trained, frozen)
    passage_params, passage_trained = params.passage_tower, trained.passage_tower
    if passage_params is None:  # shared
        passage_params, passage_trained = params.question_tower, trained.question_tower
    question_key, passage_key = split(key)
    group_keys = split(passage_key if _is_trained(passage_trained) else None, len(batch.passages))
    question_key = question_key if _is_trained(trained.question_tower) else None

    questions = encode(recipe.question_tower, params.question_tower, batch.questions, question_key, recipe.chunk)
    groups = [
        encode(recipe.passage_tower, passage_params, group, group_key, recipe.chunk)
        for group, group_key in zip(batch.passages, group_keys, strict=True)
    ]
    return questions, jnp.concatenate(groups)[batch.place]


def _is_trained(trained: PyTree) -> bool:
    """Whether anything of a tower is trained."""
    return bool(jax.tree.leaves(trained))
