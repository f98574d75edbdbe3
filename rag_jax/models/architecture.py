"""What the rest of the library knows of a family of networks: one `Architecture` each, listed in `models.registry`.

A family is two files, `models/NAME.py` with the network and `hub/NAME.py` with its checkpoints; everything that differs
between families is asked of these two.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from jax.sharding import PartitionSpec
from jaxtyping import Array

from rag_jax.types import Generator, Params, Tower

PartitionRules = tuple[tuple[str, PartitionSpec], ...]
"""Patterns of parameters' names, each with the mesh axes of its dimensions; the first that matches decides."""

PARTITION_RULES: PartitionRules = (
    # the names that layers here give their parameters; of a pair of matrices the first is split by columns, the second
    # by rows, so that what lies between them never travels
    (r"word/embedding$", PartitionSpec("tensor", "fsdp")),  # V x width; the tied head's too
    (r"(position|token_type)/embedding$", PartitionSpec()),  # small, and looked up by numbers that all devices share
    (r"(query|key|value|up)/kernel$", PartitionSpec("fsdp", "tensor")),  # by columns
    (r"(query|key|value|up)/bias$", PartitionSpec("tensor")),
    (r"(out|down)/kernel$", PartitionSpec("tensor", "fsdp")),  # by rows
    (r"projection/kernel$", PartitionSpec("fsdp", None)),
    (r"", PartitionSpec()),  # biases behind sums, LayerNorms, counters: whole on every device
)


class SpecialTokens(NamedTuple):
    """The special tokens of a generator's inputs and answers, as its tokenizer spells them."""

    bos: str | None = "<s>"  # before a passage; None: nothing is
    pad: str = "<pad>"
    eos: str = "</s>"  # behind a question, and behind an answer
    start: str = "<s>"  # what an answer is decoded from in training
    others: tuple[str, ...] = ("<unk>", "<mask>")  # that a vocabulary learnt for such a generator has besides

    @property
    def needed(self) -> tuple[str, ...]:
        """Those that a tokenizer must have."""
        given = (self.bos, self.pad, self.eos, self.start)
        return tuple(dict.fromkeys(token for token in given if token is not None))


class NetworkConfig(Protocol):
    """A network's sizes, a frozen dataclass whose equal values are equal networks.

    What runs choose of how it is computed are fields too, where a network has them: `dtype`, `remat`, `scan`,
    `attention` and `sharding`, with the meanings of `rag_jax.models.layers`.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def vocab_size(self) -> int: ...


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
        """Tokens of an input or an answer at most; None: as many as there are."""
        ...


Network = TypeVar("Network", Tower, Generator)


class Architecture(NamedTuple, Generic[Network]):
    """A family of networks: towers, or generators."""

    name: str
    config: type  # its sizes: a `TowerConfig` or a `GeneratorConfig`
    init: Callable[[Any, Array], Params]  # (config, key) -> random parameters
    network: Callable[[Any], Network]  # config -> pure functions, the same ones for equal configs
    flops: Callable[..., float]  # of one row's forward pass: (config, Q) of a tower, (config, S, T) of a generator
    describe: Callable[[Any], str]  # config -> its sizes in a few words
    partition_rules: PartitionRules = PARTITION_RULES
    special_tokens: SpecialTokens = SpecialTokens()  # of a generator
