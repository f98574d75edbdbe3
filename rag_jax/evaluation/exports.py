"""Predictions in the formats of other evaluators: a TREC run, KILT's guesses, DPR's retriever output."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from rag_jax.corpus.passage import Passage
from rag_jax.data import strict_json
from rag_jax.data.questions import Question
from rag_jax.errors import warn
from rag_jax.evaluation.kilt_guesses import Guess, guess_row, ranked_documents
from rag_jax.evaluation.metrics.answers import holds_answer
from rag_jax.evaluation.predictions import Prediction

FILES = TREC, KILT, DPR = "run.trec", "kilt.jsonl", "dpr.json"


def of(questions: Sequence[Question], predictions: Sequence[Prediction]) -> dict[str, str]:
    """The files of other evaluators by name: none where nothing was retrieved, DPR's where texts are known."""
    retrieved = [passage for prediction in predictions for passage in prediction.retrieved]
    if not retrieved:
        return {}
    files = {TREC: trec_run(predictions), KILT: kilt_guesses(predictions)}
    if any(passage.text for passage in retrieved):
        files[DPR] = dpr_results(questions, predictions)
    return {name: "".join(lines) for name, lines in files.items()}


def trec_run(predictions: Sequence[Prediction]) -> Iterator[str]:
    """The lines of a TREC run, `question Q0 passage rank score rag_jax`; none, with a warning, where an id has a space.

    trec_eval orders by score, and equal scores by id: where scores are equal or unknown, they are minus the rank.
    """
    ids = {each.id for each in predictions} | {passage.id for each in predictions for passage in each.retrieved}
    odd = next((id for id in sorted(ids) if len(id.split()) != 1), None)
    if odd is not None:
        warn(f"{TREC} stays empty: the id {odd!r} has a space, which a TREC run cannot hold")
        return
    for each in predictions:
        scores = _scores(each)
        if not all(map(math.isfinite, scores)) or any(a <= b for a, b in pairwise(scores)):
            scores = _scores(each._replace(scores=()))
        for rank, (passage, score) in enumerate(zip(each.retrieved, scores, strict=True), start=1):
            yield f"{each.id} Q0 {passage.id} {rank} {score!r} rag_jax\n"


def kilt_guesses(predictions: Sequence[Prediction]) -> Iterator[str]:
    """KILT's guess file: the documents of the passages found are the evidence, each once."""
    for prediction in predictions:
        guess = Guess(prediction.id, prediction.answer, ranked_documents(prediction.retrieved))
        yield strict_json.dumps(guess_row(guess), ensure_ascii=False) + "\n"


def dpr_results(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Iterator[str]:
    """DPR's retriever output: every question with the passages found, their scores, and whether one has an answer.

    Questions to which there is no answer, as SQuAD 2.0 has, are left out with a warning: DPR's format has none.
    """
    unanswerable = sum(question.answers == ("",) for question in questions)
    if unanswerable:
        warn(f"{DPR} leaves out {unanswerable:,} unanswerable questions: its format needs an answer to each")
    yield "["
    separator = "\n"
    for question, prediction in zip(questions, predictions, strict=True):
        if question.answers == ("",):
            continue
        found = zip(prediction.retrieved, _scores(prediction), strict=True)
        contexts = [_context(question, passage, score) for passage, score in found]
        row = {"id": question.id, "question": question.question, "answers": list(question.answers), "ctxs": contexts}
        row |= {"regex": True} if question.regex else {}
        yield separator + strict_json.dumps(row, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n"


def _context(question: Question, passage: Passage, score: float) -> dict[str, Any]:
    text = {"id": passage.id, "title": passage.title, "text": passage.text}
    return {**text, "score": str(score), "has_answer": holds_answer(passage.text, question)}


def _scores(prediction: Prediction) -> Sequence[float]:
    """Scores of the passages found; where they are not known, numbers that keep the ranking."""
    return prediction.scores or [-float(rank) for rank in range(1, len(prediction.retrieved) + 1)]
