"""Distillation from the reader: the retriever learns which of its passages helped to predict the answer.

With s the scores of the K retrieved passages, tau and T the temperatures of the retriever and of the teacher, and sg
the stop-gradient, an objective compares

    p_R(z) = softmax_z(s(z) / tau)

with what the reader's pass over the target y says of each passage. Only p_R has a gradient. In a training step the
distillation trains the retriever, and the model's own objective, whose prior is then a constant, the generator.

An objective returns one loss per question, of which a step takes the mean. (Atlas' code uses torch's `KLDivLoss()`,
which divides by K too: its gradients are K times smaller.) Passages that do not exist, whose prior is -inf, have no
mass and no gradient. One passage alone has no gradient either, and a question without any a loss of 0.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rag_jax.core import likelihood


class ReaderSignals(NamedTuple):
    """What the reader says of each passage, as constants."""

    target_log_probs: Float[Array, "B K T"]  # log p(y_t | x, z, y_<t), of each passage read by itself
    mask: Bool[Array, "B T"]  # False on padding
    attention: Float[Array, "B K"] | None = None  # `attention.attention_mass`; None: passages are not read together

    @property
    def lengths(self) -> Float[Array, "B 1"]:
        """Tokens of each target, at least 1."""
        return jnp.maximum(jnp.sum(self.mask, axis=1, keepdims=True), 1).astype(jnp.float32)

    @property
    def sequence_log_probs(self) -> Float[Array, "B K"]:
        """log p(y | x, z)."""
        return jnp.sum(jnp.where(self.mask[:, None, :], self.target_log_probs, 0.0), axis=2)


@runtime_checkable
class Distillation(Protocol):
    """The loss of each question, from the prior `log p(z|x)` and the reader's signals; scores serve as well."""

    def __call__(self, doc_log_prior: Float[Array, "B K"], signals: ReaderSignals, /) -> Float[Array, " B"]: ...


def emdr2(
    doc_log_prior: Float[Array, "B K"], signals: ReaderSignals, *, temperature: float = 1.0
) -> Float[Array, " B"]:
    """The retriever's part of EMDR2 (Singh et al. 2021; Atlas, Izacard et al. 2022, section 2.2):

        -log sum_z p_R(z) sg p(y | x, z)

    This is RAG-Sequence's loss with the reader stopped, as both papers state it. Atlas' code marginalises at every
    token and takes the mean over them: RAG-Token's loss with the reader stopped.
    """
    joint = _log_retriever(doc_log_prior, temperature) + jax.lax.stop_gradient(signals.sequence_log_probs)
    total = likelihood.log_sum_exp(joint)
    return -jnp.where(jnp.isneginf(total), 0.0, total)


def pdist(
    doc_log_prior: Float[Array, "B K"],
    signals: ReaderSignals,
    *,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Float[Array, " B"]:
    """Perplexity distillation (Atlas, section 2.2):

        KL(sg softmax_z(1/T' sum_t log p(y_t | x, z, y_<t) / T) || p_R),    T' target tokens

    The mean over the tokens is that of Atlas' code; the paper's equation has their sum.
    """
    judgement = signals.sequence_log_probs / signals.lengths
    return _towards(judgement, doc_log_prior, temperature, teacher_temperature)


def loop(
    doc_log_prior: Float[Array, "B K"],
    signals: ReaderSignals,
    *,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Float[Array, " B"]:
    """Leave-one-out perplexity distillation (Atlas, section 2.2): a passage helps as far as the answer needs it.

        KL(sg softmax_z(-1/T' log p(y | x, Z without z) / T) || p_R)
        p(y | x, Z without z) = sum_{z' != z} p(z'|x) p(y | x, z') / sum_{z' != z} p(z'|x)

    Atlas reads K times with Fusion-in-Decoder, each time without one passage. This is RAG-Sequence's marginal over the
    K - 1 others, as if z had not been retrieved, for which one pass is enough.
    """
    judgement = -_log_prob_without_each(jax.lax.stop_gradient(doc_log_prior), signals) / signals.lengths
    return _towards(judgement, doc_log_prior, temperature, teacher_temperature)


def adist(
    doc_log_prior: Float[Array, "B K"],
    signals: ReaderSignals,
    *,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Float[Array, " B"]:
    """Attention distillation, with a(z) the share of the decoder's cross-attention (`rag_jax.core.attention`):

        KL(sg a^(1/T) / sum_z a(z)^(1/T) || p_R)

    FiD-KD (Izacard & Grave 2021) and Atlas apply a softmax to scores averaged before the attention's softmax, Atlas'
    with the norms of the values; a(z) is a distribution as it is. Both divide s by sqrt(D), here a part of tau.

    Raises `ValueError` for signals without attention.
    """
    if signals.attention is None:
        raise ValueError("these signals hold no attention, which a decoder over all passages has")
    judgement = jnp.log(jax.lax.stop_gradient(signals.attention))
    return _towards(judgement, doc_log_prior, temperature, teacher_temperature)


def lsr(
    doc_log_prior: Float[Array, "B K"],
    signals: ReaderSignals,
    *,
    temperature: float = 1.0,
    teacher_temperature: float = 1.0,
) -> Float[Array, " B"]:
    """LM-supervised retrieval (REPLUG, Shi et al. 2023, section 4), with T the paper's beta:

        KL(p_R || sg softmax_z(log p(y | x, z) / T))

    The paper's equation has the probability itself in the exponent. With its logarithm, and T = 1, the teacher is the
    posterior under a uniform prior.
    """
    teacher = _log_teacher(signals.sequence_log_probs, doc_log_prior, teacher_temperature)
    return _kl(_log_retriever(doc_log_prior, temperature), teacher)


def _towards(
    judgement: Float[Array, "B K"], doc_log_prior: Float[Array, "B K"], temperature: float, teacher_temperature: float
) -> Float[Array, " B"]:
    """KL(sg softmax_z(judgement / T) || p_R)."""
    return _kl(_log_teacher(judgement, doc_log_prior, teacher_temperature), _log_retriever(doc_log_prior, temperature))


def _log_retriever(doc_log_prior: Float[Array, "B K"], temperature: float) -> Float[Array, "B K"]:
    """log p_R: the softmax of log p(z|x) / tau is that of s / tau."""
    return likelihood.doc_log_prior(doc_log_prior / temperature)


def _log_teacher(
    judgement: Float[Array, "B K"], doc_log_prior: Float[Array, "B K"], temperature: float
) -> Float[Array, "B K"]:
    """log softmax_z(judgement / T) over the passages that exist, a constant."""
    exists = ~jnp.isneginf(doc_log_prior)
    return jax.lax.stop_gradient(likelihood.doc_log_prior(judgement / temperature, exists))


def _log_prob_without_each(doc_log_prior: Float[Array, "B K"], signals: ReaderSignals) -> Float[Array, "B K"]:
    """log p(y | x, Z without z); 0 where no other passage exists."""
    is_left_out = jnp.eye(doc_log_prior.shape[1], dtype=bool)[None, :, :]

    def sum_of_others(log_values: Float[Array, "B K"]) -> Float[Array, "B K"]:
        return jax.nn.logsumexp(jnp.where(is_left_out, -jnp.inf, log_values[:, None, :]), axis=2)

    others = sum_of_others(doc_log_prior)
    joint = sum_of_others(doc_log_prior + signals.sequence_log_probs)
    return jnp.where(jnp.isneginf(others), 0.0, joint - others)


def _kl(log_p: Float[Array, "B K"], log_q: Float[Array, "B K"]) -> Float[Array, " B"]:
    """KL(p || q) = sum_z p(z) (log p(z) - log q(z)), without the passages that have no mass in p."""
    log_ratio = jnp.where(jnp.isneginf(log_p), 0.0, log_p - log_q)
    return jnp.sum(jnp.exp(log_p) * log_ratio, axis=1)
