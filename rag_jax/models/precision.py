"""Networks whose matrix products are computed at another precision than JAX's default."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import jax

from rag_jax.models.products import BFLOAT16
from rag_jax.types import Generator, Tower

PRECISIONS = {"default": None, "bfloat16": BFLOAT16}  # by their names in configs, as JAX has them
Function = TypeVar("Function", bound=Callable[..., Any])


@lru_cache
def tower(network: Tower, precision: str) -> Tower:
    """The tower with products at `precision`, one of `PRECISIONS`; the same function for the same network."""
    return network if PRECISIONS[precision] is None else _at(network, precision)


@lru_cache
def generator(network: Generator, precision: str) -> Generator:
    """The generator with products at `precision`, one of `PRECISIONS`; the same functions for the same network."""
    if PRECISIONS[precision] is None:
        return network
    return network._replace(
        **{name: _at(each, precision) for name, each in network._asdict().items() if each is not None}
    )


def _at(function: Function, precision: str) -> Function:
    @wraps(function)
    def computed(*inputs: Any, **options: Any) -> Any:
        with jax.default_matmul_precision(PRECISIONS[precision]):
            return function(*inputs, **options)

    return computed  # pyright: ignore[reportReturnType]
