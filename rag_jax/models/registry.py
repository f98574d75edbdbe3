"""The registered architectures. A new one is a line here and one in `rag_jax.hub.registry`."""

from rag_jax.models import bart, bert, decoder, decoder_tower, t5
from rag_jax.models.architecture import Architecture, GeneratorConfig, Network, TowerConfig
from rag_jax.types import Generator, Tower


def _by_name(*architectures: Architecture[Network]) -> dict[str, Architecture[Network]]:
    return {each.name: each for each in architectures}


TOWERS: dict[str, Architecture[Tower]] = _by_name(
    bert.ARCHITECTURE,
    decoder_tower.ARCHITECTURE,
)
GENERATORS: dict[str, Architecture[Generator]] = _by_name(
    bart.ARCHITECTURE,
    decoder.ARCHITECTURE,
    t5.ARCHITECTURE,
)
DEFAULT_TOWER, DEFAULT_GENERATOR = bert.ARCHITECTURE.name, bart.ARCHITECTURE.name  # of networks from scratch


def tower_of(config: TowerConfig) -> Architecture[Tower]:
    """The architecture of a tower's config. Raises `KeyError` if it is not registered."""
    return _lookup(TOWERS, config)


def generator_of(config: GeneratorConfig) -> Architecture[Generator]:
    """The architecture of a generator's config. Raises `KeyError` if it is not registered."""
    return _lookup(GENERATORS, config)


def tower(config: TowerConfig) -> Tower:
    """A tower as a pure function; the same one for equal configs, so that it compiles once."""
    return tower_of(config).network(config)


def generator(config: GeneratorConfig) -> Generator:
    """A generator as pure functions; the same ones for equal configs, so that they compile once."""
    return generator_of(config).network(config)


def _lookup(table: dict[str, Architecture[Network]], config: object) -> Architecture[Network]:
    for each in table.values():
        if type(config) is each.config:
            return each
    raise KeyError(f"{type(config).__name__} is of no architecture in the registry ({', '.join(table)})")
