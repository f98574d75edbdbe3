"""The sizes of published checkpoints, for planning without downloading them."""

from collections.abc import Iterable
from typing import Any

from rag_jax.hub import registry
from rag_jax.hub.formats import Format
from rag_jax.hub.loading import load_generator, load_tower
from rag_jax.models.architecture import GeneratorConfig, TowerConfig


def tower_sizes(source: str) -> TowerConfig:
    """A question tower's sizes, known or loaded. Raises `InputError` if the checkpoint cannot be loaded."""
    return _published(registry.TOWERS.values(), source) or load_tower(source).config


def generator_sizes(source: str) -> GeneratorConfig:
    """A generator's sizes, known or loaded. Raises `InputError` if the checkpoint cannot be loaded."""
    return _published(registry.GENERATORS.values(), source) or load_generator(source).config


def _published(families: Iterable[Format], source: str) -> Any:
    """The known sizes of a checkpoint, regardless of the revision; None if it is unknown."""
    name = source.partition("@")[0]
    return next((each.published[name] for each in families if name in each.published), None)
