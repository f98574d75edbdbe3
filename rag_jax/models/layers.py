"""A stack of layers in training: unrolled or as one loop, and what its backward pass computes again.

The parameters have one form whichever way the layers are run, that of layers by name: checkpoints, optimizers and
sharding rules know no other. The loop stacks them inside the program, matrices in the dtype that is computed in.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from rag_jax.types import Params

Remat = Literal["none", "dots", "full"]
POLICIES = {
    # what is kept for the backward pass
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # products with weights; attention's are not
    "full": jax.checkpoint_policies.nothing_saveable,  # but for the states between layers
}

States = Float[Array, "R T width"]


def spread(states: States, over: NamedSharding | None) -> States:
    """States where a mesh is to have them, by rows; None: where the compiler puts them.

    A compiler that may choose splits the products of parameters that are split themselves, and sends the states of the
    whole batch around instead of one layer's parameters.
    """
    return states if over is None else jax.lax.with_sharding_constraint(states, over)


def through(
    layers: Sequence[nn.Module],
    call: Callable[[Any, States], States],
    states: States,
    *,
    scan: bool,
    remat: Remat,
    key: Array | None,
    dtype: Any,
) -> States:
    """The states behind all of the layers, which are alike; `call(layer, states)` is one of them.

    `key` draws dropout, None: there is none. The loop compiles one layer, however many there are.
    """
    module = layers[0].clone(parent=None, name=None)

    def one(states: States, given: tuple[Params, Array | None]) -> States:
        params, key = given
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, states, rngs=rngs, method=call)  # pyright: ignore[reportReturnType]

    if remat != "none":
        one = jax.checkpoint(one, policy=POLICIES[remat], prevent_cse=not scan)
    params = [layer.variables["params"] for layer in layers]
    keys = None if key is None else jax.random.split(key, len(layers))
    if scan:
        stacked = jax.tree.map(lambda *each: jnp.stack([_narrow(leaf, dtype) for leaf in each]), *params)
        return jax.lax.scan(lambda states, given: (one(states, given), None), states, (stacked, keys))[0]
    for number, each in enumerate(params):
        states = one(states, (each, None if keys is None else keys[number]))
    return states


def _narrow(leaf: Array, dtype: Any) -> Array:
    """Matrices in what they are multiplied in; biases and norms, whose sums are float32, as they are."""
    return leaf.astype(dtype) if leaf.ndim > 1 else leaf
