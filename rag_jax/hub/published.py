"""The sizes of networks that the paper and its successors start from, for planning where no checkpoint is at hand."""

from collections.abc import Iterable
from typing import Any

from rag_jax.hub import registry
from rag_jax.hub.formats import Format
from rag_jax.hub.loading import load_generator, load_tower
from rag_jax.models.architecture import GeneratorConfig, TowerConfig


def tower_sizes(source: str) -> TowerConfig:
    """A question tower's sizes, published or read. Raises `InputError` where there is neither."""
    return _published(registry.TOWERS.values(), source) or load_tower(source).config


def generator_sizes(source: str) -> GeneratorConfig:
    """A generator's sizes, published or read. Raises `InputError` where there is neither."""
    return _published(registry.GENERATORS.values(), source) or load_generator(source).config


def _published(families: Iterable[Format], source: str) -> Any:
    """The sizes that a family of these knows under the name, whatever the revision; None where none does."""
    name = source.partition("@")[0]
    return next((each.published[name] for each in families if name in each.published), None)
