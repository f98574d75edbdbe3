"""Beam search over a language model, without knowledge of RAG: one `lax.while_loop` over an immutable state.

The W best running hypotheses of each question are extended by every token. Of the 2W best extensions, those that ended
compete with the finished hypotheses by score over `length ** length_penalty`, and the others continue. 2W are
considered so that W can continue even when W of them end. The results are those of transformers, token for token;
where fewer than W hypotheses exist, its scores of -1e9 are -inf here.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.decode.search import (
    GenerationLimits,
    Hypotheses,
    LanguageModel,
    LogitsProcessor,
    NextTokens,
    append,
    initial_hypotheses,
    last_tokens,
    process_logits,
    take,
)

EarlyStopping = bool | Literal["never"]
"""When the search of a question with W finished hypotheses stops. True: at once. False: when the best running
hypothesis, if it ended now, would not beat the worst of them. "never": when it would not at any length."""


class Beams(NamedTuple):
    """The state of a search."""

    running: Hypotheses  # best first, by log-probability
    parent: Int[Array, "B W"]  # the hypothesis of the step before that each of them continues
    finished: Hypotheses  # best first, by length-normalised log-probability
    active: Bool[Array, " B"]  # whether a better answer may still be found
    state: Any  # the model's


class Settings(NamedTuple):
    """How hypotheses are ranked, and when the search stops."""

    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    logits_processors: tuple[LogitsProcessor, ...]
    limits: GenerationLimits


def search(
    model: LanguageModel,
    limits: GenerationLimits,
    *,
    num_beams: int,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    logits_processors: tuple[LogitsProcessor, ...] = (),
) -> Hypotheses:
    """The `num_beams` best answers of each question, best first, by `log p / length ** length_penalty`.

    Log-probability and length do not count the prefix. One beam is greedy search: it stops at its first end token.
    """
    early_stopping = True if num_beams == 1 else early_stopping
    settings = Settings(num_beams, length_penalty, early_stopping, logits_processors, limits)
    prefilled = model.prefill(num_beams)
    prefix_lengths = prefilled.prefix.lengths

    def extend(beams: Beams) -> Beams:
        next_tokens, state = model.decode_step(last_tokens(beams.running.tokens), beams.parent, beams.state)
        return _select(settings, prefix_lengths, beams._replace(state=state), next_tokens)

    none = initial_hypotheses(prefilled, num_beams, score=-jnp.inf)
    parent = jnp.zeros(none.scores.shape, jnp.int32)
    active = jnp.ones(prefix_lengths.shape, bool)
    beams = Beams(initial_hypotheses(prefilled, 1), parent, none, active, prefilled.state)
    beams = _select(settings, prefix_lengths, beams, prefilled.next_tokens)
    return jax.lax.while_loop(lambda beams: jnp.any(beams.active), extend, beams).finished


def _select(settings: Settings, prefix_lengths: Int[Array, " B"], beams: Beams, next_tokens: NextTokens) -> Beams:
    """Extend the running hypotheses by one token, and separate those that end from those that continue."""
    width, limits = settings.num_beams, settings.limits
    candidates, parent = _extensions(beams.running, next_tokens, 2 * width, settings.logits_processors)
    lengths = candidates.tokens.lengths
    ended = (last_tokens(candidates.tokens) == limits.eos) | (lengths >= limits.max_length)

    normalised = candidates.scores / _penalty(lengths - prefix_lengths[:, None], settings)
    # Candidates beyond W only replace beams that ended.
    accepted = ended & beams.active[:, None] & (jnp.arange(2 * width) < width)[None, :]
    ending = candidates._replace(scores=jnp.where(accepted, normalised, -jnp.inf))
    contenders = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), beams.finished, ending)
    finished = _best(contenders, width)[0]

    running, chosen = _best(candidates._replace(scores=jnp.where(ended, -jnp.inf, candidates.scores)), width)
    active = beams.active & _may_improve(settings, prefix_lengths, running, finished)
    return Beams(running, jnp.take_along_axis(parent, chosen, axis=1), finished, active, beams.state)


def _extensions(
    running: Hypotheses, next_tokens: NextTokens, count: int, logits_processors: tuple[LogitsProcessor, ...]
) -> tuple[Hypotheses, Int[Array, "B C"]]:
    """The `count` best extensions by one token, best first, and the hypothesis that each extends.

    The best of each hypothesis are selected first: over hypotheses and tokens as one axis, XLA does not vectorise the
    mixture of passages, which then takes a CPU half as long as the product with the vocabulary.
    """
    batch, width, vocabulary = next_tokens.log_probs.shape
    total = running.scores[:, :, None] + process_logits(logits_processors, running.tokens, next_tokens.log_probs)
    each = min(count, vocabulary)
    scores, token = (best.reshape(batch, -1) for best in jax.lax.top_k(total, each))
    padding = max(0, count - width * each)
    scores, where = jax.lax.top_k(jnp.pad(scores, ((0, 0), (0, padding)), constant_values=-jnp.inf), count)
    where = jnp.minimum(where, width * each - 1)
    parent, token = where // each, jnp.take_along_axis(token, where, axis=1)
    return append(running, next_tokens, parent, token, scores), parent


def _best(hypotheses: Hypotheses, count: int) -> tuple[Hypotheses, Int[Array, "B C"]]:
    """The `count` best hypotheses, best first, and their indices."""
    _, where = jax.lax.top_k(hypotheses.scores, count)
    return take(hypotheses, where), where


def _may_improve(
    settings: Settings, prefix_lengths: Int[Array, " B"], running: Hypotheses, finished: Hypotheses
) -> Bool[Array, " B"]:
    """Whether a running hypothesis may still enter the W finished ones."""
    lengths = running.tokens.lengths[:, 0]
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        lengths = jnp.full_like(lengths, settings.limits.max_length)
    bound = running.scores[:, 0] / _penalty(lengths - prefix_lengths, settings)
    improves = bound > jnp.min(finished.scores, axis=1)  # -inf while fewer than W are finished
    if settings.early_stopping is True:
        improves &= ~jnp.all(finished.exists, axis=1)
    return improves


def _penalty(generated: Int[Array, "*shape"], settings: Settings) -> Float[Array, "*shape"]:
    return jnp.maximum(generated, 1).astype(jnp.float32) ** settings.length_penalty
