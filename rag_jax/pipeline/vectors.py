"""The vectors of a tower as a config wants them: truncated, and rescaled."""

import dataclasses
from typing import TypeVar

from rag_jax.errors import InputError
from rag_jax.models.architecture import TowerConfig

Sizes = TypeVar("Sizes", bound=TowerConfig)
FIELD = "truncated_width"  # of a tower's config


def cut_to(tower: TowerConfig) -> int | None:
    """The width that a tower's vectors are cut to; None: they are whole."""
    return getattr(tower, FIELD, None)


def with_vectors(tower: Sizes, source: str, norm: float | None = None, width: int | None = None) -> Sizes:
    """The tower's config with vectors of this norm and width; None: those of the checkpoint.

    A smaller width keeps the first components, which `norm` then rescales (`rag_jax.models.pooling.to_vector`). Raises
    `InputError` for a width that the checkpoint `source` does not have.
    """
    if norm is not None:
        tower = dataclasses.replace(tower, vector_norm=norm)
    if width is None or width == tower.vector_width:
        return tower
    if FIELD not in {each.name for each in dataclasses.fields(tower)}:
        raise InputError(f"{source}: its network does not support retriever.vector_width {width}; leave it None")
    whole = dataclasses.replace(tower, **{FIELD: None})
    if not 1 <= width <= whole.vector_width:
        what = f"retriever.vector_width is {width}, the tower's vectors have {whole.vector_width} components"
        raise InputError(f"{source}: {what}; give 1 to {whole.vector_width}, or None for all")
    return whole if width == whole.vector_width else dataclasses.replace(whole, **{FIELD: width})
