"""Logits processors: constraints for any search, and filters that shape the distribution for sampling.

Each function returns a `LogitsProcessor`, which changes the log-probabilities `[B, W, V]` of the next token given the
tokens generated so far. Processors are applied in order, a forced token last. Nothing is renormalised: a beam's score
is a sum of the model's own log-probabilities, in which a forced token counts zero.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.decode.search import LogitsProcessor
from rag_jax.types import Tokens

LogProbs = Float[Array, "B W V"]


def min_length(length: int, eos: int) -> LogitsProcessor:
    """Ban the end token until the answer, end token included, has `length` tokens (transformers: `min_length`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        too_early = generated.lengths + 1 < length
        return jnp.where(too_early[:, :, None] & _only(eos, log_probs), -jnp.inf, log_probs)

    return processor


def forced_bos(token: int) -> LogitsProcessor:
    """Force the answer's first token (transformers: `forced_bos_token_id`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        return _force(generated.lengths == 0, token, log_probs)

    return processor


def forced_eos(max_length: int, eos: int) -> LogitsProcessor:
    """Force the end token at the last position (transformers: `forced_eos_token_id`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        return _force(generated.lengths == max_length - 1, eos, log_probs)

    return processor


def no_repeat_ngram(n: int) -> LogitsProcessor:
    """Ban tokens that would repeat an n-gram of the answer (transformers: `no_repeat_ngram_size`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        if n > generated.ids.shape[2]:
            return log_probs
        starts = jnp.arange(generated.ids.shape[2] - n + 1)
        repeats = _matches_suffix(n - 1, generated, starts)
        repeats &= (starts + n)[None, None, :] <= generated.lengths[:, :, None]
        return _ban(log_probs, generated.ids[:, :, n - 1 :], repeats)

    return processor


def bad_words(words: Sequence[Sequence[int]]) -> LogitsProcessor:
    """Ban the given token sequences (transformers: `bad_words_ids`)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        for word in words:
            matches = generated.lengths >= len(word) - 1
            for back, token in enumerate(reversed(word[:-1]), start=1):
                matches &= _token_before(back, generated) == token
            log_probs = jnp.where(matches[:, :, None] & _only(word[-1], log_probs), -jnp.inf, log_probs)
        return log_probs

    return processor


def temperature(value: float) -> LogitsProcessor:
    """Divide log-probabilities by `value`: sharper below 1, flatter above."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        return log_probs / value

    return processor


def top_k(k: int) -> LogitsProcessor:
    """Keep the k most probable tokens."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        least = jax.lax.top_k(log_probs, min(k, log_probs.shape[2]))[0][:, :, -1:]
        return jnp.where(log_probs < least, -jnp.inf, log_probs)

    return processor


def top_p(p: float) -> LogitsProcessor:
    """Keep the fewest most probable tokens whose probabilities sum to at least p (Holtzman et al. 2020)."""

    def processor(generated: Tokens, log_probs: LogProbs) -> LogProbs:
        del generated
        probs = jax.nn.softmax(log_probs, axis=2)
        ranked = jnp.sort(probs, axis=2)  # ascending, so that small terms are not lost in the sum
        needed = jnp.cumsum(ranked, axis=2) > 1 - p  # without this token and those before it, the sum is below p
        least = jnp.min(jnp.where(needed, ranked, ranked[:, :, -1:]), axis=2, keepdims=True)
        return jnp.where(probs < least, -jnp.inf, log_probs)

    return processor


def min_p(p: float) -> LogitsProcessor:
    """Keep tokens with at least p times the probability of the most probable one (Nguyen et al. 2024)."""

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
    """The token `back` positions before the next one; undefined where the answer is shorter."""
    return jnp.take_along_axis(generated.ids, jnp.maximum(generated.lengths - back, 0)[:, :, None], axis=2)[:, :, 0]


def _matches_suffix(count: int, generated: Tokens, starts: Int[Array, " starts"]) -> Bool[Array, "B W starts"]:
    """Whether the `count` tokens from each start equal the last `count` tokens."""
    same = jnp.ones((*generated.lengths.shape, starts.shape[0]), bool)
    for i in range(count):
        same &= generated.ids[:, :, i : i + starts.shape[0]] == _token_before(count - i, generated)[:, :, None]
    return same & (generated.lengths >= count)[:, :, None]


def _ban(log_probs: LogProbs, tokens: Int[Array, "B W many"], banned: Bool[Array, "B W many"]) -> LogProbs:
    cost = jnp.where(banned, -jnp.inf, jnp.inf)
    b, w = jnp.indices(log_probs.shape[:2])
    return log_probs.at[b[:, :, None], w[:, :, None], tokens].min(cost)
