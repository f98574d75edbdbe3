"""LoRA: a trained update of low rank beside a frozen kernel (Hu et al. 2021, eq. 3).

    h = x (W + alpha / r * A B),    W [in, out],  A [in, r],  B [r, out]

Kernels are [in, out] here, in the paper [out, in], where the update reads B A. The adapters A and B are leaves beside
the kernel of their module, so that masks, partition rules and checkpoints know them by name. They are multiplied out
once per step, before the network runs: a network computes with plain kernels only.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rag_jax.types import DropoutKey, Generator, PackedInputs, Params, Tokens, Tower

KERNEL, A, B = "kernel", "lora_a", "lora_b"
ADAPTERS = (A, B)
OF_PARAMS = (
    "encode",
    "decode",
    "logits",
    "cross_attention",
    "read_targets",
    "read",
)  # a generator's functions of its parameters


def init(params: Params, kernels: Collection[str], rank: int, key: Key[Array, ""]) -> Params:
    """The parameters with adapters beside the named kernels ("layer_0/up/kernel").

    B is zero, so that training starts from W. A is uniform within 1/sqrt(in), as in peft.
    """
    keys = dict(zip(sorted(kernels), jax.random.split(key, max(1, len(kernels))), strict=False))

    def adapted(module: Params, path: str) -> Params:
        if not isinstance(module, Mapping):
            return module
        leaves = {name: adapted(child, f"{path}{name}/") for name, child in module.items()}
        if f"{path}{KERNEL}" in keys:
            width, out = module[KERNEL].shape
            limit = width**-0.5
            leaves[A] = jax.random.uniform(keys[f"{path}{KERNEL}"], (width, rank), minval=-limit, maxval=limit)
            leaves[B] = jnp.zeros((rank, out))
        return leaves

    return adapted(params, "")


def merge(params: Params, alpha: float) -> Params:
    """The network's parameters: every kernel plus alpha / r times the product of its adapters, which are left out."""
    if not isinstance(params, Mapping):
        return params
    merged = {name: merge(child, alpha) for name, child in params.items() if name not in ADAPTERS}
    if A in params:
        merged[KERNEL] = params[KERNEL] + update(params[A], params[B], alpha)
    return merged


def update(a: Float[Array, "in r"], b: Float[Array, "r out"], alpha: float) -> Float[Array, "in out"]:
    """alpha / r * A B. In full precision on every platform: what is trained is what is exported."""
    return alpha / a.shape[1] * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def tower(network: Tower, alpha: float) -> Tower:
    """The tower as a function of parameters with adapters."""

    def adapted(params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None) -> Float[Array, "rows D"]:
        return network(merge(params, alpha), tokens, key)

    return adapted


def generator(network: Generator, alpha: float) -> Generator:
    """The generator as functions of parameters with adapters."""

    def adapted(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, *inputs, **options: function(merge(params, alpha), *inputs, **options)

    of_params = {name: getattr(network, name) for name in OF_PARAMS}
    return network._replace(**{name: adapted(each) for name, each in of_params.items() if each is not None})
