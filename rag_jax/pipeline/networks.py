"""The networks of a config: architecture, sizes of a generator trained from scratch, and compute options."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp

from rag_jax import hub
from rag_jax.config.config import Compute, Config
from rag_jax.config.files import AnyConfig
from rag_jax.core.variants import VARIANTS
from rag_jax.errors import InputError
from rag_jax.models import precision, registry
from rag_jax.models.architecture import Architecture, GeneratorConfig, NetworkConfig, SpecialTokens, TowerConfig
from rag_jax.pipeline import length_limits
from rag_jax.types import Generator, Tower

Sizes = TypeVar("Sizes", bound=NetworkConfig)
SIZE_FIELDS = (
    "width",
    "encoder_layers",
    "decoder_layers",
    "heads",
    "ffn_width",
    "dropout",
    "init_std",
)  # of the config
SCRATCH_DROPOUT = 0.1
DROPOUTS = ("dropout", "attention_dropout", "activation_dropout")  # rates of a network config
DEFAULTS = {"dtype": "float32", "remat": "none", "scan": False, "attention": "plain"}  # supported by every network
GENERATOR_DEFAULTS = {**DEFAULTS, "prefill_chunk": None}


def generator_architecture(config: Config) -> Architecture[Generator]:
    """The architecture of a generator trained from scratch. Raises `InputError` for an unknown name."""
    name = config.generator.architecture
    if name not in registry.GENERATORS:
        known = " or ".join(sorted(registry.GENERATORS))
        raise InputError(f"generator.architecture is {name!r}, which is not supported; give {known}")
    return registry.GENERATORS[name]


def check_heads(config: Config) -> None:
    """Raise `InputError` for a generator from scratch whose width cannot be divided among its heads."""
    c = config.generator
    if c.checkpoint is not None:
        return
    what = f"generator.width is {c.width}, generator.heads {c.heads}"
    if c.width % c.heads:
        raise InputError(f"{what}; give a width that the heads divide")
    rotates = "rope" in {each.name for each in dataclasses.fields(generator_architecture(config).config)}
    if rotates and c.width // c.heads % 2:
        raise InputError(f"{what}; a {c.architecture} rotates its heads in halves: give heads of an even width")


def special_tokens(config: Config) -> SpecialTokens:
    """The special tokens of the generator, from its checkpoint or the config."""
    source = config.generator.checkpoint
    return generator_architecture(config).special_tokens if source is None else hub.special_tokens(source)


def scratch_config(config: Config, vocab_size: int) -> GeneratorConfig:
    """The network config of a generator trained from scratch, from the fields of the same names."""
    generator, architecture = config.generator, generator_architecture(config)
    kind = architecture.config
    values = {name: getattr(generator, name) for name in SIZE_FIELDS}
    if generator.dropout is None:
        values["dropout"] = SCRATCH_DROPOUT
    positions = length_limits.generator_lengths(config, architecture).values()
    values |= {"vocab_size": vocab_size, "max_positions": max(positions)}
    return kind(**{each.name: values[each.name] for each in dataclasses.fields(kind) if each.name in values})


def with_dropout(config: Config, sizes: GeneratorConfig) -> GeneratorConfig:
    """The network config in training: a rate in the config replaces those that the checkpoint drops by.

    Raises `InputError` as `check_dropout`.
    """
    check_dropout(config, sizes)
    rate = config.generator.dropout
    if rate is None or config.generator.checkpoint is None:  # from scratch, `scratch_config` has set it
        return sizes
    changed = [name for name in DROPOUTS if name == "dropout" or getattr(sizes, name, 0)]
    return with_compute(sizes, **dict.fromkeys(changed, rate))


def check_dropout(config: Config, sizes: GeneratorConfig) -> None:
    """Raise `InputError` for a dropout rate that the generator's network cannot be trained with."""
    rate = config.generator.dropout
    if rate and not hasattr(sizes, "dropout"):
        source = config.generator.checkpoint or config.generator.architecture
        raise InputError(f"generator.dropout is {rate}, but {source} is a network without dropout; leave it out")


def with_compute(sizes: Sizes, **compute: Any) -> Sizes:
    """The network config with compute options changed, except for those that the network does not have."""
    supported = {each.name for each in dataclasses.fields(sizes)}
    return dataclasses.replace(sizes, **{name: value for name, value in compute.items() if name in supported})


def tower(sizes: TowerConfig, compute: Compute, **further: Any) -> Tower:
    """The tower as `compute` says; `further` are options that training and inference do not share."""
    return precision.tower(registry.tower(_computed(sizes, compute, further)), compute.matmul_precision)


def generator(sizes: GeneratorConfig, compute: Compute, **further: Any) -> Generator:
    """The generator as `compute` says; `further` are options that training and inference do not share."""
    return precision.generator(registry.generator(_computed(sizes, compute, further)), compute.matmul_precision)


def _computed(sizes: Sizes, compute: Compute, further: Mapping[str, Any]) -> Sizes:
    return with_compute(sizes, dtype=jnp.dtype(compute.dtype), attention=compute.attention, **further)


def check_fuses(config: Config, sizes: GeneratorConfig, source: str) -> None:
    """Raise `InputError` for passages that cannot be read together as the config says."""
    together = config.generator.passages_per_prompt
    if together < 1:
        raise InputError(f"generator.passages_per_prompt is {together}; give 1 or more")
    if VARIANTS[config.model].fuses and together > 1:
        problem = f"model {config.model} fuses passages that are encoded one by one"
        raise InputError(f"generator.passages_per_prompt is {together}: {problem}; give 1, or another model")
    if VARIANTS[config.model].fuses and registry.generator(sizes).fuse is None:
        known = " or ".join(name for name, variant in VARIANTS.items() if not variant.fuses)
        raise InputError(f"{source}: its network cannot fuse passages, as model {config.model} does; give {known}")


def check_compute(
    config: AnyConfig,
    sizes: NetworkConfig,
    source: str,
    defaults: Mapping[str, Any] = GENERATOR_DEFAULTS,
) -> None:
    """Raise `InputError` for a `compute` option that a network does not support."""
    supported = {each.name for each in dataclasses.fields(sizes)}
    for name, default in defaults.items():
        value = getattr(config.compute, name)
        if value != default and name not in supported:
            raise InputError(f"{source}: its network does not support compute.{name} {value}; leave it {default}")
