"""Training objectives: the negative marginal log-likelihoods, with label smoothing.

A loss maps the prior over passages and the generator's logits to one number per question. The training step takes any
function of this signature as its objective.
"""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rag_jax.core import likelihood


@runtime_checkable
class Objective(Protocol):
    """The loss of each question, from the prior `log p(z|x)` and the generator's logits under each passage."""

    def __call__(
        self,
        doc_log_prior: Float[Array, "B K"],
        logits: Float[Array, "B K T V"],
        targets: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, " B"]: ...


def rag_token_loss(
    doc_log_prior: Float[Array, "B K"],
    logits: Float[Array, "B K T V"],
    targets: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " B"]:
    """`-log p(y|x)` of RAG-Token, with label smoothing eps:

        (1 - eps) (-log p(y|x)) + eps / V sum_t sum_v -log sum_z p(z|x) p(v | x, z, y_<t)

    Label smoothing needs the marginal over the whole vocabulary, a float32 `[B, K, T, V]`.
    """
    log_probs = likelihood.target_log_probs(logits, targets)
    loss = -likelihood.rag_token(doc_log_prior, log_probs, mask)
    if not label_smoothing:
        return loss
    batch, k, _, vocabulary = logits.shape
    every = jax.nn.log_softmax(logits.astype(jnp.float32), axis=3).reshape(batch, k, -1)
    uniform = -likelihood.rag_token(doc_log_prior, every, jnp.repeat(mask, vocabulary, axis=1))
    return (1 - label_smoothing) * loss + label_smoothing / vocabulary * uniform


def rag_sequence_loss(
    doc_log_prior: Float[Array, "B K"],
    logits: Float[Array, "B K T V"],
    targets: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " B"]:
    """`-log p(y|x)` of RAG-Sequence, with label smoothing eps:

        (1 - eps) (-log p(y|x)) + eps / V (-log sum_z p(z|x) exp(sum_t sum_v log p(v | x, z, y_<t)))

    The smoothing term is that of the reference implementation with one correction: the prior counts once per sequence,
    not V times.
    """
    log_probs = likelihood.target_log_probs(logits, targets)
    loss = -likelihood.rag_sequence(doc_log_prior, log_probs, mask)
    if not label_smoothing:
        return loss
    vocabulary = logits.shape[3]
    per_token = jnp.sum(logits.astype(jnp.float32), axis=3)
    per_token -= vocabulary * jax.nn.logsumexp(logits.astype(jnp.float32), axis=3)
    uniform = -likelihood.rag_sequence(doc_log_prior, per_token, mask)
    return (1 - label_smoothing) * loss + label_smoothing / vocabulary * uniform
