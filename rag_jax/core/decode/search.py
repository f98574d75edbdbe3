"""What beam search and sampling share: a language model as two functions, and the hypotheses of a search.

Nothing here knows of retrieval. A search calls the model's `prefill` once, then `decode_step` with the tokens it chose,
and gets the log-probabilities of the tokens that may follow. Each token's log-probabilities under the n passages,
`doc_log_probs`, are carried along with its hypothesis.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from rag_jax.types import Tokens


class GenerationLimits(NamedTuple):
    """How an answer begins and ends."""

    decoder_start: tuple[int, ...]  # the decoder's first input tokens, no part of the answer
    eos: int
    max_length: int  # T: tokens of an answer at most, prefix and end token included
    prefill_chunk: int | None = None  # prefix tokens that pass the decoder at a time; None: all


class NextTokens(NamedTuple):
    """Log-probabilities of the token that follows each hypothesis."""

    log_probs: Float[Array, "B W V"]
    doc_log_probs: Float[Array, "B n W V"]


class Hypotheses(NamedTuple):
    """Answers, finished or partial, padded with the end token."""

    tokens: Tokens  # [B, W, T]
    scores: Float[Array, "B W"]  # -inf where there is no hypothesis
    doc_log_probs: Float[Array, "B W n T"]

    @property
    def exists(self) -> Bool[Array, "B W"]:
        return ~jnp.isneginf(self.scores)


class Prefilled(NamedTuple):
    """The common beginning of a question's hypotheses."""

    prefix: Tokens  # [B, T], padded with the end token
    doc_log_probs: Float[Array, "B n T"]
    next_tokens: NextTokens  # of one hypothesis (W = 1)
    state: Any


@runtime_checkable
class Prefill(Protocol):
    """Read the prefixes; reserve memory for `width` hypotheses of each question."""

    def __call__(self, width: int) -> Prefilled: ...


@runtime_checkable
class DecodeStep(Protocol):
    """Append `tokens[w]` to hypothesis `parent[w]` of the step before: what may follow, and the new state."""

    def __call__(self, tokens: Int[Array, "B W"], parent: Int[Array, "B W"], state: Any) -> tuple[NextTokens, Any]: ...


class LanguageModel(NamedTuple):
    """Next-token log-probabilities, one token at a time."""

    prefill: Prefill
    decode_step: DecodeStep


@runtime_checkable
class LogitsProcessor(Protocol):
    """A change to next-token log-probabilities, given the tokens generated so far; see `logits_processors`."""

    def __call__(self, generated: Tokens, log_probs: Float[Array, "B W V"]) -> Float[Array, "B W V"]: ...


@runtime_checkable
class Search(Protocol):
    """The answers of a model, best first: `partial(beam.search, num_beams=4)`."""

    def __call__(self, model: LanguageModel, limits: GenerationLimits) -> Hypotheses: ...


def initial_hypotheses(prefilled: Prefilled, width: int, score: float = 0.0) -> Hypotheses:
    """`width` copies of the prefix."""
    tokens, doc_log_probs = jax.tree.map(
        lambda each: jnp.repeat(each[:, None], width, axis=1), (prefilled.prefix, prefilled.doc_log_probs)
    )
    return Hypotheses(tokens, jnp.full(tokens.lengths.shape, score, jnp.float32), doc_log_probs)


def last_tokens(generated: Tokens) -> Int[Array, "B W"]:
    """The last token of each hypothesis; undefined where it is empty."""
    return jnp.take_along_axis(generated.ids, jnp.maximum(generated.lengths - 1, 0)[:, :, None], axis=2)[:, :, 0]


def take(arrays: PyTree[Array], chosen: Int[Array, "B C"]) -> PyTree[Array]:
    """The chosen hypotheses of every question: `[B, W, ...]` to `[B, C, ...]`."""
    return jax.tree.map(
        lambda each: jnp.take_along_axis(each, chosen.reshape(*chosen.shape, *(1,) * (each.ndim - 2)), axis=1), arrays
    )


def append(
    hypotheses: Hypotheses,
    next_tokens: NextTokens,
    parent: Int[Array, "B C"],
    token: Int[Array, "B C"],
    scores: Float[Array, "B C"],
) -> Hypotheses:
    """Each `parent` hypothesis with one `token` more, and that token's `doc_log_probs`."""
    (ids, lengths), _, doc_log_probs = take(hypotheses, parent)
    at_end = jnp.arange(ids.shape[2])[None, None, :] == lengths[:, :, None]
    vocabulary = next_tokens.log_probs.shape[2]
    candidates = next_tokens.doc_log_probs.reshape(*next_tokens.doc_log_probs.shape[:2], -1)
    chosen = jnp.take_along_axis(candidates, (parent * vocabulary + token)[:, None, :], axis=2)
    doc_log_probs = jnp.where(at_end[:, :, None, :], jnp.swapaxes(chosen, 1, 2)[:, :, :, None], doc_log_probs)
    return Hypotheses(Tokens(jnp.where(at_end, token[:, :, None], ids), lengths + 1), scores, doc_log_probs)


def process_logits(
    processors: tuple[LogitsProcessor, ...], generated: Tokens, log_probs: Float[Array, "B W V"]
) -> Float[Array, "B W V"]:
    """Apply the processors in order."""
    for processor in processors:
        log_probs = processor(generated, log_probs)
    return log_probs
