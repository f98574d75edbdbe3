"""The networks that a config asks for: their family, their sizes from scratch, and how they are computed."""

import dataclasses
from typing import Any, TypeVar

from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.models import registry
from rag_jax.models.architecture import Architecture, GeneratorConfig, NetworkConfig, SpecialTokens
from rag_jax.types import Generator

Sizes = TypeVar("Sizes", bound=NetworkConfig)
SIZES = ("width", "encoder_layers", "decoder_layers", "heads", "ffn_width", "dropout", "init_std")  # in the config
PLAIN = {"dtype": "float32", "remat": "none", "scan": False, "attention": "plain"}  # what every network can do


def family(config: Config) -> Architecture[Generator]:
    """The generator's, of a network from scratch. Raises `InputError` for an unknown one, naming those known."""
    name = config.generator.architecture
    if name not in registry.GENERATORS:
        known = " or ".join(sorted(registry.GENERATORS))
        raise InputError(f"generator.architecture is {name!r}, which is not known; give {known}")
    return registry.GENERATORS[name]


def special_tokens(config: Config) -> SpecialTokens:
    """The special tokens of the generator's family, by its checkpoint's config.json or the config."""
    source = config.generator.checkpoint
    return (family(config) if source is None else hub.generator_family(source)).special_tokens


def from_scratch(config: Config, vocab_size: int) -> GeneratorConfig:
    """The sizes of a generator from scratch: those of the config that its family has, by their names."""
    wanted, kind = config.generator, family(config).config
    told = {name: getattr(wanted, name) for name in SIZES}
    told |= {"vocab_size": vocab_size, "max_positions": max(wanted.max_input, wanted.max_target)}
    return kind(**{each.name: told[each.name] for each in dataclasses.fields(kind) if each.name in told})


def computed(sizes: Sizes, **how: Any) -> Sizes:
    """The sizes with what a run chooses of how they are computed, as far as the network knows of it."""
    known = {each.name for each in dataclasses.fields(sizes)}
    return dataclasses.replace(sizes, **{name: value for name, value in how.items() if name in known})


def check_compute(config: Config, sizes: NetworkConfig, source: str) -> None:
    """Refuse what `compute` asks of a network that cannot be computed so."""
    known = {each.name for each in dataclasses.fields(sizes)}
    for name, plain in PLAIN.items():
        value = getattr(config.compute, name)
        if value != plain and name not in known:
            raise InputError(f"{source}: its network does not know compute.{name} {value}; leave it {plain}")
