"""Predictions: a model's answer to each question, with the passages that it read and those that it retrieved.

A file of predictions is JSON lines as `rag-jax evaluate` and `rag-jax answer` write them, in which only `id` and
`answer` are required; KILT's guesses; or SQuAD's `{"id": "answer", …}`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rag_jax.corpus.passage import Passage
from rag_jax.data import strict_json
from rag_jax.data.jsonl import UniqueIds, rows_of, validate_characters, validate_id
from rag_jax.data.lines import read_lines
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation import kilt_guesses
from rag_jax.evaluation.metrics.calibration import ROUNDING
from rag_jax.index.documents import document_id
from rag_jax.index.store import Store
from rag_jax.pipeline.answers import Answer, RetrievedPassage
from rag_jax.pipeline.gold_passages import other_pieces


class Prediction(NamedTuple):
    """The prediction for one question."""

    id: str  # of the question
    answer: str  # "": none
    log_prob: float | None = None  # log p(y|x) in nats, of labels: normalised over all of them; None: not known
    passages: tuple[RetrievedPassage, ...] = ()  # what was read, best first, with prior and posterior
    retrieved: tuple[Passage, ...] = ()  # what was found, best first: more than was read; texts may be unknown, ""
    scores: tuple[float, ...] = ()  # the search's, of `retrieved`; (): not known
    of_documents: bool = False  # whether `retrieved` names whole documents, as KILT's guesses do


def as_row(
    question: Question, answer: Answer, retrieved: Sequence[tuple[Passage, float]], details: bool
) -> dict[str, Any]:
    """A line of a predictions file, without its id.

    Args:
        answer: with labels as alternatives where the question was classified.
        retrieved: the passages found and their scores, best first.
        details: whether to add each token, with its posterior over the passages.
    """
    row = {
        "question": question.question,
        "answer": answer.text,
        "log_prob": answer.log_prob,
        "passages": [passage._asdict() for passage in answer.passages],
        "retrieved": [_found(passage, score) for passage, score in retrieved],
    }
    if details:
        posteriors = answer.token_posteriors
        row |= {"tokens": answer.tokens, "token_posteriors": None if posteriors is None else posteriors.tolist()}
    return row


def label_row(row: dict[str, Any], answer: Answer, names: Mapping[str, str]) -> dict[str, Any]:
    """The line of a classified question: names of labels instead of their texts, probabilities over all labels."""
    ranked = [answer, *answer.alternatives]
    total = float(np.logaddexp.reduce([each.log_prob for each in ranked]))
    probabilities = {names[each.text]: math.exp(each.log_prob - total) for each in ranked}
    return row | {"answer": names[answer.text], "log_prob": answer.log_prob - total, "labels": probabilities}


def prediction_lines(questions: Sequence[Question], predictions: Sequence[Prediction]) -> Iterator[str]:
    """The lines of a predictions file."""
    for question, each in zip(questions, predictions, strict=True):
        scores = each.scores or [None] * len(each.retrieved)
        found = [_found(passage, score) for passage, score in zip(each.retrieved, scores, strict=True)]
        row = {"id": each.id, "question": question.question, "answer": each.answer, "log_prob": each.log_prob}
        row |= {"passages": [passage._asdict() for passage in each.passages], "retrieved": found}
        yield strict_json.dumps(row, ensure_ascii=False) + "\n"


def _found(passage: Passage, score: float | None) -> dict[str, Any]:
    """A passage as a predictions file names it: with its document, where it is a part of one."""
    document = {"document": passage.document} if passage.document else {}
    return {"id": passage.id, "score": score, **document}


def with_texts(predictions: Sequence[Prediction], store: Store) -> list[Prediction]:
    """The predictions with the passages that were found as the store has them.

    Raises `InputError` for a passage that is not in the store.
    """
    ids = list(dict.fromkeys(passage.id for prediction in predictions for passage in prediction.retrieved))
    rows = store.find(ids)
    if ids and (rows < 0).any():
        odd = ids[int((rows < 0).argmax())]
        raise InputError(f'passage "{odd}" was found, but is not in the index; name the index that was searched')
    passages = {id: store.passages[row] for id, row in zip(ids, rows.tolist(), strict=True)}
    documents = {passage.id for each in predictions if each.of_documents for passage in each.retrieved}
    pieces = other_pieces(store, sorted(documents))
    whole = {id: _joined(passages[id], [store.passages[row] for row in pieces[id]]) for id in documents}
    return [
        each._replace(
            retrieved=tuple((whole if each.of_documents else passages)[passage.id] for passage in each.retrieved)
        )
        for each in predictions
    ]


def _joined(first: Passage, more: Sequence[Passage]) -> Passage:
    """A document as one passage."""
    return first._replace(text="\n".join(each.text for each in (first, *more)))


def without_itself(prediction: Prediction, depth: int | None = None) -> Prediction:
    """Without the document of the question's id: a query of BEIR may be a document, which is not its own result."""
    documents = enumerate(document_id(passage) for passage in prediction.retrieved)
    kept = [number for number, document in documents if document != prediction.id][:depth]
    retrieved = tuple(prediction.retrieved[number] for number in kept)
    scores = tuple(prediction.scores[number] for number in kept) if prediction.scores else ()
    return prediction._replace(retrieved=retrieved, scores=scores)


def read_predictions(path: Path, questions: Sequence[Question]) -> list[Prediction]:
    """The predictions for the questions, in their order.

    Raises `InputError` for a file in no known format, and for ids that are missing, unknown or there twice.
    """
    ids, found = UniqueIds(), dict[str, Prediction]()
    known = {question.id: question.question for question in questions}
    for location, asked, prediction in _read(path):
        ids.add(prediction.id, location)
        if prediction.id not in known:
            raise InputError(f'{location}: no question has the id "{prediction.id}"; name the file of its questions')
        if asked not in (None, known[prediction.id]):
            raise InputError(f'{location}: "{prediction.id}" is another question there; name the file of its questions')
        found[prediction.id] = prediction
    missing = [question.id for question in questions if question.id not in found]
    if missing:
        count = f"{len(missing):,} of {len(questions):,} questions have no prediction, the first is"
        raise InputError(f'{path}: {count} "{missing[0]}"; predict all of them, or leave their questions out')
    return [found[question.id] for question in questions]


def _read(path: Path) -> Iterator[tuple[str, object, Prediction]]:
    """(location, question if it is there, prediction) of each."""
    lines = list(read_lines(path))  # once: it may be a pipe
    whole = _squad(lines)
    if whole is not None:
        for id, answer in whole.items():
            location = f"{path}: {id!r}"
            prediction = Prediction(validate_id(id, "id", str(path)), validate_characters(answer, "answer", location))
            yield location, None, prediction
        return
    empty = True
    for number, row in rows_of(lines, path):
        location, empty = f"{path}:{number}", False
        prediction = _kilt(row, location) if "output" in row else _prediction(row, location)
        yield location, row.get("question"), prediction
    if empty:
        raise InputError(f'{path}: holds no predictions; write one {{"id": …, "answer": …}} on each line')


def _squad(lines: Sequence[str]) -> dict[str, str] | None:
    """The answers by id, where the whole file is one object of strings."""
    if any(line.strip() for line in lines[1:]) and _is_row(lines[0]):
        return None  # JSON lines
    try:
        value = strict_json.decode("".join(lines))
    except ValueError:
        return None  # JSON lines, or neither: their reader says what is wrong
    if not isinstance(value, dict) or not value or {"id", "answer", "output"} & value.keys():
        return None
    return value if all(isinstance(each, str) for each in value.values()) else None


def _is_row(line: str) -> bool:
    try:
        return isinstance(strict_json.decode(line), dict)
    except ValueError:
        return False


def _prediction(row: Mapping[str, Any], location: str) -> Prediction:
    """A line of this library, or of another that has `id`, and `answer` or `prediction`."""
    id = _required_id(row, location)
    answer = row.get("answer", row.get("prediction"))
    if not isinstance(answer, str):
        raise InputError(f'{location}: "answer" is not a string; write the one answer to "{id}" as a string')
    log_prob = _number(row, "log_prob", location)
    if log_prob is not None and log_prob > ROUNDING:
        raise InputError(f'{location}: "log_prob" is {log_prob}; a log-probability is at most 0')
    read, found = _objects(row, "passages", location), _objects(row, "retrieved", location)
    scores = tuple(score for each in found if (score := _number(each, "score", location)) is not None)
    retrieved = tuple(_retrieved(each, location) for each in found)
    ids = [passage.id for passage in retrieved]
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise InputError(f'{location}: the passage "{twice}" is twice in "retrieved"; rank each passage once')
    return Prediction(
        id,
        validate_characters(answer, "answer", location),
        log_prob,
        tuple(_passage(each, location) for each in read),
        retrieved,
        scores if len(scores) == len(found) else (),
    )


def _kilt(row: Mapping[str, Any], location: str) -> Prediction:
    """A guess of KILT, whose evidence is documents."""
    guess = kilt_guesses.as_guess(row, location)
    documents = (Passage(document, "", "", document) for document in guess.documents)
    return Prediction(guess.id, guess.answer, retrieved=tuple(documents), of_documents=True)


def _passage(row: Mapping[str, Any], location: str) -> RetrievedPassage:
    id, (title, text) = validate_id(row.get("id"), "id", location), _texts(row, ("title", "text"), location)
    log_prior, posterior, attention = (_number(row, name, location) for name in ("log_prior", "posterior", "attention"))
    if log_prior is None:
        raise InputError(f'{location}: the passage "{id}" has no log_prior; write log p(z|x), or leave passages out')
    return RetrievedPassage(id, title, text, log_prior, posterior, attention)


def _retrieved(row: Mapping[str, Any], location: str) -> Passage:
    return Passage(validate_id(row.get("id"), "id", location), *_texts(row, ("title", "text", "document"), location))


def _texts(row: Mapping[str, Any], names: Sequence[str], location: str) -> list[str]:
    """Fields that hold text; "" where there is none."""
    values = [row.get(name) or "" for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str):
            raise InputError(f'{location}: "{name}" of a passage is not a string; write it as one, or leave it out')
        validate_characters(value, name, location)
    return values


def _number(row: Mapping[str, Any], name: str, location: str) -> float | None:
    """A field that holds a finite number; None where there is none."""
    value = row.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not math.isfinite(value):
            raise TypeError
        return float(value)
    except (TypeError, OverflowError):
        raise InputError(f'{location}: "{name}" is not a finite number; write it as one, or leave it out') from None


def _required_id(row: Mapping[str, Any], location: str) -> str:
    if "id" not in row:
        raise InputError(f'{location}: no id; write the id of the question, "id"')
    return validate_id(row["id"], "id", location)


def _objects(row: Mapping[str, Any], name: str, location: str) -> list[Mapping[str, Any]]:
    values = row.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise InputError(f'{location}: "{name}" is not a list of objects; write it as one, or leave it out')
    return values
