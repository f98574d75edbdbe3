"""The two marginal likelihoods of retrieval-augmented generation (Lewis et al. 2020, section 2.1).

With `p(z|x)` the prior over the K retrieved passages and `p(y_t | x, z, y_<t)` the generator,

    RAG-Sequence:  p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t)
    RAG-Token:     p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t)

All functions compute in float32 log space, whatever the networks' dtype: bfloat16 rounds inner products near 75 so much
that the differences between passages, which determine the prior, are lost. `mask` is False on padding, `valid` on
missing passages; these have a prior of -inf and a gradient of zero, never NaN.
"""

from functools import reduce
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@runtime_checkable
class Likelihood(Protocol):
    """`log p(y|x)` of each target: `rag_token` or `rag_sequence`."""

    def __call__(
        self,
        doc_log_prior: Float[Array, "B K"],
        target_log_probs: Float[Array, "B K T"],
        mask: Bool[Array, "B T"],
        /,
    ) -> Float[Array, " B"]: ...


def doc_log_prior(scores: Float[Array, "B K"], valid: Bool[Array, "B K"] | None = None) -> Float[Array, "B K"]:
    """The prior over the retrieved passages, `log p(z|x)`, in float32 (section 2.2):

        p(z|x) = exp(d(z).q(x)) / sum_{z' in top-K} exp(d(z').q(x))

    `valid` is False for missing passages (default: all are valid). They get -inf and no gradient; a row without any
    valid passage is -inf throughout.

    >>> import jax.numpy as jnp
    >>> jnp.exp(doc_log_prior(jnp.log(jnp.array([[3.0, 1.0]])))).round(2)
    Array([[0.75, 0.25]], dtype=float32)
    """
    scores = scores.astype(jnp.float32)
    if valid is not None:
        scores = jnp.where(valid, scores, -jnp.inf)
    total = log_sum_exp(scores)[:, None]
    return jnp.where(jnp.isneginf(scores), -jnp.inf, scores - jnp.where(jnp.isneginf(total), 0.0, total))


@jax.custom_vjp
def target_log_probs(logits: Float[Array, "B K T V"], targets: Int[Array, "B T"]) -> Float[Array, "B K T"]:
    """The generator's log-probability of each target token under each passage, `log p(y_t | x, z, y_<t)`, in float32.

    Gathers the target's logit and subtracts the normaliser. The backward pass recomputes the probabilities from the
    logits and the normaliser, so no float32 `[B, K, T, V]` is stored where logits are bfloat16.
    """
    return _target_log_probs(logits, targets)[0]


def _target_log_probs(logits: Float[Array, "B K T V"], targets: Int[Array, "B T"]):
    target_logits = jnp.take_along_axis(logits, targets[:, None, :, None], axis=3)[..., 0]
    normaliser = jax.nn.logsumexp(logits.astype(jnp.float32), axis=3)
    return target_logits.astype(jnp.float32) - normaliser, (logits, targets, normaliser)


def _target_log_probs_gradient(residuals, gradient: Float[Array, "B K T"]) -> tuple[Float[Array, "B K T V"], None]:
    logits, targets, normaliser = residuals
    token = jax.lax.broadcasted_iota(targets.dtype, logits.shape, 3)
    one_hot = (token == targets[:, None, :, None]).astype(jnp.float32)
    probabilities = jnp.exp(logits.astype(jnp.float32) - normaliser[..., None])
    return (gradient[..., None] * (one_hot - probabilities)).astype(logits.dtype), None


target_log_probs.defvjp(_target_log_probs, _target_log_probs_gradient)


def marginal(doc_log_prior: Float[Array, "B K"], log_probs: Float[Array, "B K *rest"]) -> Float[Array, " B *rest"]:
    """RAG-Token's mixture of the passages, over any trailing axes.

    log sum_z p(z|x) p(v | x, z, ...)
    """
    prior = doc_log_prior.reshape(*doc_log_prior.shape, *(1,) * (log_probs.ndim - 2))
    return log_sum_exp(prior + log_probs)


def rag_token(
    doc_log_prior: Float[Array, "B K"], target_log_probs: Float[Array, "B K T"], mask: Bool[Array, "B T"]
) -> Float[Array, " B"]:
    """`log p(y|x)` of RAG-Token: passages are marginalised at every token.

    p(y|x) = prod_t sum_z p(z|x) p(y_t | x, z, y_<t)
    """
    per_token = marginal(doc_log_prior, target_log_probs)
    return jnp.sum(jnp.where(mask, per_token, 0.0), axis=1)


def rag_sequence(
    doc_log_prior: Float[Array, "B K"], target_log_probs: Float[Array, "B K T"], mask: Bool[Array, "B T"]
) -> Float[Array, " B"]:
    """`log p(y|x)` of RAG-Sequence: passages are marginalised once for the whole target.

    p(y|x) = sum_z p(z|x) prod_t p(y_t | x, z, y_<t)
    """
    return log_sum_exp(_sequence_joint(doc_log_prior, target_log_probs, mask))


def token_doc_posterior(
    doc_log_prior: Float[Array, "B K"], target_log_probs: Float[Array, "B K T"], mask: Bool[Array, "B T"]
) -> Float[Array, "B K T"]:
    """RAG-Token's posterior over the passages for each target token (the paper's figure 2); zero on padding.

    p(z | x, y_t, y_<t) = p(z|x) p(y_t | x, z, y_<t) / sum_z' p(z'|x) p(y_t | x, z', y_<t)
    """
    joint = doc_log_prior[:, :, None] + target_log_probs
    return jnp.where(mask[:, None, :], _normalise(joint), 0.0)


def sequence_doc_posterior(
    doc_log_prior: Float[Array, "B K"], target_log_probs: Float[Array, "B K T"], mask: Bool[Array, "B T"]
) -> Float[Array, "B K"]:
    """RAG-Sequence's posterior over the passages given the whole target.

    p(z | x, y) = p(z|x) p(y | x, z) / sum_z' p(z'|x) p(y | x, z')
    """
    return _normalise(_sequence_joint(doc_log_prior, target_log_probs, mask))


def _sequence_joint(
    doc_log_prior: Float[Array, "B K"], target_log_probs: Float[Array, "B K T"], mask: Bool[Array, "B T"]
) -> Float[Array, "B K"]:
    """`log p(y, z | x)`, in which the prior counts once per sequence."""
    return doc_log_prior + jnp.sum(jnp.where(mask[:, None, :], target_log_probs, 0.0), axis=2)


def _normalise(joint: Float[Array, "B K *T"]) -> Float[Array, "B K *T"]:
    """Probabilities along the passages; all zero where every passage has -inf."""
    total = log_sum_exp(joint)
    return jnp.exp(joint - jnp.expand_dims(jnp.where(jnp.isneginf(total), 0.0, total), 1))


def log_sum_exp(joint: Float[Array, "B K *rest"]) -> Float[Array, " B *rest"]:
    """`log sum_z exp`; where every passage has -inf its value is -inf and its gradient zero, not NaN.

    The sum is unrolled: XLA fuses the terms into one pass over the vocabulary, while a reduction over the middle axis
    takes four times as long on a CPU.
    """
    passages = [joint[:, k] for k in range(joint.shape[1])]
    peak = jax.lax.stop_gradient(reduce(jnp.maximum, passages))
    empty = jnp.isneginf(peak)
    peak = jnp.where(empty, 0.0, peak)
    total = sum((jnp.exp(passage - peak) for passage in passages), start=jnp.zeros_like(peak))
    return jnp.where(empty, -jnp.inf, peak + jnp.log(jnp.where(empty, 1.0, total)))
