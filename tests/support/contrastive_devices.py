"""Run in a process of its own: contrastive training on one device and on a mesh of eight, as JSON on the last line.

With the arguments `HOST:PORT NUMBER` it is one of two processes with four devices each, which train on the mesh only
and of which the first reports.
"""

import json
import os
import sys

import xla_flags

os.environ["XLA_FLAGS"] = xla_flags.flags(devices=4 if len(sys.argv) > 1 else 8)

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from rag_jax.core import contrastive, contrastive_training, training
from rag_jax.core.contrastive_training import ContrastiveRecipe
from rag_jax.parallel import devices
from rag_jax.types import BiEncoderParams, ContrastiveBatch, DropoutKey, Params, Tokens

B, M, V, D, GROUPS, STEPS = 16, 32, 48, 16, (6, 10), 20
DROPPED = 0.1


def tower(params: Params, tokens: Tokens, key: DropoutKey = None) -> jax.Array:
    """Two layers over the mean embedding, with dropout between them; the names are those of the partition rules."""
    weights = tokens.mask.astype(np.float32) / tokens.lengths[:, None].astype(np.float32)
    words = jnp.einsum("RL,RLD->RD", weights, params["word"]["embedding"][tokens.ids])
    hidden = jnp.tanh(words @ params["up"]["kernel"])
    kept = jax.random.bernoulli(key, 1 - DROPPED, hidden.shape)
    return jnp.where(kept, hidden, 0.0) @ params["down"]["kernel"]


def tower_params(seed: int) -> Params:
    draw = np.random.default_rng(seed)
    shapes = {"word": {"embedding": (V, D)}, "up": {"kernel": (D, 32)}, "down": {"kernel": (32, D)}}
    normal = partial(jax.tree.map, lambda shape: 0.3 * draw.standard_normal(shape), is_leaf=lambda x: type(x) is tuple)
    return jax.tree.map(np.float32, normal(shapes))


def batch(number: int) -> ContrastiveBatch:
    draw = np.random.default_rng(number)

    def tokens(rows: int, longest: int) -> Tokens:
        ids = draw.integers(3, V, (rows, longest)).astype(np.int32)
        return Tokens(ids, draw.integers(2, longest + 1, rows).astype(np.int32))

    passages = tuple(tokens(M // len(GROUPS), longest) for longest in GROUPS)
    candidates = draw.random((B, M)) < 0.9
    log_q = draw.standard_normal(M).astype(np.float32)
    teacher = draw.standard_normal((B, M // B)).astype(np.float32)
    teacher[0, 1] = np.nan
    return ContrastiveBatch(tokens(B, 6), passages, draw.permutation(M).astype(np.int32), candidates, log_q, teacher)


def trained(mesh: Mesh | None, chunk: int | None) -> dict[str, list]:
    """Losses, accuracies, and the trained parameters."""
    objective = contrastive.objective(temperature=2.0, symmetric=True, widths=(D, 8), margin_mse_share=0.02)
    optimizer = optax.sgd(0.5, momentum=0.9)
    recipe = ContrastiveRecipe(tower, tower, objective, optimizer, chunk)
    params = BiEncoderParams(tower_params(0), tower_params(1))
    init = partial(training.init, recipe, key=jax.random.key(2))
    shardings = devices.shardings(jax.eval_shape(init, params), mesh)
    state = jax.jit(init, out_shardings=shardings)(params)
    step = devices.jitted(partial(contrastive_training.train_step, recipe), mesh, state)
    losses, accuracies = [], []
    for number in range(STEPS):
        state, metrics = step(state, jax.tree.map(lambda leaf: shard(mesh, leaf), batch(number % 3)))
        losses.append(float(metrics.loss))
        accuracies.append(float(metrics.accuracy))
    gathered = multihost_utils.process_allgather(state.params, tiled=True) if jax.process_count() > 1 else state.params
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(gathered))])
    return {"losses": losses, "accuracies": accuracies, "parameters": values.tolist()}


def shard(mesh: Mesh | None, leaf: np.ndarray) -> jax.Array:
    return devices.shard_batch(mesh, len(leaf), lambda own: leaf[own])


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # nearly all of the time is compilation
    if len(sys.argv) > 1:
        devices.join(sys.argv[1], 2, int(sys.argv[2]))
    cube = jax.make_mesh((4, 2, 1), devices.AXES, axis_types=(AxisType.Auto,) * 3)
    told: dict = {"devices": len(jax.devices()), "mesh": trained(cube, None), "mesh, chunks": trained(cube, 8)}
    if jax.process_count() == 1:
        told |= {"one": trained(None, None), "one, chunks": trained(None, 8)}
    if devices.is_first():
        print(json.dumps(told))


if __name__ == "__main__":
    main()
