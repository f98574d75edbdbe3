"""Run a stack of layers in training: unrolled or as a scan, with or without rematerialisation.

Parameters are always stored per layer, by name, so that checkpoints, optimizers and partition rules do not depend on
how the layers are run. The scan stacks them inside the program, with matrices in the compute dtype.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from rag_jax.models.dense import PRODUCT
from rag_jax.types import Params

Remat = Literal["none", "dots", "full"]
POLICIES = {
    # what is stored for the backward pass
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),  # products with weights, not those of attention
    "full": jax.checkpoint_policies.nothing_saveable,  # except the states between layers
}

States = Float[Array, "R T width"]


def constrain(states: States, sharding: NamedSharding | None) -> States:
    """Constrain the sharding of states, by rows; None, or rows that it does not divide: the compiler chooses.

    Without a constraint the compiler may keep sharded parameters in place, and exchange the states of the whole batch
    instead of one layer's parameters.
    """
    if sharding is None or states.shape[0] % _num_parts(sharding):
        return states
    return jax.lax.with_sharding_constraint(states, sharding)


def _num_parts(sharding: NamedSharding) -> int:
    """The number of parts that rows are sharded into."""
    axes, parts = sharding.spec[0], 1
    for axis in (axes,) if isinstance(axes, str) else axes or ():
        parts *= sharding.mesh.shape[axis]
    return parts


def run_layers(
    layers: Sequence[nn.Module],
    call: Callable[[Any, States], States],
    states: States,
    *,
    scan: bool,
    remat: Remat,
    key: Array | None,
    dtype: Any,
) -> States:
    """The states after all layers, which must be of the same shape; `call(layer, states)` applies one of them.

    `key` is the dropout key (None: no dropout). A scan compiles one layer, whatever their number.
    """
    module = layers[0].clone(parent=None, name=None)

    def apply(states: States, layer: tuple[Params, Array | None]) -> tuple[States, None]:
        params, key = layer
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, states, rngs=rngs, method=call), None  # pyright: ignore[reportReturnType]

    if remat != "none":
        apply = jax.checkpoint(apply, policy=POLICIES[remat], prevent_cse=not scan)
    params = [layer.variables["params"] for layer in layers]
    keys = None if key is None else jax.random.split(key, len(layers))
    if scan:
        stacked = jax.tree.map(lambda *each: jnp.stack([_cast_matrix(leaf, dtype) for leaf in each]), *params)
        return jax.lax.scan(apply, states, (stacked, keys))[0]
    for number, each in enumerate(params):
        states, _ = apply(states, (each, None if keys is None else keys[number]))
    return states


def _cast_matrix(leaf: Array, dtype: Any) -> Array:
    """Matrices in the compute dtype; biases and norms unchanged: each layer casts its own."""
    return leaf.astype(dtype) if leaf.ndim > 1 else leaf
