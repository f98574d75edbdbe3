"""Scores of generated text against gold texts: ROUGE-L, BLEU-1, and how repetitive the generations are.

ROUGE-L and BLEU-1 are in 0 to 1, and NaN where no gold text has a word: they do not apply to a question whose right
answer is none.
"""

import functools
import math
import unicodedata
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import Statistic
from rag_jax.evaluation.metrics.answers import spaced_tokens


def rouge_l(prediction: str, answers: Iterable[str]) -> float:
    """ROUGE-L (Lin 2004) by the package rouge-score, without stemming: maximum over the gold answers.

        F = 2 P R / (P + R),  P = LCS / words of the prediction,  R = LCS / words of the answer

    LCS is the length of the longest common subsequence of words, which ignore case. In ASCII text they are the
    package's own, runs of letters and digits; the package drops all other letters, which are kept here.

    >>> rouge_l("the cat sat", ["the cat on the mat sat"])  # LCS 3, P = 1, R = 1/2
    0.6666666666666666
    """
    gold = [answer for answer in answers if _words(answer)]
    if not gold:
        return math.nan
    return float(_rouge_scorer().score_multi(gold, prediction)["rougeL"].fmeasure)


def bleu_1(prediction: str, answers: Iterable[str]) -> float:
    """BLEU-1 (Papineni et al. 2002) of one text by sacrebleu, ignoring case, with its tokens ("13a"), not smoothed.

    See `bleu_1_of_counts`: c is the number of tokens of the prediction, of which `matches` occur in an answer, each at
    most as often as in the answer that has it most often; r is the number of tokens of the answer closest in length.

    >>> bleu_1("the the cat", ["The cat"])  # one "the" counts
    0.6666666666666666
    """
    counts = _unigram_counts(prediction, answers)
    return bleu_1_of_counts(*counts) if any(counts) else math.nan


def corpus_bleu_1(predictions: Sequence[str], answers: Sequence[Iterable[str]]) -> Statistic:
    """BLEU-1 of a whole set, as a statistic of the questions with given numbers: counts are summed over the questions.

    It is not the mean of the questions' own BLEU-1. Questions without a gold text do not count.

    Args:
        predictions: the generated text of each question.
        answers: the gold texts of each question.

    Raises `InputError` for other than one prediction per question.
    """
    if len(predictions) != len(answers):
        raise InputError(f"{len(predictions)} predictions for {len(answers)} questions; give one per question")
    rows = [_unigram_counts(prediction, gold) for prediction, gold in zip(predictions, answers, strict=True)]
    counts = np.reshape(np.array(rows, np.int64), (-1, 3))
    return lambda numbers: bleu_1_of_counts(*counts[numbers].sum(0).tolist())


def bleu_1_of_counts(matches: int, length: int, reference: int) -> float:
    """BLEU-1 = min(1, exp(1 - r / c)) · matches / c, where c is `length` and r is `reference`; 0 without matches."""
    return min(1.0, math.exp(1 - reference / length)) * matches / length if matches else 0.0


def distinct_ngrams(texts: Iterable[str], n: int = 3) -> float:
    """The number of different n-grams over the number of all n-grams of all texts; NaN if no text has n tokens.

    This is the measure of diversity in table 5 of Lewis et al. 2020, with n = 3. Tokens are those of `has_answer`. It
    falls with the number of texts: compare only figures of equally many. It has no bootstrap interval, since a text
    that is drawn twice adds no new n-gram.

    Raises `InputError` for n < 1.

    >>> distinct_ngrams(["this city is the capital", "this city is a port"])  # "this city is" occurs twice
    0.8333333333333334
    """
    if n < 1:
        raise InputError(f"{n}-grams are not defined; ask for n = 1 or more")
    tokens = [spaced_tokens(text).split() for text in texts]
    ngrams = [tuple(row[start : start + n]) for row in tokens for start in range(len(row) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else math.nan


def _words(text: str) -> list[str]:
    """The tokens of `has_answer` that are words: runs of letters, digits and marks."""
    return [token for token in spaced_tokens(text).split() if unicodedata.category(token[0])[0] in "LNM"]


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=SimpleNamespace(tokenize=_words))


@functools.cache
def _sacrebleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(lowercase=True, max_ngram_order=1, effective_order=True, smooth_method="none")


def _unigram_counts(prediction: str, answers: Iterable[str]) -> tuple[int, int, int]:
    """The matches, the tokens of the prediction, and those of the closest answer; zeros without a gold text."""
    gold = [answer for answer in answers if answer.strip()]
    if not gold:
        return 0, 0, 0
    score = _sacrebleu().sentence_score(prediction, gold)
    return score.counts[0], score.sys_len, score.ref_len
