"""Sampling from a language model: W independent answers to each question, by explicit keys."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from rag_jax.core.decode.search import Hypotheses, LanguageModel, Limits, Next, Rule, append, apply, first, newest


class Samples(NamedTuple):
    """Answers being drawn."""

    drawn: Hypotheses
    ended: Bool[Array, "B W"]
    step: Int[Array, ""]
    state: Any


def sample(
    model: LanguageModel,
    limits: Limits,
    *,
    keys: Key[Array, " B"],
    num_samples: int,
    rules: tuple[Rule, ...] = (),
) -> Hypotheses:
    """`num_samples` answers to each question in the order drawn, with the mean log-probability of their tokens.

    `keys` are consumed, one per question: what a question draws does not depend on those beside it. The rules shape the
    distribution (`rules.temperature`, `rules.top_p`, ...); the scores are the model's own, before them.
    """
    start = model.begin(num_samples)
    draw = partial(_draw, keys, limits, rules)
    nothing = first(start, num_samples)
    every = jnp.broadcast_to(jnp.arange(num_samples)[None, :], nothing.scores.shape)
    samples = Samples(nothing, jnp.zeros(nothing.scores.shape, bool), jnp.int32(0), start.state)
    samples = draw(samples, _repeat(start.next, num_samples))

    def extend(samples: Samples) -> Samples:
        following, state = model.step(newest(samples.drawn.tokens), every, samples.state)
        return draw(samples._replace(state=state), following)

    drawn = jax.lax.while_loop(lambda samples: ~jnp.all(samples.ended), extend, samples).drawn
    found = drawn.tokens.lengths - start.given.lengths[:, None]
    return drawn._replace(scores=drawn.scores / found.astype(jnp.float32))


def _draw(
    keys: Key[Array, " B"], limits: Limits, rules: tuple[Rule, ...], samples: Samples, following: Next
) -> Samples:
    """One token more for every answer that has not ended."""
    shaped = apply(rules, samples.drawn.tokens, following.log_probs)
    now = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, samples.step)
    token = jax.vmap(jax.random.categorical)(now, shaped).astype(jnp.int32)
    every = jnp.broadcast_to(jnp.arange(token.shape[1])[None, :], token.shape)
    chosen = jnp.take_along_axis(following.log_probs, token[:, :, None], axis=2)[:, :, 0]
    longer = append(samples.drawn, following, every, token, samples.drawn.scores + chosen)
    drawn = _where(samples.ended, samples.drawn, longer)
    ended = (newest(drawn.tokens) == limits.eos) | (drawn.tokens.lengths >= limits.max_length)
    return Samples(drawn, samples.ended | ended, samples.step + 1, samples.state)


def _repeat(following: Next, width: int) -> Next:
    """The same for each of `width` answers that have not parted yet."""
    return Next(jnp.repeat(following.log_probs, width, axis=1), jnp.repeat(following.evidence, width, axis=2))


def _where(condition: Bool[Array, "B W"], one: Hypotheses, other: Hypotheses) -> Hypotheses:
    def choose(a: Array, b: Array) -> Array:
        return jnp.where(condition.reshape(*condition.shape, *(1,) * (a.ndim - 2)), a, b)

    return jax.tree.map(choose, one, other)
