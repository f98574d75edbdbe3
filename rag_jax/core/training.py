"""One step of training: retrieve, read, marginalise, update.

The step is one pure function from state to state. Question tower and generator learn from the marginal likelihood; the
passage tower is frozen in the index's vectors (Lewis et al. 2020, section 2.4), unless the recipe refreshes these.
"""

from functools import partial

import jax
from jaxtyping import Array, Int

from rag_jax.core import microbatches, refresh, step_metrics
from rag_jax.core.gradient import TrainingBatch, loss_and_gradient
from rag_jax.core.recipe import Recipe
from rag_jax.core.step_metrics import Metrics
from rag_jax.core.trainable import partition
from rag_jax.core.update import TrainState, init, update
from rag_jax.types import Batch, Knowledge, SearchResults

__all__ = ["Metrics", "Recipe", "TrainState", "init", "train_step"]


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

    With a `refresh` of the recipe the vectors are those of the state, whatever `knowledge` holds. The rows that are due
    are encoded first, by the passage tower before the update.

    Raises `ValueError` for a refresh of a state without index, or of knowledge without the passage tower's tokens.
    """
    staleness = None
    if recipe.refresh is not None:
        index = _refreshed(recipe.refresh, state, knowledge)
        state, knowledge = state._replace(refreshed=index), knowledge._replace(passage_vectors=index.vectors)
        staleness = refresh.staleness(index, state.step, knowledge.alive)
    key = jax.random.fold_in(state.key, state.step)
    differentiate = partial(loss_and_gradient, recipe, state.params, knowledge)
    inputs = TrainingBatch(batch, positives, search_results)
    trained, _ = partition(state.params, recipe.trainable)
    loss, gradient, stats = microbatches.accumulate(differentiate, trained, inputs, recipe.num_microbatches, key)
    state, grad_norm = update(recipe, state, loss, gradient)
    counts = state.skipped, state.skipped_in_a_row
    return state, step_metrics.metrics(loss, grad_norm, stats, batch, positives, *counts, staleness)


def _refreshed(how: refresh.Refresh, state: TrainState, knowledge: Knowledge) -> refresh.RefreshedIndex:
    """The state's index, with the rows encoded that are due."""
    if state.refreshed is None or knowledge.tower_tokens is None:
        raise ValueError("a refresh needs the index in the state, and the passage tower's tokens in the knowledge")
    passage_tower = state.params.passage_tower
    return refresh.refresh_due(how, passage_tower, knowledge.tower_tokens, state.refreshed, state.step)
