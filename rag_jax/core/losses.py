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

    Label smoothing needs the marginal over the whole vocabulary: a float32 `[B, T, V]`, beside the logits.
    """
    log_probs = likelihood.target_log_probs(logits, targets)
    loss = -likelihood.rag_token(doc_log_prior, log_probs, mask)
    if not label_smoothing:
        return loss
    uniform = -jnp.sum(jnp.where(mask, sum_of_log_marginals(doc_log_prior, logits), 0.0), axis=1)
    return (1 - label_smoothing) * loss + label_smoothing / logits.shape[3] * uniform


@jax.custom_vjp
def sum_of_log_marginals(doc_log_prior: Float[Array, "B K"], logits: Float[Array, "B K T V"]) -> Float[Array, "B T"]:
    """RAG-Token's log marginals of all words of the vocabulary, summed: how far a distribution is from uniform.

        sum_v log sum_z p(z|x) p(v | x, z, y_<t)

    With m_v the marginal of v, r_zv = p(z|x) p_zv / m_v its posterior over the passages and R_z = sum_v r_zv, the
    derivatives are r_zv - p_zv R_z by a logit and R_z by a log prior. They are computed from the logits and m, so no
    float32 `[B, K, T, V]` is stored where logits are bfloat16.
    """
    return _sum_of_log_marginals(doc_log_prior, logits)[0]


def _sum_of_log_marginals(doc_log_prior: Float[Array, "B K"], logits: Float[Array, "B K T V"]):
    normaliser = jax.nn.logsumexp(logits.astype(jnp.float32), axis=3)
    log_marginal = likelihood.log_sum_exp(_joint(doc_log_prior, logits, normaliser))
    return jnp.sum(log_marginal, axis=2), (doc_log_prior, logits, normaliser, log_marginal)


def _sum_of_log_marginals_gradient(residuals, gradient: Float[Array, "B T"]):
    doc_log_prior, logits, normaliser, log_marginal = residuals
    known = jnp.where(jnp.isneginf(log_marginal), 0.0, log_marginal)[:, None]  # -inf: no passage, no gradient
    posterior = jnp.exp(_joint(doc_log_prior, logits, normaliser) - known)
    total = jnp.sum(posterior, axis=3)
    probabilities = jnp.exp(logits.astype(jnp.float32) - normaliser[..., None])
    by_logits = gradient[:, None, :, None] * (posterior - probabilities * total[..., None])
    return jnp.sum(gradient[:, None] * total, axis=2), by_logits.astype(logits.dtype)


def _joint(doc_log_prior: Array, logits: Array, normaliser: Array) -> Float[Array, "B K T V"]:
    """`log p(v, z | x, y_<t)`."""
    return (doc_log_prior[:, :, None] - normaliser)[..., None] + logits.astype(jnp.float32)


sum_of_log_marginals.defvjp(_sum_of_log_marginals, _sum_of_log_marginals_gradient)


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
