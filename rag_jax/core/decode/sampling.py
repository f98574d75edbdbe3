"""Sampling from a language model: W independent answers to each question, by explicit keys."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

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
)


class Samples(NamedTuple):
    """Answers being drawn."""

    drawn: Hypotheses
    ended: Bool[Array, "B W"]
    step: Int[Array, ""]
    state: Any


def sample(
    model: LanguageModel,
    limits: GenerationLimits,
    *,
    keys: Key[Array, " B"],
    num_samples: int,
    logits_processors: tuple[LogitsProcessor, ...] = (),
) -> Hypotheses:
    """`num_samples` answers to each question in the order drawn, with the mean log-probability of their tokens.

    `keys` are consumed, one per question: what a question draws does not depend on those beside it. The rules shape the
    distribution (`rules.temperature`, `rules.top_p`, ...); the scores are the model's own, before them.
    """
    start = model.prefill(num_samples)
    draw = partial(_draw, keys, limits, logits_processors)
    nothing = initial_hypotheses(start, num_samples)
    every = jnp.broadcast_to(jnp.arange(num_samples)[None, :], nothing.scores.shape)
    samples = Samples(nothing, jnp.zeros(nothing.scores.shape, bool), jnp.int32(0), start.state)
    samples = draw(samples, _repeat(start.next_tokens, num_samples))

    def extend(samples: Samples) -> Samples:
        next_tokens, state = model.decode_step(last_tokens(samples.drawn.tokens), every, samples.state)
        return draw(samples._replace(state=state), next_tokens)

    drawn = jax.lax.while_loop(lambda samples: ~jnp.all(samples.ended), extend, samples).drawn
    found = drawn.tokens.lengths - start.prefix.lengths[:, None]
    return drawn._replace(scores=drawn.scores / found.astype(jnp.float32))


def _draw(
    keys: Key[Array, " B"],
    limits: GenerationLimits,
    logits_processors: tuple[LogitsProcessor, ...],
    samples: Samples,
    next_tokens: NextTokens,
) -> Samples:
    """One token more for every answer that has not ended."""
    shaped = process_logits(logits_processors, samples.drawn.tokens, next_tokens.log_probs)
    now = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, samples.step)
    token = jax.vmap(jax.random.categorical)(now, shaped).astype(jnp.int32)
    every = jnp.broadcast_to(jnp.arange(token.shape[1])[None, :], token.shape)
    chosen = jnp.take_along_axis(next_tokens.log_probs, token[:, :, None], axis=2)[:, :, 0]
    longer = append(samples.drawn, next_tokens, every, token, samples.drawn.scores + chosen)
    drawn = _where(samples.ended, samples.drawn, longer)
    ended = (last_tokens(drawn.tokens) == limits.eos) | (drawn.tokens.lengths >= limits.max_length)
    return Samples(drawn, samples.ended | ended, samples.step + 1, samples.state)


def _repeat(next_tokens: NextTokens, width: int) -> NextTokens:
    """The same for each of `width` answers that have not parted yet."""
    return NextTokens(
        jnp.repeat(next_tokens.log_probs, width, axis=1), jnp.repeat(next_tokens.doc_log_probs, width, axis=2)
    )


def _where(condition: Bool[Array, "B W"], one: Hypotheses, other: Hypotheses) -> Hypotheses:
    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(*condition.shape, *(1,) * (a.ndim - 2)), a, b)

    return jax.tree.map(choose, one, other)
