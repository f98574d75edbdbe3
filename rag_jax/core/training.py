"""One step of training: retrieve, read, marginalise, update.

The step is one pure function from state to state. Question tower and generator learn from the marginal likelihood; the
passage tower is frozen in the index's vectors (Lewis et al. 2020, section 2.4).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from rag_jax.core import microbatches, step_metrics
from rag_jax.core.gradient import TrainingBatch, loss_and_gradient
from rag_jax.core.recipe import Recipe
from rag_jax.core.step_metrics import Metrics
from rag_jax.core.trainable import combine, partition
from rag_jax.types import Batch, Knowledge, RagParams, SearchResults

__all__ = ["Metrics", "Recipe", "TrainState", "init", "train_step"]


class TrainState(NamedTuple):
    """Everything that a step changes, and the random key, from which each step derives its own by its number."""

    step: Int[Array, ""]
    params: RagParams
    opt_state: PyTree[Array]  # of the trained parameters
    key: Key[Array, ""]
    skipped: Int[Array, ""]  # steps whose loss, gradient or update was not finite: they changed nothing else
    skipped_in_a_row: Int[Array, ""]


def init(recipe: Recipe, params: RagParams, key: Key[Array, ""]) -> TrainState:
    """The state before the first step."""
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))  # a donated state must not share buffers
    trained, _ = partition(params, recipe.trainable)
    return TrainState(step, params, recipe.optimizer.init(trained), key, skipped, in_a_row)


def train_step(
    recipe: Recipe,
    state: TrainState,
    knowledge: Knowledge,
    batch: Batch,
    positives: Int[Array, "B G"],
    search_results: SearchResults | None = None,
) -> tuple[TrainState, Metrics]:
    """Minimise the objective on one batch.

    Parameters that the recipe does not train stay as they are. `positives` are gold rows, padded with -1. The passages
    of `search_results` are read where a search outside the program chose them. Where loss, gradient or updated
    parameters are not finite, or their norms overflow, parameters and optimizer state stay as they are.
    """
    key = jax.random.fold_in(state.key, state.step)
    differentiate = partial(loss_and_gradient, recipe, state.params, knowledge)
    inputs = TrainingBatch(batch, positives, search_results)
    before, frozen = partition(state.params, recipe.trainable)
    loss, gradient, stats = microbatches.accumulate(differentiate, before, inputs, recipe.num_microbatches, key)

    grad_norm = optax.tree.norm(gradient)
    after, opt_state = _update(recipe.optimizer, gradient, state.opt_state, before)
    finite = _all_finite(loss, grad_norm, optax.tree.norm(after))
    after, opt_state = _where(finite, (after, opt_state), (before, state.opt_state))

    skipped = state.skipped + jnp.where(finite, 0, 1)
    in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
    metrics = step_metrics.metrics(loss, grad_norm, stats, batch, positives, skipped, in_a_row)
    return TrainState(state.step + 1, combine(after, frozen), opt_state, state.key, skipped, in_a_row), metrics


def _update(
    optimizer: optax.GradientTransformation, gradient: RagParams, opt_state: PyTree[Array], params: RagParams
) -> tuple[Any, PyTree[Array]]:
    """Updated parameters and optimizer state."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax promotes implicitly
        updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _all_finite(*scalars: Float[Array, ""]) -> Bool[Array, ""]:
    return jnp.all(jnp.isfinite(jnp.stack(scalars)))


def _where(condition: Bool[Array, ""], new: PyTree[Array], old: PyTree[Array]) -> Any:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), new, old)
