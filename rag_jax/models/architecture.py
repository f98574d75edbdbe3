"""The interface of an architecture to the rest of the library; `models.registry` lists them.

An architecture is two files: `models/NAME.py` with the network and `hub/NAME.py` with its checkpoints. Nothing else
depends on a particular architecture.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from jax.sharding import PartitionSpec
from jaxtyping import Array

from rag_jax.types import Generator, Params, Tower

PartitionRules = tuple[tuple[str, PartitionSpec], ...]
"""Patterns of parameter names, each with the mesh axes of its dimensions; the first match applies."""


class SpecialTokens(NamedTuple):
    """The special tokens of a generator's inputs and answers."""

    bos: str | None = "<s>"  # before a passage; None: no token
    pad: str = "<pad>"
    eos: str = "</s>"  # after a question and after an answer
    start: str = "<s>"  # the decoder's first input in training
    others: tuple[str, ...] = ("<unk>", "<mask>")  # further ones of a newly trained vocabulary

    @property
    def needed(self) -> tuple[str, ...]:
        """The tokens that a tokenizer must have."""
        tokens = (self.bos, self.pad, self.eos, self.start)
        return tuple(dict.fromkeys(token for token in tokens if token is not None))


class PromptTemplates(NamedTuple):
    """How a passage and a question are written in a generator's input, unless a config says otherwise."""

    passage: str = "{title} / {text}"
    question: str = " // {question}"  # follows the passage
    between: str = ""  # two passages in one input


class NetworkConfig(Protocol):
    """A network's sizes: a frozen dataclass. Equal configs are the same network.

    How the network is computed is configured by further fields, where it supports them: `dtype`, `remat`, `scan`,
    `attention` and `sharding`; see `rag_jax.models.layers`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def vocab_size(self) -> int: ...


COMPUTE = frozenset({"dtype", "remat", "scan", "attention", "sharding", "prefill_chunk"})
TRAINING = frozenset({"init_std", "dropout", "attention_dropout"})


def changed_fields(config: Any) -> dict[str, str]:
    """The fields of a network's config that differ from their defaults, as text: a new field changes no older one."""
    fields = {each.name: (each.default, getattr(config, each.name)) for each in dataclasses.fields(config)}
    return {name: repr(value) for name, (default, value) in fields.items() if value != default}


def mathematics(config: Any) -> dict[str, str]:
    """What a network computes, beside its weights: `changed_fields` but for those of how it is computed or trained."""
    return {name: text for name, text in changed_fields(config).items() if name not in COMPUTE | TRAINING}


class TowerConfig(NetworkConfig, Protocol):
    """A tower's sizes."""

    @property
    def max_positions(self) -> int: ...

    @property
    def vector_width(self) -> int: ...

    @property
    def vector_norm(self) -> float | None: ...


class GeneratorConfig(NetworkConfig, Protocol):
    """A generator's sizes."""

    @property
    def max_positions(self) -> int | None:
        """Most tokens of an input or an answer; None: no limit."""
        ...


Network = TypeVar("Network", Tower, Generator)


class Architecture(NamedTuple, Generic[Network]):
    """An architecture of towers or of generators."""

    name: str
    config: type  # a `TowerConfig` or a `GeneratorConfig`
    init: Callable[[Any, Array], Params]  # (config, key) -> random parameters
    network: Callable[[Any], Network]  # config -> pure functions, the same ones for equal configs
    flops: Callable[..., float]  # of one row's forward pass: (config, Q) for a tower, (config, S, T) for a generator
    describe: Callable[[Any], str]  # config -> a one-line summary
    partition_rules: PartitionRules | None = None  # None: those of `rag_jax.parallel.partitioning`
    # of a generator; unused by towers:
    special_tokens: SpecialTokens = SpecialTokens()
    prompt: PromptTemplates = PromptTemplates()
    is_decoder_only: bool = (
        False  # an answer continues its input: one vocabulary of special tokens, one row of positions
    )
