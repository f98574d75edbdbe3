"""The families of networks that there are. A new one is a line here, and one in `rag_jax.hub.registry`."""

from rag_jax.models import bart, bert
from rag_jax.models.architecture import Architecture, GeneratorConfig, Network, TowerConfig
from rag_jax.types import Generator, Tower


def _named(*families: Architecture[Network]) -> dict[str, Architecture[Network]]:
    return {each.name: each for each in families}


TOWERS: dict[str, Architecture[Tower]] = _named(
    bert.ARCHITECTURE,
)
GENERATORS: dict[str, Architecture[Generator]] = _named(
    bart.ARCHITECTURE,
)
DEFAULT_TOWER, DEFAULT_GENERATOR = bert.ARCHITECTURE.name, bart.ARCHITECTURE.name  # of networks from scratch


def tower_of(config: TowerConfig) -> Architecture[Tower]:
    """The family that a tower's sizes are of. Raises `KeyError` for sizes of none."""
    return _of(TOWERS, config)


def generator_of(config: GeneratorConfig) -> Architecture[Generator]:
    """The family that a generator's sizes are of. Raises `KeyError` for sizes of none."""
    return _of(GENERATORS, config)


def tower(config: TowerConfig) -> Tower:
    """A tower of these sizes as a pure function; the same one for equal sizes, so that it compiles once."""
    return tower_of(config).network(config)


def generator(config: GeneratorConfig) -> Generator:
    """A generator of these sizes as pure functions; the same ones for equal sizes, so that they compile once."""
    return generator_of(config).network(config)


def _of(table: dict[str, Architecture[Network]], config: object) -> Architecture[Network]:
    for each in table.values():
        if type(config) is each.config:
            return each
    raise KeyError(f"{type(config).__name__} is of no architecture in the registry ({', '.join(table)})")
