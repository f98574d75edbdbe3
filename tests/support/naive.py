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
NextLogProbs = Callable[[Tokens], np.ndarray]  # the same, as logarithms
Scored = tuple[float, Tokens]


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


def beam_search(
    next_log_probs: NextLogProbs,
    eos: int,
    length: int,
    num_beams: int,
    length_penalty: float,
    early_stopping: bool | str | None,
) -> list[Scored]:
    """One question, as transformers searches: its finished answers with log p / length ** length_penalty, best first.

    Of all extensions of the running answers by one token the best 2W are looked at. Those among the first W of them
    that end (with the end token, or at full length) are finished; of the others the first W run on. The W best finished
    ones are kept. Among equals the earlier comes first: the extensions of a better answer, smaller tokens, older ends.
    """
    running: list[Scored] = [(0.0, [])]
    finished: list[Scored] = []
    for written in range(1, length + 1):
        candidates = []
        for score, tokens in running:
            for token, log_prob in enumerate(next_log_probs(tokens)):
                if log_prob > -math.inf:
                    candidates.append((score + float(log_prob), [*tokens, token]))
        candidates = best(candidates, 2 * num_beams)
        running = []
        for rank, (score, tokens) in enumerate(candidates):
            if tokens[-1] != eos and written < length:
                running.append((score, tokens))
            elif rank < num_beams:
                finished.append((score / written**length_penalty, tokens))
        running, finished = running[:num_beams], best(finished, num_beams)
        if search_is_over(running, finished, written, length, num_beams, length_penalty, early_stopping):
            break
    return finished


def search_is_over(
    running: list[Scored],
    finished: list[Scored],
    written: int,
    length: int,
    num_beams: int,
    length_penalty: float,
    early_stopping: bool | str | None,
) -> bool:
    """True: with W finished answers. False: when the best running one, were it to end now, would not be better than the
    worst of them. "never": when it would not at full length either, if length is rewarded. None: when none runs."""
    if not running or early_stopping is None or len(finished) < num_beams:
        return not running
    if early_stopping is True or num_beams == 1:
        return True
    hoped_for = length if early_stopping == "never" and length_penalty > 0 else written
    return running[0][0] / hoped_for**length_penalty <= finished[-1][0]


def best(answers: list[Scored], count: int) -> list[Scored]:
    return sorted(answers, key=lambda answer: -answer[0])[:count]


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


def tempered(probs: Sequence[float], temperature: float) -> np.ndarray:
    """p ** (1 / temperature), as a distribution."""
    weights = [p ** (1 / temperature) for p in probs]
    return np.array([weight / sum(weights) for weight in weights])


def only(probs: Sequence[float], kept: Sequence[int]) -> np.ndarray:
    """The tokens that are kept, as a distribution."""
    total = sum(probs[token] for token in kept)
    return np.array([p / total if token in kept else 0.0 for token, p in enumerate(probs)])


def most_probable(probs: Sequence[float], k: int) -> list[int]:
    """k tokens."""
    return sorted(range(len(probs)), key=lambda token: -probs[token])[:k]


def nucleus(probs: Sequence[float], p: float) -> list[int]:
    """The fewest most probable tokens that together have probability p."""
    k = 1
    while k < len(probs) and sum(probs[token] for token in most_probable(probs, k)) < p:
        k += 1
    return most_probable(probs, k)


def likely_enough(probs: Sequence[float], p: float) -> list[int]:
    """The tokens with p times the largest probability, at least."""
    return [token for token in range(len(probs)) if probs[token] >= p * max(probs)]
