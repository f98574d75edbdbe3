"""Beam search over a language model: one `lax.while_loop` over an immutable state, knowing nothing of RAG.

The W best running hypotheses of each question are extended by every token; of the 2W best extensions those that ended
compete with the finished ones by their score divided by `length ** length_penalty`, the others run on. Twice as many as
beams are looked at, so that W can run on even when W of them end. What transformers computes, token for token; where
fewer than W hypotheses exist, its scores of -1e9 are -inf here.
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
"""When a question with W finished hypotheses is done. True: at once. False: when its best running one, were it to end
now, could not beat the worst of them. "never": when it could not at any length."""


class Beams(NamedTuple):
    """A search under way."""

    running: Hypotheses  # best first, by log-probability
    origin: Int[Array, "B W"]  # which running hypothesis of the step before each of them continues
    finished: Hypotheses  # best first, by length-normalised log-probability
    open: Bool[Array, " B"]  # whether the question may still gain
    state: Any  # the model's


class Ranking(NamedTuple):
    """What decides among hypotheses, and when to stop."""

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

    Log-probability and length are those of the tokens found, not of those given. One beam is greedy: it stops at its
    first end token.
    """
    ranking = Ranking(num_beams, length_penalty, True if num_beams == 1 else early_stopping, logits_processors, limits)
    start = model.prefill(num_beams)
    prefix_lengths = start.prefix.lengths
    none = initial_hypotheses(start, num_beams, score=-jnp.inf)
    beams = Beams(
        none, jnp.zeros(none.scores.shape, jnp.int32), none, jnp.ones(prefix_lengths.shape, bool), start.state
    )
    beams = _select(ranking, prefix_lengths, beams._replace(running=initial_hypotheses(start, 1)), start.next_tokens)

    def extend(beams: Beams) -> Beams:
        next_tokens, state = model.decode_step(last_tokens(beams.running.tokens), beams.origin, beams.state)
        return _select(ranking, prefix_lengths, beams._replace(state=state), next_tokens)

    return jax.lax.while_loop(lambda beams: jnp.any(beams.open), extend, beams).finished


def _select(ranking: Ranking, prefix_lengths: Int[Array, " B"], beams: Beams, next_tokens: NextTokens) -> Beams:
    """Extend the running hypotheses by one token, and part those that run on from those that end."""
    width, limits = ranking.num_beams, ranking.limits
    candidates, origin = _extensions(beams.running, next_tokens, 2 * width, ranking.logits_processors)
    lengths = candidates.tokens.lengths
    ended = (last_tokens(candidates.tokens) == limits.eos) | (lengths >= limits.max_length)

    normalised = candidates.scores / _penalty(lengths - prefix_lengths[:, None], ranking)
    accepted = ended & beams.open[:, None] & (jnp.arange(2 * width) < width)[None, :]  # the rest are only substitutes
    ending = candidates._replace(scores=jnp.where(accepted, normalised, -jnp.inf))
    rivals = jax.tree.map(lambda old, new: jnp.concatenate([old, new], axis=1), beams.finished, ending)
    finished = _best(rivals, width)[0]

    running, chosen = _best(candidates._replace(scores=jnp.where(ended, -jnp.inf, candidates.scores)), width)
    still_open = beams.open & _may_gain(ranking, prefix_lengths, running, finished)
    return Beams(running, jnp.take_along_axis(origin, chosen, axis=1), finished, still_open, beams.state)


def _extensions(
    running: Hypotheses, next_tokens: NextTokens, count: int, logits_processors: tuple[LogitsProcessor, ...]
) -> tuple[Hypotheses, Int[Array, "B C"]]:
    """The `count` best of all extensions by one token, best first, and which hypothesis each extends.

    The best of each hypothesis are chosen first. Over hypotheses and tokens as one axis, XLA does not vectorise what
    the log-probabilities are made of: a mixture of passages then takes a CPU half as long as the vocabulary's product.
    """
    batch, width, vocabulary = next_tokens.log_probs.shape
    total = running.scores[:, :, None] + process_logits(logits_processors, running.tokens, next_tokens.log_probs)
    each = min(count, vocabulary)
    scores, token = (best.reshape(batch, -1) for best in jax.lax.top_k(total, each))
    missing = max(0, count - width * each)
    scores, where = jax.lax.top_k(jnp.pad(scores, ((0, 0), (0, missing)), constant_values=-jnp.inf), count)
    where = jnp.minimum(where, width * each - 1)
    origin, token = where // each, jnp.take_along_axis(token, where, axis=1)
    return append(running, next_tokens, origin, token, scores), origin


def _best(hypotheses: Hypotheses, count: int) -> tuple[Hypotheses, Int[Array, "B C"]]:
    """The `count` best, best first, and where they were."""
    _, where = jax.lax.top_k(hypotheses.scores, count)
    return take(hypotheses, where), where


def _may_gain(
    ranking: Ranking, prefix_lengths: Int[Array, " B"], running: Hypotheses, finished: Hypotheses
) -> Bool[Array, " B"]:
    """Whether a running hypothesis might still come to be among the W finished ones."""
    lengths = running.tokens.lengths[:, 0]
    if ranking.early_stopping == "never" and ranking.length_penalty > 0:
        lengths = jnp.full_like(lengths, ranking.limits.max_length)
    hoped_for = running.scores[:, 0] / _penalty(lengths - prefix_lengths, ranking)
    gains = hoped_for > jnp.min(finished.scores, axis=1)  # -inf as long as there are fewer than W
    if ranking.early_stopping is True:
        gains &= ~jnp.all(finished.exist, axis=1)
    return gains


def _penalty(generated: Int[Array, "*shape"], ranking: Ranking) -> Float[Array, "*shape"]:
    return jnp.maximum(generated, 1).astype(jnp.float32) ** ranking.length_penalty
