"""The sizes of networks that the paper and its successors start from, for planning where no checkpoint is at hand."""

from rag_jax.hub import registry
from rag_jax.hub.reading import load_generator, load_tower
from rag_jax.models.architecture import GeneratorConfig, TowerConfig


def tower_sizes(source: str) -> TowerConfig:
    """A question tower's sizes, published or read. Raises `InputError` where there is neither."""
    name = source.partition("@")[0]
    published = (each.published for each in registry.TOWERS.values() if name in each.published)
    return next((sizes[name] for sizes in published), None) or load_tower(source).config


def generator_sizes(source: str) -> GeneratorConfig:
    """A generator's sizes, published or read. Raises `InputError` where there is neither."""
    name = source.partition("@")[0]
    published = (each.published for each in registry.GENERATORS.values() if name in each.published)
    return next((sizes[name] for sizes in published), None) or load_generator(source).config
