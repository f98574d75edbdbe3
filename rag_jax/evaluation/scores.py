"""All scores of a set of predictions: those of every question, and those of the set as a whole.

Which there are follows from what is known: of the questions (gold passages, evidence, regular expressions), and of the
predictions (passages found, posteriors, log-probabilities).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.intervals import Statistic
from rag_jax.evaluation.kilt_guesses import Guess, ranked_documents
from rag_jax.evaluation.metrics import calibration, citations, classification, generated_text, kilt, no_answer, ranking
from rag_jax.evaluation.metrics.answers import contains, exact_match, f1, is_correct, regex_match
from rag_jax.evaluation.metrics.question_generation import q_bleu_1
from rag_jax.evaluation.metrics.ranking import DEPTHS
from rag_jax.evaluation.predictions import Prediction

Task = Literal["qa", "abstractive", "question-generation"]
Each = dict[str, Float[np.ndarray, " B"]]  # by name; NaN: does not apply to that question
NDCG = 10
NOTHING: Mapping = MappingProxyType({})


class Overall(NamedTuple):
    """A score of several questions together."""

    statistic: Statistic  # of those with given numbers
    questions: int  # that it rests on


class Scores(NamedTuple):
    """Scores by name."""

    each: Mapping[str, Float[np.ndarray, " B"]] = NOTHING  # of every question
    overall: Mapping[str, Overall] = NOTHING  # of questions together
    repetition: Mapping[str, float] = NOTHING  # of all texts, without an interval: the bootstrap repeats texts itself


def score(
    questions: Sequence[Question],
    predictions: Sequence[Prediction],
    *,
    task: Task = "qa",
    labels: Collection[str] = (),
    depth: int = DEPTHS[-1],
    cite_at_least: float = 0.5,
) -> Scores:
    """Everything that can be scored.

    Args:
        labels: those of a classification, whose predictions are scored by accuracy; (): predictions are texts.
        depth: the number of passages that were searched for.
        cite_at_least: the posterior from which on a passage counts as cited.
    """
    answered = classified(questions, predictions, labels) if labels else answers(questions, predictions)
    parts = [answered]
    if not labels and task != "qa":
        parts.append(texts(questions, predictions, task))
    unlabelled = [question._replace(answers=()) for question in questions] if labels else questions
    parts.append(Scores(retrieval(unlabelled, predictions, depth)))  # that a text holds the word "true" says nothing
    parts.append(Scores(evidence(questions, predictions)))
    if not labels:
        parts.append(Scores(cited(predictions, cite_at_least)))
    if answered.each:
        parts.append(confidence(predictions, correct_answers(questions, predictions, bool(labels))))
    return joined(parts)


def answers(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Scores:
    """Exact match, F1 and containment; of regular expressions, whether one matches the whole answer, or part of it."""
    plain = [question if not question.regex else question._replace(answers=()) for question in questions]
    regex = [question if question.regex else question._replace(answers=()) for question in questions]
    each: Each = {}
    if any(question.answers for question in plain):
        for name, metric in (("exact_match", exact_match), ("f1", f1), ("contains", contains)):
            each[name] = _of_each(metric, plain, predictions)
    if any(question.answers for question in regex):
        each["regex_match"] = _of_each(partial(regex_match, anchored=True), regex, predictions)
        each["regex_search"] = _of_each(partial(regex_match, anchored=False), regex, predictions)
    return Scores(each)


def classified(questions: Sequence[Question], predictions: Sequence[Prediction], labels: Collection[str]) -> Scores:
    """Accuracy, and macro-F1 over the labels that occur. Predictions that are none of the labels are wrong."""
    gold, given = [question.answers[0] for question in questions], [prediction.answer for prediction in predictions]
    occurring = [label for label in labels if label in {*gold, *given}]
    accuracy = {"accuracy": classification.accuracy_scores(given, gold)}
    return Scores(accuracy, {"macro_f1": Overall(classification.macro_f1(given, gold, occurring), len(questions))})


def texts(questions: Sequence[Question], predictions: Sequence[Prediction], task: Task) -> Scores:
    """ROUGE-L, BLEU-1 and distinct trigrams of longer answers; of generated questions also Q-BLEU-1."""
    check_texts(questions, task)
    named: dict[str, Callable] = {"rouge_l": generated_text.rouge_l, "bleu_1": generated_text.bleu_1}
    if task == "question-generation":
        named["q_bleu_1"] = q_bleu_1
    each = {name: _of_each(metric, questions, predictions) for name, metric in named.items()}
    given = [prediction.answer for prediction in predictions]
    known = [number for number, question in enumerate(questions) if any(each.strip() for each in question.answers)]
    answered, wanted = [given[number] for number in known], [questions[number].answers for number in known]
    overall = {"corpus_bleu_1": Overall(generated_text.corpus_bleu_1(answered, wanted), len(known))} if known else {}
    gold = [question.answers[0] for question in questions]
    distinct, of_gold = generated_text.distinct_ngrams(given), generated_text.distinct_ngrams(gold)
    return Scores(each, overall, {"distinct_trigrams": distinct, "distinct_trigrams_of_gold": of_gold})


def check_texts(questions: Sequence[Question], task: Task) -> None:
    """Raise `InputError` for a question without a gold text."""
    for question in questions:
        if question.regex or not question.answers:
            raise InputError(f'question "{question.id}": has no gold text, which --task {task} needs; leave it out')


def retrieval(questions: Sequence[Question], predictions: Sequence[Prediction], depth: int) -> Each:
    """Recalls and rankings of the passages found; of the documents that are needed, where questions name them."""
    found = [prediction.retrieved[:depth] for prediction in predictions]
    if not any(found):
        return {}
    depth = min(depth, max(map(len, found)))  # a deeper recall would only repeat this one
    depths, each = [k for k in DEPTHS if k <= depth], Each()
    if any(question.positive_ids for question in questions):
        ids = [[passage.id for passage in passages] for passages in found]
        scores = ranking.ranking_scores(ids, questions, sorted({*depths, min(NDCG, depth)}))
        shown = [*(f"recall@{k}" for k in depths), "mrr", f"ndcg@{min(NDCG, depth)}", "map"]
        each |= {name: scores[name] for name in shown}
    if any(passage.text for passages in found for passage in passages) and any(q.answers for q in questions):
        texts = [[passage.text for passage in passages] for passages in found]
        each |= ranking.answer_recall_scores(texts, questions, depths)
    if not any(each.title for passages in found for each in passages):
        questions = [question._replace(evidence_titles=()) for question in questions]
    if _know_documents(predictions) and any(question.evidence or question.evidence_titles for question in questions):
        each |= ranking.document_recall_scores(found, questions, depths)
    return each


def evidence(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Each:
    """KILT's scores, where questions name their evidence."""
    each = Each()
    known = [number for number, question in enumerate(questions) if question.evidence]
    if not known or not any(prediction.retrieved for prediction in predictions):
        return each
    guesses = [Guess(p.id, p.answer, ranked_documents(p.retrieved)) for p in (predictions[n] for n in known)]
    needed = {id for number in known for ids in questions[number].evidence for id in ids}
    if not _know_documents(predictions) and needed.isdisjoint(id for guess in guesses for id in guess.documents):
        return each  # the ids are of parts of documents, of which nothing is known
    for name, values in kilt.kilt_scores(guesses, [questions[number] for number in known]).items():
        each[name] = np.full(len(questions), math.nan)
        each[name][known] = values
    return {name: values for name, values in each.items() if not np.isnan(values).all()}


def _know_documents(predictions: Sequence[Prediction]) -> bool:
    """Whether more than the ids of passages is known, which say nothing of the documents that they are from."""
    return any(each.title or each.document or each.text for found in predictions for each in found.retrieved)


def cited(predictions: Sequence[Prediction], at_least: float) -> Each:
    """The citations of answers with a posterior over passages, all of which are known."""
    read = [
        each if all(passage.title or passage.text for passage in each.passages) else each._replace(passages=())
        for each in predictions
    ]
    return citations.citation_scores(read, at_least) if any(map(citations.has_posterior, read)) else {}


def confidence(predictions: Sequence[Prediction], correct: Float[np.ndarray, " B"]) -> Scores:
    """How far p(y|x) says whether an answer is correct; nothing where log-probabilities or answers are unknown."""
    p = probabilities(predictions)
    if p is None or np.isnan(correct).any():
        return Scores()
    overall = {
        "expected_calibration_error": calibration.expected_calibration_error(p, correct),
        "aurc": calibration.area_under_risk_coverage(p, correct),
    }
    together = {name: Overall(statistic, len(p)) for name, statistic in overall.items()}
    return Scores({"brier": calibration.brier_scores(p, correct)}, together)


def probabilities(predictions: Sequence[Prediction]) -> Float[np.ndarray, " B"] | None:
    """p(y|x) of the answers; None unless all are known."""
    log_probs = [prediction.log_prob for prediction in predictions]
    return None if any(each is None for each in log_probs) else calibration.answer_probabilities(log_probs)


def correct_answers(
    questions: Sequence[Question], predictions: Sequence[Prediction], has_labels: bool
) -> Float[np.ndarray, " B"]:
    """Which answers are right, as labels or by `is_correct`; NaN for a question without gold answers."""
    if has_labels:
        gold = [question.answers[0] for question in questions]
        return classification.accuracy_scores([prediction.answer for prediction in predictions], gold)
    pairs = zip(predictions, questions, strict=True)
    return np.array([float(is_correct(p.answer, q)) if q.answers else math.nan for p, q in pairs], np.float64)


def abstention(
    questions: Sequence[Question], predictions: Sequence[Prediction], correct: Float[np.ndarray, " B"], below: float
) -> tuple[list[Prediction], Each]:
    """Answers below a log-probability withheld, and the effect on exact match, `correct`; see `no_answer`."""
    log_probs = [prediction.log_prob for prediction in predictions]
    effect = no_answer.abstention_scores(log_probs, correct, no_answer.answerable(questions), below)
    return no_answer.abstain(predictions, below), effect


def joined(parts: Sequence[Scores]) -> Scores:
    """All scores; of two with the same name the later."""
    each, overall, repetition = Each(), dict[str, Overall](), dict[str, float]()
    for part in parts:
        each |= part.each
        overall |= part.overall
        repetition |= part.repetition
    return Scores(each, overall, repetition)


def _of_each(
    metric: Callable[[str, Sequence[str]], float], questions: Sequence[Question], predictions: Sequence[Prediction]
) -> Float[np.ndarray, " B"]:
    """A metric of every question with gold answers."""
    pairs = zip(predictions, questions, strict=True)
    return np.array([float(metric(p.answer, q.answers)) if q.answers else math.nan for p, q in pairs], np.float64)
