"""Contrastive losses of a bi-encoder: each question's positive passage against the other passages of the batch.

Column i of the scores `[B, M]` is the positive of question i, the columns after the first B are hard negatives. A loss
is one number per question, in nats unless it is `margin_mse`. Its mean over the batch is what torch's `cross_entropy`
returns by default.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from rag_jax.core.vectors import FULL_PRECISION


@runtime_checkable
class ContrastiveObjective(Protocol):
    """The loss of each question, from the vectors of a batch; see `rag_jax.types.ContrastiveBatch`."""

    def __call__(
        self,
        questions: Float[Array, "B D"],
        passages: Float[Array, "M D"],
        candidates: Bool[Array, "B M"],
        log_q: Float[Array, " M"] | None = None,
        teacher: Float[Array, "B own"] | None = None,
    ) -> Float[Array, " B"]: ...


def objective(
    temperature: float = 1.0,
    symmetric: bool = False,
    widths: Sequence[int] = (),
    vector_norm: float | None = None,
    margin_mse_share: float = 0.0,
) -> ContrastiveObjective:
    """Compose an objective of `contrastive_loss` or `symmetric_loss`; with `widths`, the mean over them.

    With `margin_mse_share` a, the loss is (1 - a) times that, plus a times `margin_mse` of a question's scores of its
    own passages, divided by the temperature too. Then the objective raises `ValueError` for a batch without `teacher`.

    Args:
        widths: see `matryoshka`; empty: vectors as they are.
        vector_norm: norm of the towers' vectors, to which cut ones are rescaled; None: they are not normalised.
    """
    loss = symmetric_loss if symmetric else contrastive_loss

    def whole(
        questions: Float[Array, "B D"],
        passages: Float[Array, "M D"],
        candidates: Bool[Array, "B M"],
        log_q: Float[Array, " M"] | None = None,
        teacher: Float[Array, "B own"] | None = None,
    ) -> Float[Array, " B"]:
        scored = scores(questions, passages, temperature)
        if not margin_mse_share:
            return loss(scored, candidates, log_q)
        if teacher is None:
            raise ValueError("a batch without a teacher's scores has no Margin-MSE; give them, or a share of 0")
        distilled = margin_mse(own_scores(scored), teacher, jnp.isfinite(teacher))
        return (1 - margin_mse_share) * loss(scored, candidates, log_q) + margin_mse_share * distilled

    if not widths:
        return whole
    return matryoshka(whole, widths, [1 / len(widths)] * len(widths), vector_norm)


def scores(
    questions: Float[Array, "B D"], passages: Float[Array, "M D"], temperature: float = 1.0
) -> Float32[Array, "B M"]:
    """`q(x) . d(z) / temperature` of every question and passage, in float32."""
    products = jnp.einsum(
        "BD,MD->BM", questions, passages, preferred_element_type=jnp.float32, precision=FULL_PRECISION
    )
    return products / temperature


def own_scores(scores: Float[Array, "B M"]) -> Float[Array, "B own"]:
    """Each question's scores of its own passages: its positive, then its M / B - 1 hard negatives."""
    size, columns = scores.shape
    hard = columns // size - 1
    at = size + jnp.arange(size * hard).reshape(size, hard)
    return jnp.concatenate([jnp.diagonal(scores)[:, None], jnp.take_along_axis(scores, at, axis=1)], axis=1)


def contrastive_loss(
    scores: Float[Array, "B M"], candidates: Bool[Array, "B M"], log_q: Float[Array, " M"] | None = None
) -> Float[Array, " B"]:
    """DPR's loss (Karpukhin et al. 2020, equation 2), over the candidates j of question i:

        -log exp(s_ii) / sum_j exp(s_ij)

    With `log_q`, s_ij - log q_j replaces s_ij (Yi et al. 2019, "Sampling-bias-corrected neural modeling"; the sampled
    softmax of Bengio & Senecal 2008). Passages that are often in a batch are negatives too often: without the
    correction the best score is log p(z|x) - log q(z), not log p(z|x). The positive is corrected like the others, as in
    Yi et al., TensorFlow Recommenders and TensorFlow's `sampled_softmax_loss`: of some candidates, all but one of them
    drawn from q, the probability that j is the one drawn from p(z|x) is proportional to p(j|x) / q_j, for every j. Only
    the differences of `log_q` count.

    The positive is always a candidate.
    """
    corrected = scores if log_q is None else scores - log_q[None, :]
    normaliser = jax.nn.logsumexp(corrected, axis=1, where=candidates | _is_positive(scores))
    return normaliser - jnp.diagonal(corrected)


def symmetric_loss(
    scores: Float[Array, "B M"], candidates: Bool[Array, "B M"], log_q: Float[Array, " M"] | None = None
) -> Float[Array, " B"]:
    """The mean of two losses: of each positive among the passages, and of each question among the questions.

        (-log exp(s_ii) / sum_j exp(s_ij) - log exp(s_ii) / sum_k exp(s_ki)) / 2

    k are the questions of which passage i is a candidate. (CLIP, Radford et al. 2021; with hard negatives in the first
    direction only, sentence-transformers' MultipleNegativesSymmetricRankingLoss.) The questions are drawn evenly, so
    that `log_q` corrects the first direction only.
    """
    num_questions = scores.shape[0]
    positives = slice(None), slice(num_questions)
    backward = contrastive_loss(scores[positives].T, candidates[positives].T)
    return (contrastive_loss(scores, candidates, log_q) + backward) / 2


def matryoshka(
    objective: ContrastiveObjective,
    widths: Sequence[int],
    weights: Sequence[float],
    vector_norm: float | None = None,
) -> ContrastiveObjective:
    """The objective of vectors that can be cut (Kusupati et al. 2022, equation 1): sum_m w_m L(f[:m]).

    `widths` and `weights` are the m and the w_m. If the towers' vectors have norm `vector_norm`, the cut ones are
    rescaled to it. The objective raises `ValueError` for a width that the vectors do not have.
    """

    def nested(
        questions: Float[Array, "B D"],
        passages: Float[Array, "M D"],
        candidates: Bool[Array, "B M"],
        log_q: Float[Array, " M"] | None = None,
        teacher: Float[Array, "B own"] | None = None,
    ) -> Float[Array, " B"]:
        total = jnp.zeros(questions.shape[0])
        for width, weight in zip(widths, weights, strict=True):
            cut = _cut(questions, width, vector_norm), _cut(passages, width, vector_norm)
            total += weight * objective(*cut, candidates, log_q, teacher)
        return total

    return nested


def margin_mse(
    scores: Float[Array, "B passages"], teacher: Float[Array, "B passages"], valid: Bool[Array, "B passages"]
) -> Float[Array, " B"]:
    """Margin-MSE (Hofstaetter et al. 2020), the mean over the negatives j of each question:

        ((s_0 - s_j) - (t_0 - t_j))^2

    `scores` s and the `teacher`'s t, such as a cross-encoder's, are of the positive in column 0 and of negatives.
    Passages that are not `valid` count for nothing; without a positive or any negative the loss is 0.
    """
    margins = (scores[:, :1] - scores[:, 1:]) - (teacher[:, :1] - teacher[:, 1:])
    exists = valid[:, :1] & valid[:, 1:]
    squares = jnp.square(jnp.where(exists, margins, 0.0))
    return jnp.sum(squares, axis=1) / jnp.maximum(jnp.sum(exists, axis=1), 1).astype(squares.dtype)


def accuracy(scores: Float[Array, "B M"], candidates: Bool[Array, "B M"]) -> Float32[Array, ""]:
    """The fraction of questions whose positive scores higher than every other candidate; a tie is a miss."""
    others = jnp.where(candidates & ~_is_positive(scores), scores, -jnp.inf)
    return jnp.mean((jnp.diagonal(scores) > jnp.max(others, axis=1)).astype(jnp.float32))


def _is_positive(scores: Float[Array, "B M"]) -> Bool[Array, "B M"]:
    return jnp.eye(*scores.shape, dtype=bool)


def _cut(vectors: Float[Array, "R D"], width: int, vector_norm: float | None) -> Float[Array, "R m"]:
    """The first `width` values, rescaled to `vector_norm`; the zero vector stays zero."""
    if not 1 <= width <= vectors.shape[1]:
        raise ValueError(f"vectors of width {vectors.shape[1]} cannot be cut to width {width}")
    first = vectors[:, :width]
    if vector_norm is None:
        return first
    first = first.astype(jnp.float32)
    squared = jnp.sum(jnp.square(first), axis=1, keepdims=True)
    return vector_norm * first * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))
