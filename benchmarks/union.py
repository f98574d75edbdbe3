"""RAG-Sequence's choice among the answers that the passages of one question propose, in plain loops.

For an opponent that searches each passage but knows nothing of retrieval.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Answer = tuple[int, ...]
Scores = dict[Answer, dict[int, float]]  # log p(y|x,z) of each answer, by the number of the passage


def union(proposals: Sequence[Mapping[Answer, float]]) -> Scores:
    """Every answer that any passage proposes, in the order of the passages, with what its proposers give it."""
    scores: Scores = {}
    for passage, proposed in enumerate(proposals):
        for answer, log_prob in proposed.items():
            scores.setdefault(answer, {})[passage] = log_prob
    return scores


def missing(scores: Scores, passages: int) -> list[tuple[Answer, int]]:
    """The answers and the passages that did not propose them: what thorough decoding asks for, and fast does not."""
    return [(answer, z) for answer, known in scores.items() for z in range(passages) if z not in known]


def best(doc_log_prior: np.ndarray, scores: Scores) -> tuple[Answer, float]:
    """The answer with the greatest log p(y|x), and that. A passage without a score gives an answer no probability."""
    log_probs = {
        answer: float(np.logaddexp.reduce([doc_log_prior[z] + log_prob for z, log_prob in known.items()]))
        for answer, known in scores.items()
    }
    return max(log_probs.items(), key=lambda each: each[1])
