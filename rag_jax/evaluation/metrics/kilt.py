"""KILT's scores (Petroni et al. 2021): an answer counts only where its evidence was ranked first.

Evidence is a set of documents; a question may have several sets, any one of which suffices. The definitions are those
of KILT's evaluation scripts (`eval_downstream.py`, `eval_retrieval.py` in facebookresearch/KILT), with two exceptions.
A question without evidence, which the scripts count as 0, has no score here (NaN), and empty sets are left out. Answers
are normalised by `rag_jax.evaluation.metrics`, which differs from SQuAD's rule only next to combining accents.
"""

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.kilt_guesses import Guess
from rag_jax.evaluation.metrics.answers import exact_match, f1, normalize_answer

DEPTH = 5  # k of KILT's recall
ANSWER_SCORES = ("accuracy", "exact_match", "f1", "rouge_l")

Evidence = Iterable[Sequence[str]]  # sets of documents by id


def kilt_scores(guesses: Iterable[Guess], questions: Sequence[Question]) -> dict[str, Float[np.ndarray, " B"]]:
    """KILT's retrieval scores, and its combined scores: of the answer where R-precision is 1, otherwise 0.

    Returns:
        The scores `r_precision`, `evidence_recall@5`, `kilt_accuracy`, `kilt_exact_match`, `kilt_f1` and `kilt_rouge_l`
        of each question, in the order of `questions`; NaN without evidence, combined scores also without a gold answer.

    Raises `InputError` where guesses and questions do not have the same ids.
    """
    pairs = zip(_in_order(guesses, questions), questions, strict=True)
    rows = [_kilt_scores(guess, question) for guess, question in pairs]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def answer_scores(answer: str, gold: Iterable[str]) -> dict[str, float]:
    """The scores of an answer by itself, maximum over the gold answers: KILT's "downstream" scores.

    `accuracy`: equal as it stands. `exact_match`, `f1`: normalised; F1 is 0 for an answer that normalises to nothing,
    as in SQuAD 1.1. `rouge_l`: F of the package `rouge`, which compares sets of words. An empty answer scores 0.
    NaN without a gold answer.
    """
    answer = answer.strip()
    gold = [each for each in map(str.strip, gold) if each]
    if not gold or not answer:
        return dict.fromkeys(ANSWER_SCORES, 0.0 if gold else math.nan)
    return {
        "accuracy": float(answer in gold),
        "exact_match": float(exact_match(answer, gold)),
        "f1": f1(answer, gold) if normalize_answer(answer) else 0.0,
        "rouge_l": max(_rouge_l(answer, each) for each in gold),
    }


def r_precision(documents: Iterable[str], evidence: Evidence) -> float:
    """The fraction of the first R documents that are in an evidence set of R documents; maximum over the sets.

    NaN without evidence.

    >>> r_precision(["1", "7", "2"], [["1", "2"], ["3"]])
    0.5
    """
    ranked = _each_once(documents)
    return max((len(gold.intersection(ranked[: len(gold)])) / len(gold) for gold in _sets(evidence)), default=math.nan)


def evidence_recall(documents: Iterable[str], evidence: Evidence, k: int = DEPTH) -> float:
    """The fraction of evidence sets that are complete among the first k places, each set taking one place.

    The place of a set is that of its last document found; sets with the same one keep their order. Documents of no set
    take a place each. So a set of two documents can be complete at k = 1. NaN without evidence.

    >>> evidence_recall(["1", "2", "7", "4"], [["1", "2"], ["3", "4"]], k=1)
    0.5
    """
    ranked, sets = _each_once(documents), _sets(evidence)
    if k < 1:
        raise InputError(f"recall at {k} is not defined; ask for k = 1 or more")
    if not sets:
        return math.nan
    last = [max((place for place, document in enumerate(ranked) if document in gold), default=-1) for gold in sets]
    places = []  # whether each is a complete set
    for place, document in enumerate(ranked):
        if not any(document in gold for gold in sets):
            places.append(False)
        places += [gold.issubset(ranked) for gold, end in zip(sets, last, strict=True) if end == place]
    return sum(places[:k]) / len(sets)


def _kilt_scores(guess: Guess, question: Question) -> dict[str, float]:
    precision = r_precision(guess.documents, question.evidence)
    recall = evidence_recall(guess.documents, question.evidence)
    weight = math.nan if math.isnan(precision) else float(precision == 1)
    answer = answer_scores(guess.answer, question.answers)
    return {"r_precision": precision, f"evidence_recall@{DEPTH}": recall} | {
        f"kilt_{name}": weight * score for name, score in answer.items()
    }


def _in_order(guesses: Iterable[Guess], questions: Sequence[Question]) -> list[Guess]:
    """One guess for each question."""
    if not questions:
        raise InputError("no questions to score; give one at least")
    by_id: dict[str, Guess] = {}
    for guess in guesses:
        if by_id.setdefault(guess.id, guess) is not guess:
            raise InputError(f"two guesses for question {guess.id!r}; give one guess for every question")
    for question in questions:
        if question.id not in by_id:
            raise InputError(f"no guess for question {question.id!r}; give one guess for every question")
    known = {question.id for question in questions}
    for id in by_id:
        if id not in known:
            raise InputError(f"there is no question {id!r}, but a guess for it; give the questions that were asked")
    return [by_id[question.id] for question in questions]


def _each_once(documents: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(documents))


def _sets(evidence: Evidence) -> list[set[str]]:
    """The distinct sets that are not empty, in their order."""
    return [set(gold) for gold in dict.fromkeys(map(frozenset, evidence)) if gold]


def _rouge_l(answer: str, gold: str) -> float:
    from rouge import Rouge

    scorer: Any = Rouge(metrics=["rouge-l"], stats=["f"])
    with _recursion_limit(len(answer.split()) + len(gold.split())):
        try:
            return scorer.get_scores(answer, gold)[0]["rouge-l"]["f"]
        except ValueError:  # full stops only
            return 0.0


@contextlib.contextmanager
def _recursion_limit(more: int) -> Iterator[None]:
    """Allow deeper recursion: the package `rouge` calls itself once for each word."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + more)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
