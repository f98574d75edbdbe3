"""The state of training, and its update by a gradient: a step that is not finite is counted, and changes nothing else.

Every training step ends with this update, whatever its loss.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from rag_jax.core.refresh import RefreshedIndex
from rag_jax.core.trainable import Mask, combine, partition


class TrainState(NamedTuple):
    """Everything that a step changes, and the random key, from which each step derives its own by its number."""

    step: Int[Array, ""]
    params: Any  # RagParams, or BiEncoderParams in contrastive training
    opt_state: PyTree[Array]  # of the trained parameters
    key: Key[Array, ""]
    skipped: Int[Array, ""]  # steps whose loss, gradient or update was not finite: they changed nothing else
    skipped_in_a_row: Int[Array, ""]
    refreshed: RefreshedIndex | None = None  # the index, where a step trains the passage tower too; None: elsewhere


@runtime_checkable
class Trained(Protocol):
    """What a recipe says about the update."""

    @property
    def optimizer(self) -> optax.GradientTransformation: ...

    @property
    def trainable(self) -> Mask: ...


def init(recipe: Trained, params: Any, key: Key[Array, ""]) -> TrainState:
    """The state before the first step."""
    step, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))  # a donated state must not share buffers
    trained, _ = partition(params, recipe.trainable)
    return TrainState(step, params, recipe.optimizer.init(trained), key, skipped, in_a_row)


def update(
    recipe: Trained, state: TrainState, loss: Float[Array, ""], gradient: PyTree
) -> tuple[TrainState, Float[Array, ""]]:
    """The state after a step, and the norm of the gradient.

    Where loss, gradient or updated parameters are not finite, or their norms overflow, parameters and optimizer state
    stay as they are.

    Args:
        gradient: of the trained parameters, with None in place of the others.
    """
    before, frozen = partition(state.params, recipe.trainable)
    grad_norm = optax.tree.norm(gradient)
    after, opt_state = _apply(recipe.optimizer, gradient, state.opt_state, before)
    finite = _all_finite(loss, grad_norm, optax.tree.norm(after))
    after, opt_state = _where(finite, (after, opt_state), (before, state.opt_state))

    skipped = state.skipped + jnp.where(finite, 0, 1)
    in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
    state = state._replace(step=state.step + 1, params=combine(after, frozen), opt_state=opt_state)
    return state._replace(skipped=skipped, skipped_in_a_row=in_a_row), grad_norm


def _apply(
    optimizer: optax.GradientTransformation, gradient: PyTree, opt_state: PyTree[Array], params: PyTree
) -> tuple[Any, PyTree[Array]]:
    """Updated parameters and optimizer state."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax promotes implicitly
        updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def _all_finite(*scalars: Float[Array, ""]) -> Bool[Array, ""]:
    return jnp.all(jnp.isfinite(jnp.stack(scalars)))


def _where(condition: Bool[Array, ""], new: PyTree[Array], old: PyTree[Array]) -> Any:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), new, old)
