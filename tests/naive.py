"""The paper's formulas written as plainly as possible: float64 numpy, probabilities instead of logarithms, loops.

The tests' expected values come from here. `prior` is p(z|x) as [B, K], `probs` is p(v | x, z, y_<t) as [B, K, T, V].
Nothing is vectorised over questions, passages or tokens, and nothing is shared with the library.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Tokens = list[int]
NextProbs = Callable[[Tokens], np.ndarray]  # the tokens so far -> the next one's probabilities [V]


class Problem(NamedTuple):
    """A random marginalisation: B questions, K passages, T target tokens, V words, as float32."""

    scores: np.ndarray  # [B, K]
    valid: np.ndarray  # [B, K], at least one passage in each row
    logits: np.ndarray  # [B, K, T, V]
    targets: np.ndarray  # [B, T]
    mask: np.ndarray  # [B, T], right-padded, at least one token in each row


def problem(seed: int, shape: tuple[int, int, int, int]) -> Problem:
    """Scores are multiples of 1/64, so that adding an integer to them is exact in float32."""
    B, K, T, V = shape
    draw = np.random.default_rng(seed)
    valid = draw.random((B, K)) < 0.7
    valid[np.arange(B), draw.integers(0, K, B)] = True
    return Problem(
        scores=(draw.integers(-256, 256, (B, K)) / 64).astype(np.float32),
        valid=valid,
        logits=(2 * draw.standard_normal((B, K, T, V))).astype(np.float32),
        targets=draw.integers(0, V, (B, T)).astype(np.int32),
        mask=np.arange(T)[None, :] < draw.integers(1, T + 1, (B, 1)),
    )


def softmax(values: Sequence[float]) -> np.ndarray:
    weights = [math.exp(float(value) - float(max(values))) for value in values]
    return np.array([weight / sum(weights) for weight in weights])


def doc_prior(scores: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """p(z|x): a softmax over the passages that exist; zero for those that do not."""
    prior = np.zeros(scores.shape)
    for b in range(scores.shape[0]):
        existing = [k for k in range(scores.shape[1]) if valid is None or valid[b, k]]
        prior[b, existing] = softmax(scores[b, existing])
    return prior


def probabilities(logits: np.ndarray) -> np.ndarray:
    """p(v | x, z, y_<t) from the generator's logits."""
    probs = np.zeros(logits.shape)
    for place in np.ndindex(logits.shape[:-1]):
        probs[place] = softmax(logits[place])
    return probs


def seq2seq(probs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """log prod_t p(y_t | x, z, y_<t) for one passage: probs [B, T, V]."""
    B, T, _ = probs.shape
    return np.array([math.log(math.prod(probs[b, t, targets[b, t]] for t in range(T) if mask[b, t])) for b in range(B)])


def rag_token(prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """log prod_t sum_z p(z|x) p(y_t | x, z, y_<t)."""
    B, K, T, _ = probs.shape
    log_probs = np.zeros(B)
    for b in range(B):
        product = 1.0
        for t in range(T):
            if mask[b, t]:
                product *= sum(prior[b, k] * probs[b, k, t, targets[b, t]] for k in range(K))
        log_probs[b] = math.log(product)
    return log_probs


def sequence_joint(prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """p(z|x) prod_t p(y_t | x, z, y_<t) as [B, K]."""
    B, K, T, _ = probs.shape
    joint = np.zeros((B, K))
    for b in range(B):
        for k in range(K):
            joint[b, k] = prior[b, k]
            for t in range(T):
                if mask[b, t]:
                    joint[b, k] *= probs[b, k, t, targets[b, t]]
    return joint


def rag_sequence(prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """log sum_z p(z|x) prod_t p(y_t | x, z, y_<t)."""
    return np.array([math.log(sum(row)) for row in sequence_joint(prior, probs, targets, mask)])


def token_posterior(prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """p(z | x, y_t, y_<t) by Bayes's rule as [B, K, T]; zero on padding."""
    B, K, T, _ = probs.shape
    posterior = np.zeros((B, K, T))
    for b in range(B):
        for t in range(T):
            if mask[b, t]:
                joint = np.array([prior[b, k] * probs[b, k, t, targets[b, t]] for k in range(K)])
                posterior[b, :, t] = joint / sum(joint)
    return posterior


def sequence_posterior(prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """p(z | x, y) by Bayes's rule as [B, K]."""
    return np.array([row / sum(row) for row in sequence_joint(prior, probs, targets, mask)])


def rag_token_loss(
    prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray, smoothing: float
) -> np.ndarray:
    """(1 - eps) (-log p(y|x)) + eps / V sum_t sum_v -log sum_z p(z|x) p(v | x, z, y_<t)."""
    B, K, T, V = probs.shape
    losses = -(1 - smoothing) * rag_token(prior, probs, targets, mask)
    for b in range(B):
        for t in range(T):
            for v in range(V):
                if mask[b, t]:
                    losses[b] -= smoothing / V * math.log(sum(prior[b, k] * probs[b, k, t, v] for k in range(K)))
    return losses


def rag_sequence_loss(
    prior: np.ndarray, probs: np.ndarray, targets: np.ndarray, mask: np.ndarray, smoothing: float
) -> np.ndarray:
    """(1 - eps) (-log p(y|x)) + eps / V (-log sum_z p(z|x) prod_t prod_v p(v | x, z, y_<t))."""
    B, K, T, V = probs.shape
    losses = -(1 - smoothing) * rag_sequence(prior, probs, targets, mask)
    for b in range(B):
        total = 0.0
        for k in range(K):
            total += prior[b, k] * math.prod(probs[b, k, t, v] for t in range(T) for v in range(V) if mask[b, t])
        losses[b] -= smoothing / V * math.log(total)
    return losses


def top_k(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[list[list[float]], list[list[int]]]:
    """Sort every inner product; among equal ones the smallest id comes first; (-inf, -1) where passages run out."""
    scores, ids = [], []
    for query in queries.astype(np.float64):
        found = [float(query @ vector) for vector in vectors.astype(np.float64)]
        best = sorted(range(len(found)), key=lambda n: (-found[n], n))[:k]
        missing = k - len(best)
        scores.append([found[n] for n in best] + [-math.inf] * missing)
        ids.append(best + [-1] * missing)
    return scores, ids


def assemble(passage: Tokens, prompt: Tokens, size: int) -> Tokens:
    """The pair, of which the passage gives way."""
    return passage[: size - len(prompt)] + prompt


def until_end(tokens: Tokens, eos: int) -> Tokens:
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


def greedy(next_probs: NextProbs, prefix: Sequence[int], eos: int, length: int) -> Tokens:
    """The most probable token at each step, from scratch each time, up to and including the end token."""
    written: Tokens = []
    while len(written) < length and eos not in written:
        written.append(int(np.argmax(next_probs([*prefix, *written]))))
    return written


def rag_token_greedy(
    prior: np.ndarray, next_probs: Sequence[NextProbs], prefix: Sequence[int], eos: int, length: int
) -> Tokens:
    """One question: at each step the token of the largest sum_z p(z|x) p(y_t | x, z, y_<t)."""

    def marginal(tokens: Tokens) -> np.ndarray:
        return sum(p * probs(tokens) for p, probs in zip(prior, next_probs, strict=True))

    return greedy(marginal, prefix, eos, length)


def rag_sequence_greedy(
    prior: np.ndarray, next_probs: Sequence[NextProbs], prefix: Sequence[int], eos: int, length: int
) -> Tokens:
    """One question: of the greedy answers of the passages that exist, the likeliest under all of them."""
    existing = [probs for p, probs in zip(prior, next_probs, strict=True) if p > 0]
    proposals = [greedy(probs, prefix, eos, length) for probs in existing]

    def likelihood(answer: Tokens) -> float:
        total = 0.0
        for p, each in zip(prior, teacher_forced(next_probs, answer, prefix), strict=True):
            total += p * math.prod(each[t, token] for t, token in enumerate(answer))
        return total

    return max(proposals, key=likelihood)


def teacher_forced(next_probs: Sequence[NextProbs], answer: Tokens, prefix: Sequence[int]) -> np.ndarray:
    """p(v | x, z, y_<t) along one answer, as [K, T, V]."""
    return np.array([[probs([*prefix, *answer[:t]]) for t in range(len(answer))] for probs in next_probs])
