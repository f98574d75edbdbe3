"""Gradient accumulation: a batch computed in microbatches, one after the other, in the memory of one."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

Statistics = TypeVar("Statistics")  # arrays whose first axis is that of the batch; None: none


def accumulate(
    loss_and_gradient: Callable[[Any, Key[Array, ""]], tuple[Float[Array, ""], PyTree, Statistics]],
    params: PyTree,
    inputs: Any,
    num_microbatches: int,
    key: Key[Array, ""],
) -> tuple[Float[Array, ""], Any, Statistics]:
    """Mean loss and gradient over the microbatches, which are those of the whole batch; statistics of all of it.

    `params` are the trained ones. Each microbatch has a dropout key of its own. `num_microbatches` must divide the
    first axis of all inputs.
    """
    if num_microbatches == 1:
        return loss_and_gradient(inputs, key)

    def add(total: PyTree[Array], numbered: tuple[Array, Any]) -> tuple[PyTree[Array], PyTree[Array]]:
        number, microbatch = numbered
        loss, gradient, stats = loss_and_gradient(microbatch, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, total, (loss, gradient)), stats

    zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    microbatches = jax.tree.map(lambda rows: split(rows, num_microbatches), inputs)
    total, stats = jax.lax.scan(add, zero, (jnp.arange(num_microbatches), microbatches))
    loss, gradient = jax.tree.map(lambda each: each / num_microbatches, total)
    return loss, gradient, jax.tree.map(join, stats)


def split(rows: Array, num_microbatches: int) -> Array:
    """`[B, ...]` as `[M, B / M, ...]`, interleaved: a batch sharded over devices stays evenly spread over them."""
    return jnp.swapaxes(rows.reshape(-1, num_microbatches, *rows.shape[1:]), 0, 1)


def join(microbatches: Array) -> Array:
    """`[M, B / M, ...]` as `[B, ...]`: the inverse of `split`."""
    return jnp.swapaxes(microbatches, 0, 1).reshape(-1, *microbatches.shape[2:])
