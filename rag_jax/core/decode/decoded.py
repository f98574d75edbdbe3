"""Decoded answers with their likelihoods and posteriors, and the protocols of what makes them."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core.decode.search import take
from rag_jax.core.decode.tree_cache import EncodedInputs
from rag_jax.types import Tokens


class Decoded(NamedTuple):
    """The best answers to each question, best first, padded with the end token."""

    tokens: Int[Array, "B C T"]
    mask: Bool[Array, "B C T"]  # the answer's tokens, its end token included; all False where there is no answer
    exists: Bool[Array, "B C"]  # False where fewer than C answers were found
    log_prob: Float[Array, "B C"]  # log p(y|x) under the model that decoded it
    score: Float[Array, "B C"]  # length-normalised: the search's own (RAG-Token), log_prob per token (RAG-Sequence)
    doc_posterior: Float[Array, "B C K"]  # RAG-Sequence: p(z|x,y); RAG-Token: the mean over tokens
    token_doc_posterior: Float[Array, "B C K T"]  # RAG-Token: p(z|x,y_t,y_<t); RAG-Sequence: p(z|x,y) at each token


@runtime_checkable
class Decoder(Protocol):
    """Decode from encoded inputs, the prior over their passages, and the tokens that the answers begin with."""

    def __call__(self, inputs: EncodedInputs, doc_log_prior: Array, prefix: Tokens) -> Decoded: ...


@runtime_checkable
class Marginalise(Protocol):
    """Likelihood and posteriors of answers, from their tokens' log-probabilities under each passage."""

    def __call__(
        self,
        doc_log_prior: Float[Array, "B K"],
        answers: Tokens,
        exists: Bool[Array, "B C"],
        target_log_probs: Float[Array, "B C K T"],
    ) -> Decoded: ...


def decoded(
    answers: Tokens,
    exists: Bool[Array, "B C"],
    log_prob: Float[Array, "B C"],
    token_doc_posterior: Float[Array, "B C K T"],
) -> Decoded:
    """Answers `[B, C, T]` with the quantities that follow from likelihood and posteriors; -inf where none exists."""
    mask = existing(answers, exists)
    length = jnp.maximum(jnp.sum(mask, axis=2), 1).astype(jnp.float32)
    log_prob = jnp.where(exists, log_prob, -jnp.inf)
    doc_posterior = jnp.sum(token_doc_posterior, axis=3) / length[:, :, None]
    return Decoded(answers.ids, mask, exists, log_prob, log_prob / length, doc_posterior, token_doc_posterior)


def existing(answers: Tokens, exists: Bool[Array, "B C"]) -> Bool[Array, "B C T"]:
    """The mask of the answers' tokens, False throughout where an answer does not exist."""
    return answers.mask & exists[:, :, None]


def per_answer(function: Callable) -> Callable:
    """A likelihood or posterior of one answer per question, for C of them."""
    return jax.vmap(function, in_axes=(None, 1, 1), out_axes=1)


def best(decoded: Decoded, count: int) -> Decoded:
    """The `count` most probable answers to each question, best first."""
    return take(decoded, jax.lax.top_k(decoded.log_prob, count)[1])
