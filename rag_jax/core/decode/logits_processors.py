"""Logits processors: constraints for any search, and the filters that shape a distribution for sampling.

Each function makes a `LogitsProcessor`, which maps the log-probabilities `[B, W, V]` of the next token to changed ones,
given the tokens generated so far. They are applied in order, a forced token last. Nothing is renormalised: a beam's
score is a sum of the model's own log-probabilities, in which a forced token counts zero.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.decode.search import LogitsProcessor
from rag_jax.types import Tokens

LogProbs = Float[Array, "B W V"]


def min_length(length: int, eos: int) -> LogitsProcessor:
    """No end token before the answer would have `length` tokens with it."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        too_early = generated.lengths + 1 < length
        return jnp.where(too_early[:, :, None] & _only(eos, log_probs), -jnp.inf, log_probs)

    return processor


def forced_bos(token: int) -> LogitsProcessor:
    """The answer's first token (transformers: `forced_bos_token_id`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        return _force(generated.lengths == 0, token, log_probs)

    return processor


def forced_eos(max_length: int, eos: int) -> LogitsProcessor:
    """The end token, where the answer has room for one token only (transformers: `forced_eos_token_id`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        return _force(generated.lengths == max_length - 1, eos, log_probs)

    return processor


def no_repeat_ngram(n: int) -> LogitsProcessor:
    """No n tokens that the answer already has in this order (transformers: `no_repeat_ngram_size`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        starts = jnp.arange(max(0, generated.ids.shape[2] - n + 1))
        repeats = _same_as_the_last(n - 1, generated, starts)
        repeats &= (starts + n)[None, None, :] <= generated.lengths[:, :, None]
        return _ban(log_probs, generated.ids[:, :, n - 1 :], repeats)

    return processor


def bad_words(words: Sequence[Sequence[int]]) -> LogitsProcessor:
    """None of the given token sequences (transformers: `bad_words_ids`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        for word in words:
            begun = generated.lengths >= len(word) - 1
            for back, token in enumerate(reversed(word[:-1]), start=1):
                begun &= _token_before(back, generated) == token
            log_probs = jnp.where(begun[:, :, None] & _only(word[-1], log_probs), -jnp.inf, log_probs)
        return log_probs

    return processor


def temperature(value: float) -> LogitsProcessor:
    """Sharper below 1, flatter above: `p ** (1 / value)`."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        return log_probs / value

    return processor


def top_k(k: int) -> LogitsProcessor:
    """Only the k most probable tokens."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        least = jax.lax.top_k(log_probs, min(k, log_probs.shape[2]))[0][:, :, -1:]
        return jnp.where(log_probs < least, -jnp.inf, log_probs)

    return processor


def top_p(p: float) -> LogitsProcessor:
    """Only the most probable tokens that together have probability p at least (Holtzman et al. 2020), one at least."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        probs = jax.nn.softmax(log_probs, axis=2)
        ranked = jnp.sort(probs, axis=2)  # the least first: nothing small is lost in the sum
        reaches = jnp.cumsum(ranked, axis=2) > 1 - p  # without this token and all before it, p is not reached
        least = jnp.min(jnp.where(reaches, ranked, ranked[:, :, -1:]), axis=2, keepdims=True)
        return jnp.where(probs < least, -jnp.inf, log_probs)

    return processor


def min_p(p: float) -> LogitsProcessor:
    """Only tokens with at least p times the probability of the most probable one (Nguyen et al. 2024)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        least = jnp.max(log_probs, axis=2, keepdims=True) + jnp.log(jnp.float32(p))
        return jnp.where(log_probs < least, -jnp.inf, log_probs)

    return processor


def _only(token: int, log_probs: LogProbs) -> Bool[Array, "1 1 V"]:
    return (jnp.arange(log_probs.shape[2]) == token)[None, None, :]


def _force(now: Bool[Array, "B W"], token: int, log_probs: LogProbs) -> LogProbs:
    return jnp.where(now[:, :, None], jnp.where(_only(token, log_probs), 0.0, -jnp.inf), log_probs)


def _token_before(back: int, generated: Tokens) -> Int[Array, "B W"]:
    """The token `back` places before the next one; where the answer is shorter, any."""
    return jnp.take_along_axis(generated.ids, jnp.maximum(generated.lengths - back, 0)[:, :, None], axis=2)[:, :, 0]


def _same_as_the_last(count: int, generated: Tokens, starts: Int[Array, " starts"]) -> Bool[Array, "B W starts"]:
    """Whether the `count` tokens from each start on are the last `count` ones."""
    same = jnp.ones((*generated.lengths.shape, starts.shape[0]), bool)
    for i in range(count):
        same &= generated.ids[:, :, i : i + starts.shape[0]] == _token_before(count - i, generated)[:, :, None]
    return same & (generated.lengths >= count)[:, :, None]


def _ban(log_probs: LogProbs, tokens: Int[Array, "B W many"], banned: Bool[Array, "B W many"]) -> LogProbs:
    cost = jnp.where(banned, -jnp.inf, jnp.inf)
    b, w = jnp.indices(log_probs.shape[:2])
    return log_probs.at[b[:, :, None], w[:, :, None], tokens].min(cost)
