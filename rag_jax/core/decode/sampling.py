"""Sampling from a language model: W independent answers to each question, with explicit keys."""

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
    """The state of the sampling loop."""

    hypotheses: Hypotheses
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
    """`num_samples` answers to each question in the order sampled; scores are mean token log-probabilities.

    `keys` are consumed, one per question: its samples do not depend on the other questions of the batch. Processors
    shape the distribution (`logits_processors.temperature`, `top_p` …); scores are those of the model without them.
    """
    prefilled = model.prefill(num_samples)
    draw = partial(_draw, keys, limits, logits_processors)
    empty = initial_hypotheses(prefilled, num_samples)
    parent = jnp.broadcast_to(jnp.arange(num_samples)[None, :], empty.scores.shape)
    samples = Samples(empty, jnp.zeros(empty.scores.shape, bool), jnp.int32(0), prefilled.state)
    samples = draw(samples, _repeat(prefilled.next_tokens, num_samples))

    def extend(samples: Samples) -> Samples:
        next_tokens, state = model.decode_step(last_tokens(samples.hypotheses.tokens), parent, samples.state)
        return draw(samples._replace(state=state), next_tokens)

    hypotheses = jax.lax.while_loop(lambda samples: ~jnp.all(samples.ended), extend, samples).hypotheses
    num_sampled = hypotheses.tokens.lengths - prefilled.prefix.lengths[:, None]
    return hypotheses._replace(scores=hypotheses.scores / num_sampled.astype(jnp.float32))


def _draw(
    keys: Key[Array, " B"],
    limits: GenerationLimits,
    logits_processors: tuple[LogitsProcessor, ...],
    samples: Samples,
    next_tokens: NextTokens,
) -> Samples:
    """Sample one more token for every answer that has not ended."""
    shaped = process_logits(logits_processors, samples.hypotheses.tokens, next_tokens.log_probs)
    step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, samples.step)
    token = jax.vmap(jax.random.categorical)(step_keys, shaped).astype(jnp.int32)
    parent = jnp.broadcast_to(jnp.arange(token.shape[1])[None, :], token.shape)
    chosen = jnp.take_along_axis(next_tokens.log_probs, token[:, :, None], axis=2)[:, :, 0]
    is_possible = jnp.max(shaped, axis=2) > -jnp.inf  # where everything is banned, there is no answer
    scores = jnp.where(is_possible, samples.hypotheses.scores + chosen, -jnp.inf)
    extended = append(samples.hypotheses, next_tokens, parent, token, scores)
    hypotheses = _where(samples.ended, samples.hypotheses, extended)
    ended = (last_tokens(hypotheses.tokens) == limits.eos) | (hypotheses.tokens.lengths >= limits.max_length)
    ended |= ~hypotheses.exists
    return Samples(hypotheses, samples.ended | ended, samples.step + 1, samples.state)


def _repeat(next_tokens: NextTokens, width: int) -> NextTokens:
    """The first tokens' log-probabilities, once for each of `width` answers."""
    return NextTokens(
        jnp.repeat(next_tokens.log_probs, width, axis=1), jnp.repeat(next_tokens.doc_log_probs, width, axis=2)
    )


def _where(condition: Bool[Array, "B W"], one: Hypotheses, other: Hypotheses) -> Hypotheses:
    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(*condition.shape, *(1,) * (a.ndim - 2)), a, b)

    return jax.tree.map(choose, one, other)
