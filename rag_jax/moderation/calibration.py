"""Calibration of label likelihoods: how the log-likelihoods of the labels become probabilities.

    p(c|x) = softmax_c(scale log p(c|x) + bias_c)

A language model prefers some labels whatever the text is, because they are shorter or more common. The bias takes that
away: measured on a text without content (Zhao et al. 2021, contextual calibration), or fitted to labelled texts with
the scale (Guo et al. 2017, temperature scaling; with a bias, Alexandari et al. 2020).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

from rag_jax.errors import InputError

CONTENT_FREE = ("N/A", "[MASK]", "…")  # texts without content; their mean is taken, as by Zhao et al.
LARGEST_SCALE, LARGEST_BIAS = 100.0, 50.0  # for labels that the scores tell apart without an error; bias in nats


@dataclass(frozen=True)
class Calibration:
    """How log-likelihoods become probabilities; without a bias they are normalised over the labels, and no more."""

    scale: float = 1.0
    bias: tuple[float, ...] | None = None  # of each label, the acceptable one first

    def __post_init__(self) -> None:
        values = np.array([self.scale, *(self.bias or ())])
        if not np.isfinite(values).all() or self.scale <= 0:
            found = f"scale {self.scale} and bias {self.bias}"
            raise InputError(f"calibration: {found}; give finite numbers, the scale above 0")

    def __call__(self, log_likelihoods: Float[np.ndarray, "B C"]) -> Float[np.ndarray, "B C"]:
        """`p(c|x)` of log-likelihoods `log p(c|x)`."""
        bias = 0.0 if self.bias is None else np.asarray(self.bias)
        return special.softmax(self.scale * np.asarray(log_likelihoods, np.float64) + bias, axis=1)


def content_free(log_likelihoods: Float[np.ndarray, "N C"]) -> Calibration:
    """The calibration by which texts without content, of these log-likelihoods, are as likely in every category."""
    mean = special.softmax(np.asarray(log_likelihoods, np.float64), axis=1).mean(axis=0)
    return Calibration(1.0, tuple((-np.log(mean)).tolist()))


def fit(log_likelihoods: Float[np.ndarray, "B C"], labels: Int[np.ndarray, " B"]) -> Calibration:
    """Scale and bias of the greatest likelihood on labelled texts, `labels` counted from 0.

    Raises `InputError` where a category has no text, whose bias would be without bound, and where the labels do not
    follow the scores at all.
    """
    scores = np.asarray(log_likelihoods, np.float64)
    if not np.isfinite(scores).all():
        raise InputError("calibration: a text has a label of probability 0; look into the model, or leave the text out")
    classes = scores.shape[1]
    if missing := sorted(set(range(classes)) - set(np.asarray(labels).tolist())):
        raise InputError(f"calibration: category number {missing[0] + 1} of {classes} has no text; give one of each")

    def loss(values: Float[np.ndarray, " C+1"]) -> tuple[float, Float[np.ndarray, " C+1"]]:
        logits = values[0] * scores + values[1:]
        log_probs = logits - special.logsumexp(logits, axis=1, keepdims=True)
        slope = np.exp(log_probs)
        slope[np.arange(len(labels)), labels] -= 1
        gradient = np.concatenate([[np.mean(np.sum(slope * scores, axis=1))], np.mean(slope, axis=0)])
        return -float(np.mean(log_probs[np.arange(len(labels)), labels])), gradient

    # The bias of the first label is 0: only differences count.
    bounds = [(0.0, LARGEST_SCALE), (0.0, 0.0), *[(-LARGEST_BIAS, LARGEST_BIAS)] * (classes - 1)]
    found = optimize.minimize(loss, np.array([1.0, *[0.0] * classes]), jac=True, method="L-BFGS-B", bounds=bounds)
    if found.x[0] <= 0:
        raise InputError("calibration: the labels do not follow the model's scores; train it, or leave calibration out")
    return Calibration(float(found.x[0]), tuple(found.x[1:].tolist()))
