"""The field's evaluation scripts, restated as plain loops: SQuAD 1.1 and 2.0, DPR and KILT.

Scores are fractions, where some of the scripts print percentages. Nothing is shared with the library; KILT's ROUGE-L is
the package `rouge`'s.
"""

import re
import string
import unicodedata
from collections.abc import Callable, Sequence

from rouge import Rouge

Metric = Callable[[str, str], float]  # (prediction, gold answer)
Answers = Sequence[Sequence[str]]  # of each question; empty: unanswerable


def normalize(text: str) -> str:
    """Lower case, without punctuation and articles: evaluate-v1.1.py."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact(prediction: str, gold: str) -> float:
    return float(normalize(prediction) == normalize(gold))


def f1(prediction: str, gold: str) -> float:
    """SQuAD 1.1's and KILT's: 0 without a common word, so also if nothing is left of either."""
    predicted, wanted = normalize(prediction).split(), normalize(gold).split()
    common = sum(min(predicted.count(word), wanted.count(word)) for word in set(predicted))
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def f1_with_no_answer(prediction: str, gold: str) -> float:
    """SQuAD 2.0's: 1 if nothing is left of both."""
    return exact(prediction, gold) if not normalize(prediction) or not normalize(gold) else f1(prediction, gold)


def best(metric: Metric, prediction: str, golds: Sequence[str]) -> float:
    return max(metric(prediction, gold) for gold in golds)


def squad1(predictions: Sequence[str], answers: Answers) -> tuple[float, float]:
    """(exact match, F1) of evaluate-v1.1.py."""
    total = len(predictions)
    return tuple(
        sum(best(metric, *pair) for pair in zip(predictions, answers, strict=True)) / total for metric in (exact, f1)
    )


def squad2(predictions: Sequence[str], answers: Answers, metric: Metric) -> list[float]:
    """The score of each question by evaluate-v2.0.py; `metric` is `exact` or `f1_with_no_answer`."""
    scores = []
    for prediction, golds in zip(predictions, answers, strict=True):
        golds = [gold for gold in golds if normalize(gold)]
        scores.append(best(metric, prediction, golds or [""]))
    return scores


def squad2_abstaining(
    scores: Sequence[float], no_answer: Sequence[float], answers: Answers, threshold: float
) -> list[float]:
    """The scores if questions are left unanswered whose probability to have no answer is above the threshold."""
    triples = zip(scores, no_answer, answers, strict=True)
    return [float(not golds) if probability > threshold else score for score, probability, golds in triples]


def squad2_best_threshold(
    predictions: Sequence[str], scores: Sequence[float], no_answer: Sequence[float], answers: Answers
) -> tuple[float, float]:
    """(the best mean score, the threshold that reaches it) of evaluate-v2.0.py."""
    score = sum(1 for golds in answers if not golds)
    highest, threshold = score, 0.0
    for number in sorted(range(len(scores)), key=lambda number: no_answer[number]):
        if answers[number]:
            score += scores[number]
        elif predictions[number]:
            score -= 1
        if score > highest:
            highest, threshold = score, no_answer[number]
    return highest / len(scores), threshold


def dpr_tokens(text: str) -> list[str]:
    """DPR's SimpleTokenizer: runs of letters, digits and marks, or single other characters that can be seen."""
    tokens, in_word = [], False
    for character in unicodedata.normalize("NFD", text):
        kind = unicodedata.category(character)[0]
        if kind in "LNM" and in_word:
            tokens[-1] += character
        elif kind not in "ZC":
            tokens.append(character)
        in_word = kind in "LNM"
    return [token.lower() for token in tokens]


def dpr_has_answer(text: str, golds: Sequence[str]) -> bool:
    words = dpr_tokens(text)
    for gold in map(dpr_tokens, golds):
        for start in range(len(words) - len(gold) + 1):
            if words[start : start + len(gold)] == gold:
                return True
    return False


def dpr_top_k(texts: Sequence[Sequence[str]], answers: Answers, depth: int) -> list[float]:
    """The accuracy at k = 1 … depth: questions of which one of the first k passages has an answer."""
    hits = [0] * depth
    for ranked, golds in zip(texts, answers, strict=True):
        first = next((rank for rank, text in enumerate(ranked) if dpr_has_answer(text, golds)), depth)
        for rank in range(first, depth):
            hits[rank] += 1
    return [count / len(texts) for count in hits]


def kilt_r_precision(ranked: Sequence[str], evidence: Sequence[Sequence[str]]) -> float:
    """eval_retrieval.py: the best over the evidence sets, 0 without any."""
    pages = list(dict.fromkeys(ranked))
    scores = [0.0]
    for gold in map(set, evidence):
        scores.append(sum(page in gold for page in pages[: len(gold)]) / len(gold))
    return max(scores)


def kilt_recall(ranked: Sequence[str], evidence: Sequence[Sequence[str]], k: int) -> float:
    """eval_retrieval.py: a set moves down the ranking with each of its pages, and counts when it has all of them."""
    missing: list[set[str]] = []
    for gold in map(set, evidence):
        if gold not in missing:
            missing.append(gold)
    if not missing:
        return 0.0
    ranking: list[tuple[int, bool]] = []  # (the set, whether it is complete); -1: no set
    for page in dict.fromkeys(ranked):
        holding = [number for number, gold in enumerate(missing) if page in gold]
        for number in holding:
            if (number, False) in ranking:
                ranking.remove((number, False))
            missing[number].remove(page)
            ranking.append((number, not missing[number]))
        if not holding:
            ranking.append((-1, False))
    return sum(complete for _, complete in ranking[:k]) / len(missing)


def kilt_rouge_l(prediction: str, gold: str) -> float:
    try:
        return Rouge().get_scores(prediction, gold, avg=True)["rouge-l"]["f"]
    except ValueError:
        return 0.0


KILT_METRICS: dict[str, Metric] = {
    "accuracy": lambda prediction, gold: float(prediction == gold),
    "exact_match": exact,
    "f1": f1,
    "rouge_l": kilt_rouge_l,
}


def kilt(
    predictions: Sequence[str], answers: Answers, ranked: Sequence[Sequence[str]], evidence: Sequence[Answers]
) -> dict[str, float]:
    """eval_downstream.py: the means over all questions, of all answers and of those whose R-precision is 1."""
    scores = dict.fromkeys([*KILT_METRICS, *(f"kilt_{name}" for name in KILT_METRICS)], 0.0)
    for prediction, golds, pages, sets in zip(predictions, answers, ranked, evidence, strict=True):
        prediction, golds = prediction.strip(), [gold.strip() for gold in golds if gold.strip()]
        for name, metric in KILT_METRICS.items():
            score = best(metric, prediction, golds) if prediction else 0.0
            scores[name] += score / len(predictions)
            if kilt_r_precision(pages, sets) == 1:
                scores[f"kilt_{name}"] += score / len(predictions)
    return scores
