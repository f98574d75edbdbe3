"""What beam search and sampling share: a language model as two functions, and the hypotheses that a search keeps.

Nothing here knows of retrieval. A search asks the model to `begin`, then feeds it the tokens it chose and is told what
may follow; what the model must remember of a token for later (its log-probability under each passage) is `evidence`,
carried along with the hypothesis.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rag_jax.types import Tokens


class GenerationLimits(NamedTuple):
    """How an answer begins and ends."""

    decoder_start: tuple[int, ...]  # what the decoder starts from, no part of the answer: as in training
    eos: int
    max_length: int  # T: tokens of an answer at most, those it is given and the end token included
    prefill_chunk: int | None = None  # tokens of a long given prefix that pass through the decoder at once; None: all


class NextTokens(NamedTuple):
    """What may follow each hypothesis."""

    log_probs: Float[Array, "B W V"]
    doc_log_probs: Float[Array, "B n W V"]  # what to remember of each token, should it be chosen


class Hypotheses(NamedTuple):
    """Answers, whole or in the making; after its last token each is filled up with the end token."""

    tokens: Tokens  # [B, W, T]
    scores: Float[Array, "B W"]  # -inf: there is none
    doc_log_probs: Float[Array, "B W n T"]

    @property
    def exist(self) -> Bool[Array, "B W"]:
        return ~jnp.isneginf(self.scores)


class Prefilled(NamedTuple):
    """The beginning of every answer, which each of the question's hypotheses shares."""

    prefix: Tokens  # [B, T]: the tokens that the answer was given, filled up with the end token
    doc_log_probs: Float[Array, "B n T"]
    next_tokens: NextTokens  # of one hypothesis (W = 1)
    state: Any


@runtime_checkable
class Prefill(Protocol):
    """Read what the answers start with; make room for `width` hypotheses of each question."""

    def __call__(self, width: int) -> Prefilled: ...


@runtime_checkable
class DecodeStep(Protocol):
    """What may follow `tokens`, the w-th of which was appended to the hypothesis `origin[w]` of the call before."""

    def __call__(self, tokens: Int[Array, "B W"], origin: Int[Array, "B W"], state: Any) -> tuple[NextTokens, Any]: ...


class LanguageModel(NamedTuple):
    """Answers, one token at a time."""

    prefill: Prefill
    decode_step: DecodeStep


@runtime_checkable
class LogitsProcessor(Protocol):
    """A change to the log-probabilities of the next token, given what is written; see `logits_processors`."""

    def __call__(self, generated: Tokens, log_probs: Float[Array, "B W V"]) -> Float[Array, "B W V"]: ...


@runtime_checkable
class Search(Protocol):
    """The answers of a model, best first: `partial(beam.search, num_beams=4)`."""

    def __call__(self, model: LanguageModel, limits: GenerationLimits) -> Hypotheses: ...


def initial_hypotheses(start: Prefilled, width: int, score: float = 0.0) -> Hypotheses:
    """`width` times what the answers start with."""
    tokens, evidence = jax.tree.map(
        lambda each: jnp.repeat(each[:, None], width, axis=1), (start.prefix, start.doc_log_probs)
    )
    return Hypotheses(tokens, jnp.full(tokens.lengths.shape, score, jnp.float32), evidence)


def last_tokens(generated: Tokens) -> Int[Array, "B W"]:
    """The last token of each hypothesis, which has one."""
    return jnp.take_along_axis(generated.ids, jnp.maximum(generated.lengths - 1, 0)[:, :, None], axis=2)[:, :, 0]


def take(rows: PyTree[Array], chosen: Int[Array, "B C"]) -> PyTree[Array]:
    """Of every question the chosen hypotheses."""
    return jax.tree.map(
        lambda each: jnp.take_along_axis(each, chosen.reshape(*chosen.shape, *(1,) * (each.ndim - 2)), axis=1), rows
    )


def append(
    before: Hypotheses,
    next_tokens: NextTokens,
    origin: Int[Array, "B C"],
    token: Int[Array, "B C"],
    scores: Float[Array, "B C"],
) -> Hypotheses:
    """Each `token` behind the hypothesis it continues, with the evidence for it."""
    extended = take(before, origin)
    ids, lengths = extended.tokens
    here = jnp.arange(ids.shape[2])[None, None, :] == lengths[:, :, None]
    vocabulary = next_tokens.log_probs.shape[2]
    seen = next_tokens.doc_log_probs.reshape(*next_tokens.doc_log_probs.shape[:2], -1)
    seen = jnp.take_along_axis(seen, (origin * vocabulary + token)[:, None, :], axis=2)
    evidence = jnp.where(here[:, :, None, :], jnp.swapaxes(seen, 1, 2)[:, :, :, None], extended.doc_log_probs)
    return Hypotheses(Tokens(jnp.where(here, token[:, :, None], ids), lengths + 1), scores, evidence)


def process_logits(
    processors: tuple[LogitsProcessor, ...], generated: Tokens, log_probs: Float[Array, "B W V"]
) -> Float[Array, "B W V"]:
    """One rule after the other."""
    for processor in processors:
        log_probs = processor(generated, log_probs)
    return log_probs
