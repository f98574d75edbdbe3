"""Conversion between our parameter paths and the tensor names of the Hugging Face ecosystem.

`TensorNames` map our path to the stored name, so that the model's parameter tree determines which tensors must exist;
each family defines its own. Stored linear kernels are transposed.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rag_jax.errors import InputError
from rag_jax.hub.tensors import Stored, Tensors, wrong_dtype
from rag_jax.types import Params

Rules = tuple[tuple[str, str | Callable[[re.Match], str]], ...]


class TensorNames(NamedTuple):
    """The stored names of a family's parameters."""

    rules: Rules  # applied in order to our path of a module, "layer_0/up/"
    rows: frozenset[str] = frozenset()  # our paths of vectors that are stored as rows, [1, n]


_LEAF = {"kernel": "weight", "embedding": "weight", "scale": "weight"}

# Tensors that no network here uses: counters, BERT's pooler, heads of its pre-training.
SURPLUS = re.compile(r"(^|\.)(embeddings\.position_ids$|pooler\.|cls\.)|^model\.(encoder|decoder)\.version$")
# LayerNorm's names in checkpoints that were converted from TensorFlow.
LEGACY = {"gamma": "weight", "beta": "bias"}


def stored_name(path: str, table: TensorNames) -> str:
    """The stored name of our parameter `path` ("layer_0/up/kernel")."""
    module, _, leaf = path.rpartition("/")
    if not module:
        return leaf
    name = f"{module}/"
    for pattern, replacement in table.rules:
        name = re.sub(pattern, replacement, name)
    return name + _LEAF.get(leaf, leaf)


def normalize_names(tensors: Tensors) -> dict[str, Stored]:
    """The tensors without unused ones, with legacy names replaced."""
    parts = ((name.rpartition("."), tensor) for name, tensor in tensors.items())
    named = {f"{module}{dot}{LEGACY.get(leaf, leaf)}": tensor for (module, dot, leaf), tensor in parts}
    return {name: tensor for name, tensor in named.items() if not SURPLUS.search(name)}


def from_stored(tensors: Tensors, like: Params, table: TensorNames, *, source: str, prefix: str = "") -> Params:
    """Load parameters shaped like `like` (arrays or shapes) from stored tensors whose names begin with `prefix`.

    Raises `InputError` with every missing, misshapen and unexpected tensor before any is read, and for one that holds
    NaN or infinity.
    """
    shapes: dict[str, Any] = flatten_dict(like, sep="/")
    wanted = {prefix + stored_name(path, table): path for path in shapes}
    needed = {name: _stored_shape(path, shapes[path].shape, table) for name, path in wanted.items()}
    complaints = [f"{name} {shape} is missing" for name, shape in needed.items() if name not in tensors]
    for name, tensor in tensors.items():
        if name not in needed:
            complaints.append(f"{name} {tensor.shape} is unexpected")
        elif tensor.shape != needed[name] and (wanted[name] not in table.rows or tensor.shape != needed[name][1:]):
            complaints.append(f"{name} has shape {tensor.shape}, the config says {needed[name]}")
    if complaints:
        raise InputError(f"{source}: the weights do not fit the config: {'; '.join(complaints)}")
    # The largest first: a tensor is copied during loading, when least else is in memory.
    order = sorted(wanted, key=lambda name: -math.prod(needed[name]))
    read = {}
    for name in order:
        value = _checked(tensors[name].read(), shapes[wanted[name]].dtype, f"{source}: {name}")
        read[wanted[name]] = _ours(wanted[name], value, shapes[wanted[name]])
    return unflatten_dict(read, sep="/")


def to_stored(params: Params, table: TensorNames, prefix: str = "") -> dict[str, np.ndarray]:
    """The parameters under their stored names; transposed ones are views."""
    flat: dict[str, Any] = flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    return {prefix + stored_name(path, table): _theirs(path, value, table) for path, value in flat.items()}


def _checked(value: np.ndarray, dtype: Any, source: str) -> np.ndarray:
    """Convert a tensor to the dtype of the parameters. Raises `InputError` if it is not finite."""
    if value.dtype.kind in "biuc":
        raise wrong_dtype(source, str(value.dtype))
    with np.errstate(over="ignore"):  # of float64
        value = value.astype(dtype, copy=False)
    if value.size and not (np.isfinite(value.min()) and np.isfinite(value.max())):  # NaN propagates to both; no copy
        raise InputError(f"{source} holds NaN or infinity; copy or download the weights again, or give others")
    return value


def _ours(path: str, value: np.ndarray, like: Any) -> jax.Array:
    value = value.T if path.endswith("/kernel") else value.reshape(like.shape)
    # Block: both copies are in memory until the transfer is complete.
    return jnp.asarray(value).block_until_ready()


def _theirs(path: str, value: np.ndarray, table: TensorNames) -> np.ndarray:
    return value.T if path.endswith("/kernel") else value[None] if path in table.rows else value


def _stored_shape(path: str, shape: tuple[int, ...], table: TensorNames) -> tuple[int, ...]:
    return shape[::-1] if path.endswith("/kernel") else (1, *shape) if path in table.rows else shape


def same(one: Stored, other: Stored) -> bool:
    """Whether two stored tensors hold the same numbers."""
    return one is other or (one.shape == other.shape and bool(np.array_equal(one.read(), other.read())))


def summary(params: Params, table: TensorNames, prefix: str = "") -> Mapping[str, tuple[str, int]]:
    """A summary with layers grouped: our path -> (stored name, number of tensors)."""
    found: dict[str, tuple[str, int]] = {}
    for path in flatten_dict(params, sep="/"):
        ours, theirs = (re.sub(r"\d+", "*", name) for name in (path, prefix + stored_name(path, table)))
        found[ours] = theirs, found.get(ours, ("", 0))[1] + 1
    return found
