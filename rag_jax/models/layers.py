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
from jaxtyping import Array, Float, PyTree

from rag_jax.types import Params

Remat = Literal["none", "dots", "full"]
POLICIES = {
    # what is stored for the backward pass
    "none": jax.checkpoint_policies.everything_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # products with weights, not those of attention
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

    def apply(layer: Any, states: States, _: None) -> tuple[States, None]:
        return call(layer, states), None

    return map_layers(layers, apply, states, None, scan=scan, remat=remat, key=key, dtype=dtype)[0]


def map_layers(
    layers: Sequence[nn.Module],
    call: Callable[[Any, States, Any], tuple[States, Any]],
    states: States,
    inputs: PyTree[Array],
    *,
    scan: bool,
    remat: Remat,
    key: Array | None,
    dtype: Any,
) -> tuple[States, PyTree[Array]]:
    """`run_layers`, where each layer has an input and an output of its own, stacked along a leading axis of layers.

    `call(layer, states, input)` returns the states and the layer's output.
    """
    module = layers[0].clone(parent=None, name=None)

    def apply(states: States, layer: tuple[Params, Array | None, Any]) -> tuple[States, Any]:
        params, key, own = layer
        rngs = {} if key is None else {"dropout": key}
        return module.apply({"params": params}, states, own, rngs=rngs, method=call)  # pyright: ignore[reportReturnType]

    if remat != "none":
        apply = jax.checkpoint(apply, policy=POLICIES[remat], prevent_cse=not scan)
    params = [layer.variables["params"] for layer in layers]
    keys = None if key is None else jax.random.split(key, len(layers))
    if scan:
        stacked = jax.tree.map(lambda *each: jnp.stack([_cast_matrix(leaf, dtype) for leaf in each]), *params)
        return jax.lax.scan(apply, states, (stacked, keys, inputs))
    outputs = []
    for number, each in enumerate(params):
        own = jax.tree.map(lambda leaf, number=number: leaf[number], inputs)
        states, output = apply(states, (each, None if keys is None else keys[number], own))
        outputs.append(output)
    return states, jax.tree.map(lambda *each: jnp.stack(each), *outputs)


def _cast_matrix(leaf: Array, dtype: Any) -> Array:
    """Matrices in the compute dtype; biases and norms, which are added in float32, unchanged."""
    return leaf.astype(dtype) if leaf.ndim > 1 else leaf
