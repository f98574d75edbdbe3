"""The families with supported checkpoints. A new one is a line here and one in `rag_jax.models.registry`."""

from collections.abc import Iterable
from typing import TypeVar

from rag_jax.hub import bart, bert, decoder, decoder_tower, t5
from rag_jax.hub.config_json import ConfigJson
from rag_jax.hub.formats import Format, GeneratorFormat, TowerFormat
from rag_jax.models import registry as architectures
from rag_jax.models.architecture import GeneratorConfig, TowerConfig

AnyFormat = TypeVar("AnyFormat", TowerFormat, GeneratorFormat)


def _named(*families: AnyFormat) -> dict[str, AnyFormat]:
    return {each.architecture.name: each for each in families}


TOWERS = _named(
    bert.FORMAT,
    decoder_tower.FORMAT,
)
GENERATORS = _named(
    bart.FORMAT,
    decoder.FORMAT,
    t5.FORMAT,
)


def model_types(formats: Iterable[Format]) -> list[str]:
    """The `model_type`s of some families, sorted."""
    return sorted(each for family in formats for each in family.model_types)


def tower(config: ConfigJson) -> TowerFormat:
    """The family of a tower by its config.json. Raises `InputError`, which lists the known ones, for any other."""
    return _by_type(TOWERS, config)


def generator(config: ConfigJson) -> GeneratorFormat:
    """The family of a generator by its config.json. Raises `InputError`, which lists the known ones, for any other."""
    return _by_type(GENERATORS, config)


def tower_of(config: TowerConfig) -> TowerFormat:
    """The family of a tower's config. Raises `KeyError` for an unknown one."""
    return TOWERS[architectures.tower_of(config).name]


def generator_of(config: GeneratorConfig) -> GeneratorFormat:
    """The family of a generator's config. Raises `KeyError` for an unknown one."""
    return GENERATORS[architectures.generator_of(config).name]


def _by_type(table: dict[str, AnyFormat], config: ConfigJson) -> AnyFormat:
    config.expect(*model_types(table.values()))
    return next(each for each in table.values() if config["model_type"] in each.model_types)
