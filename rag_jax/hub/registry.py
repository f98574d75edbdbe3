"""The families whose checkpoints are known. A new one is a line here, and one in `rag_jax.models.registry`."""

from collections.abc import Iterable
from typing import TypeVar

from rag_jax.hub import bart, bert
from rag_jax.hub.config_json import Described
from rag_jax.hub.formats import Format, GeneratorFormat, TowerFormat
from rag_jax.models import registry as architectures
from rag_jax.models.architecture import GeneratorConfig, TowerConfig

AnyFormat = TypeVar("AnyFormat", TowerFormat, GeneratorFormat)


def _named(*families: AnyFormat) -> dict[str, AnyFormat]:
    return {each.architecture.name: each for each in families}


TOWERS = _named(
    bert.FORMAT,
)
GENERATORS = _named(
    bart.FORMAT,
)


def model_types(formats: Iterable[Format]) -> list[str]:
    """What config.json may call them, in the order of the alphabet."""
    return sorted(each for family in formats for each in family.model_types)


def tower(config: Described) -> TowerFormat:
    """The family of a tower by its config.json. Raises `InputError`, naming those known, for any other."""
    return _by_type(TOWERS, config)


def generator(config: Described) -> GeneratorFormat:
    """The family of a generator by its config.json. Raises `InputError`, naming those known, for any other."""
    return _by_type(GENERATORS, config)


def tower_of(config: TowerConfig) -> TowerFormat:
    """The family that a tower's sizes are of. Raises `KeyError` for sizes of none."""
    return TOWERS[architectures.tower_of(config).name]


def generator_of(config: GeneratorConfig) -> GeneratorFormat:
    """The family that a generator's sizes are of. Raises `KeyError` for sizes of none."""
    return GENERATORS[architectures.generator_of(config).name]


def _by_type(table: dict[str, AnyFormat], config: Described) -> AnyFormat:
    config.expect(*model_types(table.values()))
    return next(each for each in table.values() if config["model_type"] in each.model_types)
