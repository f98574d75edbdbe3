"""The dimension key, and the pytrees and protocols that pass between modules.

    B  questions                 Q  question tokens (tower)      D  retrieval width
    K  retrieved passages        L  question tokens (generator)  V  vocabulary
    N  passages in the index     P  passage tokens               H  heads
    R  generator-input rows      S  generator-input tokens       T  target tokens
    C  candidate answers         W  beams, or samples            n  passages of a hypothesis
    M  passages of a contrastive batch

jaxtyping signatures, einsum strings and comments use the same letters. `R` is `B * K` wherever passages are read.
Networks are callables over parameter pytrees, so the core depends on no neural-network library.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int8, Integer, Key, PyTree

PASSAGE = -1
"""In the ids of a prompt: where the passages stand. They begin the input of a prompt without it."""
Params = PyTree[Array]
DropoutKey = Key[Array, ""] | None  # None: dropout is off


def host(array: np.ndarray) -> Any:
    """A host array, typed for a pytree field that is declared as `Array`: compiled programs accept both."""
    return array


class Tokens(NamedTuple):
    """Right-padded token sequences."""

    ids: Integer[Array, "*rows L"]
    lengths: Int[Array, "*rows"]

    @property
    def mask(self) -> Bool[Array, "*rows L"]:
        """True for tokens, False on padding."""
        position = jax.lax.broadcasted_iota(self.lengths.dtype, self.ids.shape, self.ids.ndim - 1)
        return position < self.lengths[..., None]


class Int8Vectors(NamedTuple):
    """8-bit vectors: `values * scales[:, None]`."""

    values: Int8[Array, "N D"]
    scales: Float32[Array, " N"]


class PackedInputs(NamedTuple):
    """Rows of tokens concatenated into `G` packs of `N` slots without padding; see `rag_jax.core.packing`."""

    inputs: Tokens  # [R, S]
    source: Int[Array, "G N"]  # of each slot: the index of its token in the pack's R / G rows, flattened
    slot: Int[Array, "R S"]  # of each token: its slot in the pack
    num_tokens: Int[Array, " G"]  # of each pack


Vectors = Float[Array, "N D"] | Int8Vectors


class Knowledge(NamedTuple):
    """The passages as arrays on the device: vectors to search, tokens to read."""

    passage_vectors: Vectors  # d(z), computed by the passage tower
    passage_tokens: Tokens  # [N, P]: `<s> title / text`, in the generator's vocabulary
    alive: Bool[Array, " N"] | None = None  # False for rows whose passage was removed; None: all are alive
    tower_tokens: Tokens | None = None  # [N, P], in the passage tower's vocabulary, where training encodes them again


class SearchResults(NamedTuple):
    """The passages that a search returned, best first."""

    rows: Int[Array, "B K"]  # of the index; -1 where fewer than K exist
    scores: Float[Array, "B K"] | None  # logits of the prior; None: they are recomputed, as `q(x) . d(z)`


class Batch(NamedTuple):
    """Questions with one target each, for training and scoring."""

    question: Tokens  # [B, Q], in the question tower's vocabulary
    prompt: Tokens  # [B, L]: ` // question </s>`, in the generator's vocabulary, `PASSAGE` where it is not in front
    decoder_inputs: Int[Array, "B T"]  # `<s> answer`
    targets: Int[Array, "B T"]  # `answer </s>`
    target_mask: Bool[Array, "B T"]


class InferenceBatch(NamedTuple):
    """Questions without targets, for answering."""

    question: Tokens  # [B, Q], in the question tower's vocabulary
    prompt: Tokens  # [B, L]: ` // question </s>`, in the generator's vocabulary, `PASSAGE` where it is not in front


class Retrieved(NamedTuple):
    """The K passages retrieved for each question, best first."""

    rows: Int[Array, "B K"]  # rows of the index; -1 where fewer than K exist
    scores: Float[Array, "B K"]  # q(x) . d(z); differentiable with respect to q only, unless d is trained
    valid: Bool[Array, "B K"]


@runtime_checkable
class Tower(Protocol):
    """A tower of a bi-encoder as a pure function: `q(x)` and `d(z)`, each with its own parameters.

    Contrastive training may pack the tokens; a network without support for packing encodes `tokens.inputs`.
    """

    def __call__(
        self, params: Params, tokens: Tokens | PackedInputs, key: DropoutKey = None
    ) -> Float[Array, "rows D"]: ...


@runtime_checkable
class Encode(Protocol):
    """Encode the inputs into everything that decoding needs of them, a pytree with leading axis R.

    Training may pack them; a network without support for packing encodes `inputs.inputs`.
    """

    def __call__(self, params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None) -> PyTree[Array]: ...


class DecoderPositions(NamedTuple):
    """The positions of decoder tokens in a tree of answers, whose nodes are the cache's slots.

    Answers with a common beginning share its slots, and nothing moves when a search replaces one answer by another.
    """

    position: Int[Array, "#R T"]  # number of tokens before each
    visible: Bool[Array, "#R T slots"]  # the slots that each attends to: its ancestors and itself


@runtime_checkable
class Decode(Protocol):
    """The states of `decoder_inputs`, and the cache with their slots filled in order, for the next call.

    By default the tokens follow those of the cache; `positions` places them in a tree.
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
    """The logits of the token after each decoder state."""

    def __call__(self, params: Params, states: Float[Array, "R T width"]) -> Float[Array, "R T V"]: ...


@runtime_checkable
class ReadTargets(Protocol):
    """The states of `decoder_inputs` under inputs, as from `encode` and `decode`, in one pass over both.

    For networks to which a target is the continuation of its inputs: every layer's matrices are then read once.
    """

    def __call__(
        self,
        params: Params,
        inputs: Tokens | PackedInputs,
        decoder_inputs: Int[Array, "R T"],
        key: DropoutKey = None,
    ) -> Float[Array, "R T width"]: ...


@runtime_checkable
class Read(Protocol):
    """The states of all tokens of the inputs, each of which attends to itself and to those before it.

    For networks that are language models of their inputs.
    """

    def __call__(
        self, params: Params, inputs: Tokens | PackedInputs, key: DropoutKey = None
    ) -> Float[Array, "R S width"]: ...


@runtime_checkable
class EmptyCache(Protocol):
    """An empty cache with room for `slots` decoder tokens in each of `rows` rows."""

    def __call__(self, rows: int, slots: int) -> PyTree[Array]: ...


@runtime_checkable
class Fuse(Protocol):
    """Join the encoded inputs of each question's passages to one that the decoder attends to as a whole.

    Rows `B * K` become rows `B`. Nothing attends to passages that do not exist.
    """

    def __call__(self, encoded: PyTree[Array], exists: Bool[Array, "B K"]) -> PyTree[Array]: ...


@runtime_checkable
class CrossAttention(Protocol):
    """The weights of the decoder's cross-attention, averaged over heads and layers, without dropout.

    Those of a token sum to 1 over the encoded positions, and are exactly 0 where it may not attend; in a row in which
    it may attend to nothing they are even.
    """

    def __call__(
        self, params: Params, decoder_inputs: Int[Array, "R T"], encoded: PyTree[Array]
    ) -> Float[Array, "R T S"]: ...


class Generator(NamedTuple):
    """A sequence-to-sequence network as pure functions.

    `logits` is separate from `decode`, so that of a long prefix only the last state is projected onto the vocabulary.
    """

    encode: Encode
    decode: Decode
    logits: Logits
    empty_cache: EmptyCache
    fuse: Fuse | None = None  # for Fusion-in-Decoder; None: the network cannot
    cross_attention: CrossAttention | None = None  # for the attention mass of fused passages; None: it is not known
    read_targets: ReadTargets | None = None  # for training; None: `encode`, then `decode`
    read: Read | None = None  # for instruction tuning; None: an encoder reads the inputs, and no token is predicted


class Networks(NamedTuple):
    """The networks of a model."""

    tower: Tower
    generator: Generator


class RagParams(NamedTuple):
    """The trained parameters."""

    question_tower: Params
    generator: Params
    passage_tower: Params | None = None  # None: not trained, it is frozen in the index's vectors


class BiEncoderParams(NamedTuple):
    """The parameters of both towers of a bi-encoder, in contrastive training."""

    question_tower: Params
    passage_tower: Params | None  # None: shared, the question tower encodes passages too


class ContrastiveBatch(NamedTuple):
    """Questions and the passages that they are contrasted with: B positives, then the hard negatives of all, M in all.

    Passages are cut into groups by length: padded to its longest passage, half of a batch would be padding.
    """

    questions: Tokens | PackedInputs  # [B, Q]; packed unless they are encoded in chunks, and so are passages
    # groups of [M_g, P_g], each padded by itself; their M_g add up to M
    passages: tuple[Tokens | PackedInputs, ...]
    place: Int[Array, " M"]  # of each passage: its row in the groups, one after the other
    # what each question is contrasted with, its positive (column i of question i) included; False: an accidental hit,
    # a passage that is right for it too
    candidates: Bool[Array, "B M"]
    log_q: Float[Array, " M"] | None = None  # log-probability of each passage to be in a batch; None: no correction
    # scores of each question's positive and of its hard negatives by another model; not finite: unknown
    teacher: Float[Array, "B own"] | None = None


class Conversations(NamedTuple):
    """Conversations of similar length, in G packs of R / G, with the tokens that are predicted: those of the responses.

    The batch of a step is a tuple of these; padded to its longest conversation, most of it would be padding.
    """

    inputs: Tokens | PackedInputs  # [R, S]
    before: Int[Array, "G T"]  # of each target: the index of the token before it in the pack's R / G rows, flattened
    targets: Int[Array, "G T"]
    target_mask: Bool[Array, "G T"]
