"""The contract: the dimension key, and the pytrees that flow between the rooms.

    B  questions                 Q  question tokens (tower)      D  retrieval width
    K  retrieved passages        L  question tokens (generator)  V  vocabulary
    N  passages in the index     P  passage tokens               H  heads
    R  rows the generator reads  S  generator-input tokens       T  target tokens
    C  candidate answers         W  beams, or samples            n  what is remembered of a token

The same letters stand in jaxtyping signatures, einsum strings and comments. `R` is `B * K` wherever passages are read.
Networks are callables over parameter pytrees: the core knows no framework, and is tested with hand-made ones.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int8, Integer, Key, PyTree

Params = PyTree[Array]
DropoutKey = Key[Array, ""] | None  # None: dropout is off


def host(array: np.ndarray) -> Any:
    """A host array for a pytree whose fields say `Array`: the compiled programs take both."""
    return array


class Tokens(NamedTuple):
    """Right-padded token sequences: what a tokenizer makes and a network reads."""

    ids: Integer[Array, "*rows L"]
    lengths: Int[Array, "*rows"]

    @property
    def mask(self) -> Bool[Array, "*rows L"]:
        """True where a token stands, False on padding."""
        position = jax.lax.broadcasted_iota(self.lengths.dtype, self.ids.shape, self.ids.ndim - 1)
        return position < self.lengths[..., None]


class Int8Vectors(NamedTuple):
    """Vectors in eight bits: `values * scales[:, None]`."""

    values: Int8[Array, "N D"]
    scales: Float32[Array, " N"]


class PackedInputs(NamedTuple):
    """Rows of tokens laid one after the other into `G` lines, without their padding; see `rag_jax.core.packing`."""

    inputs: Tokens  # [R, S]
    source: Int[Array, "G N"]  # at each place of a line the token's number among those of the line's R / G rows
    slot: Int[Array, "R S"]  # of each token in its line
    num_tokens: Int[Array, " G"]  # tokens in each line


Vectors = Float[Array, "N D"] | Int8Vectors


class Knowledge(NamedTuple):
    """The passages as arrays on the device: what is searched, and what is read."""

    passage_vectors: Vectors  # d(z), made by the frozen passage tower
    passage_tokens: Tokens  # [N, P]: `<s> title / text`, in the generator's vocabulary
    alive: Bool[Array, " N"] | None = None  # the rows that hold a passage; None: all of them


class SearchResults(NamedTuple):
    """Which passages a search chose, best first."""

    rows: Int[Array, "B K"]  # of the index; -1 where fewer than K exist
    scores: Float[Array, "B K"] | None  # the search's own, the prior's logits; None: `q(x) . d(z)`, recomputed


class Batch(NamedTuple):
    """Questions with one target each."""

    question: Tokens  # [B, Q]: the question in the tower's vocabulary
    prompt: Tokens  # [B, L]: ` // question </s>` in the generator's vocabulary
    decoder_inputs: Int[Array, "B T"]  # `<s> answer`
    targets: Int[Array, "B T"]  # `answer </s>`
    target_mask: Bool[Array, "B T"]


class InferenceBatch(NamedTuple):
    """Questions without targets: the inputs of a program that answers them."""

    question: Tokens  # [B, Q], in the question encoder's vocabulary
    prompt: Tokens  # [B, L]: ` // question </s>`, in the generator's vocabulary


class Retrieved(NamedTuple):
    """The K passages found for each question, best first."""

    rows: Int[Array, "B K"]  # rows of the index; -1 where fewer than K exist
    scores: Float[Array, "B K"]  # q(x) . d(z); differentiable with respect to q only
    valid: Bool[Array, "B K"]


@runtime_checkable
class Tower(Protocol):
    """A bi-encoder's tower as a pure function: `q(x)` and `d(z)` are this, with two parameter trees."""

    def __call__(self, params: Params, tokens: Tokens, key: DropoutKey = None) -> Float[Array, "rows D"]: ...


@runtime_checkable
class Encode(Protocol):
    """Read the inputs once: everything of them that decoding needs, rows leading.

    Training with `lengths` packs them; a network that makes nothing of it reads `inputs.inputs`.
    """

    def __call__(self, params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None) -> PyTree[Array]: ...


class DecoderPositions(NamedTuple):
    """Where decoder tokens stand in a tree of answers, whose nodes are the cache's slots.

    Answers that begin alike share slots, and nothing is moved when a search drops one answer for another.
    """

    position: Int[Array, "#R T"]  # how many tokens come before each
    visible: Bool[Array, "#R T slots"]  # the slots that each attends to: those of its own answer, and its own


@runtime_checkable
class Decode(Protocol):
    """The states of `decoder_inputs`, and the cache that the next call continues from, their slots filled in order.

    The tokens continue the cache's in a line, or stand where `place` says.
    """

    def __call__(
        self,
        params: Params,
        decoder_inputs: Int[Array, "R T"],
        encoded: PyTree[Array],
        cache: PyTree[Array] | None = None,
        positions: DecoderPositions | None = None,
        key: DropoutKey = None,
    ) -> tuple[Float[Array, "R T width"], Any]: ...


@runtime_checkable
class Logits(Protocol):
    """What the states of decoder tokens say of the token that follows each."""

    def __call__(self, params: Params, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]: ...


@runtime_checkable
class EmptyCache(Protocol):
    """A cache of `slots` decoder tokens in each of `rows` rows."""

    def __call__(self, rows: int, slots: int) -> PyTree[Array]: ...


class Generator(NamedTuple):
    """A sequence-to-sequence network as pure functions.

    `logits` stands apart from `decode`: of a long start only the last state is projected onto the vocabulary.
    """

    encode: Encode
    decode: Decode
    logits: Logits
    empty_cache: EmptyCache


class Networks(NamedTuple):
    """What the functional core is composed with."""

    tower: Tower
    generator: Generator


class RagParams(NamedTuple):
    """What training changes. The passage tower is not among it: it is frozen in the index's vectors."""

    question_tower: Params
    generator: Params
