"""Which parameters are trained: a tree is partitioned into what is differentiated and what stays as it is.

Both parts have the structure of the whole, with `None` in place of the other's leaves. `None` is an empty pytree, so
that what is mapped over the trained part (gradients, moments, accumulators) has no leaf for a frozen parameter.
"""

from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
from jaxtyping import Array, PyTree

Tree = TypeVar("Tree")


@runtime_checkable
class Mask(Protocol):
    """From parameters to a tree of the same structure: True for those that are trained."""

    def __call__(self, params: Any, /) -> PyTree[bool]: ...


def everything(params: PyTree) -> PyTree[bool]:
    """The mask of full fine-tuning."""
    return jax.tree.map(lambda _: True, params)


def partition(params: Tree, mask: Mask) -> tuple[Tree, Tree]:
    """The trained parameters and the frozen ones."""
    is_trained = mask(params)
    trained = jax.tree.map(lambda leaf, kept: leaf if kept else None, params, is_trained)
    frozen = jax.tree.map(lambda leaf, kept: None if kept else leaf, params, is_trained)
    return trained, frozen


def combine(trained: PyTree[Array], frozen: PyTree[Array]) -> Any:
    """The whole tree, of its two parts."""
    return jax.tree.map(lambda one, other: other if one is None else one, trained, frozen, is_leaf=lambda x: x is None)


def path_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf by its path in a pytree: `generator/decoder_layers_0/attention/query/kernel`."""
    return "/".join(str(getattr(entry, "key", getattr(entry, "name", entry))) for entry in path)


def names(params: PyTree) -> list[str]:
    """The names of all leaves."""
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
