"""Predictions files: what is read of them, and what is refused."""

import json
import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from rag_jax.corpus.passage import Passage
from rag_jax.data.questions import Question
from rag_jax.errors import InputError
from rag_jax.evaluation.predictions import (
    Prediction,
    as_row,
    label_row,
    prediction_lines,
    read_predictions,
    with_texts,
    without_itself,
)
from rag_jax.index.store import without_vectors
from rag_jax.pipeline.answers import Answer, RetrievedPassage

ASKED = [Question("a", "who", ("x",)), Question("b", "what", ("y",))]
PASSAGE = RetrievedPassage("p1", "Title", "Text", -0.5, 0.75)


def written(folder: Path, *lines: object) -> Path:
    path = folder / "predictions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


PART, FOUND = Passage("p1#2", "", "", "p1"), Passage("p2", "", "")


def answer(text: str, log_prob: float, *alternatives: Answer) -> Answer:
    return Answer(text, log_prob, 0.0, [PASSAGE], ["tok"], np.array([[1.0]]), list(alternatives))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    row = as_row(ASKED[0], answer("x", -1.5), [(PART, 2.5), (FOUND, 1.0)], details=False)
    assert "tokens" not in row
    assert as_row(ASKED[0], answer("x", -1.5), [], details=True)["token_posteriors"] == [[1.0]]
    path = written(tmp_path, {"id": "b", "answer": "z"}, {"id": "a", **row})
    first, second = read_predictions(path, ASKED)
    assert first == Prediction("a", "x", -1.5, (PASSAGE,), (PART, FOUND), (2.5, 1.0))
    assert second == Prediction("b", "z"), "in the order of the questions"
    path.write_text("".join(prediction_lines(ASKED, [first, second])))
    assert read_predictions(path, ASKED) == [first, second]


def test_labels_have_names_and_probabilities_that_add_up() -> None:
    chosen = answer("true", -1.0, answer("false", -3.0))
    row = label_row({"answer": "true", "log_prob": -1.0}, chosen, {"true": "SUPPORTED", "false": "REFUTED"})
    assert row["answer"] == "SUPPORTED"
    assert row["labels"].keys() == {"SUPPORTED", "REFUTED"}
    assert sum(row["labels"].values()) == pytest.approx(1)
    assert row["labels"]["SUPPORTED"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert math.exp(row["log_prob"]) == pytest.approx(row["labels"]["SUPPORTED"])


def test_guesses_of_kilt_and_answers_of_squad_are_read(tmp_path: Path) -> None:
    pages = [{"wikipedia_id": "12", "title": "T"}, {"wikipedia_id": 13}]
    lines = [{"id": "a", "output": [{"answer": "x", "provenance": pages}]}, {"id": "b", "output": [{"answer": "y"}]}]
    first, second = read_predictions(written(tmp_path, *lines), ASKED)
    assert first.answer == "x"
    assert [passage.document for passage in first.retrieved] == ["12", "13"]
    assert second == Prediction("b", "y", of_documents=True)
    for text in (json.dumps({"a": "x", "b": "y"}), json.dumps({"a": "x", "b": "y"}, indent=1)):
        assert read_predictions(written(tmp_path, text), ASKED) == [Prediction("a", "x"), Prediction("b", "y")]


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe, rows = tmp_path / "pipe", [{"id": "a", "answer": "x"}, {"id": "b", "answer": "y"}]
    os.mkfifo(pipe)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    writer = threading.Thread(target=pipe.write_text, args=(text,), daemon=True)
    writer.start()
    assert [each.answer for each in read_predictions(pipe, ASKED)] == ["x", "y"]


def test_a_guess_of_kilt_is_the_whole_document() -> None:
    pieces = [Passage("p1", "T", "first", "p1"), Passage("p1#2", "T", "second", "p1"), Passage("p2", "U", "other")]
    store = without_vectors(pieces)
    guess = Prediction(
        "a", "x", retrieved=(Passage("p1", "", "", "p1"), Passage("p2", "", "", "p2")), of_documents=True
    )
    passages = [each.text for each in with_texts([guess], store)[0].retrieved]
    assert passages == ["first\nsecond", "other"]
    (own,) = with_texts([guess._replace(of_documents=False)], store)
    assert [each.text for each in own.retrieved] == ["first", "other"], "a model found the first passage alone"


def test_a_query_of_beir_is_not_its_own_result() -> None:
    found = Prediction("a", "", retrieved=(Passage("a", "", ""), Passage("b", "", "")), scores=(2.0, 1.0))
    assert without_itself(found) == found._replace(retrieved=(Passage("b", "", ""),), scores=(1.0,))
    assert without_itself(found._replace(scores=())).scores == ()
    pieces = found._replace(
        retrieved=(Passage("a#2", "", "", "a"), Passage("b", "", ""), Passage("c", "", "")), scores=()
    )
    assert [each.id for each in without_itself(pieces).retrieved] == ["b", "c"]
    assert [each.id for each in without_itself(pieces, 1).retrieved] == ["b"]


OK = {"id": "a", "answer": "x"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no predictions; write one"),
        ([OK], '1 of 2 questions have no prediction, the first is "b"; predict all of them'),
        ([OK, OK], ':2: the id "a" occurs twice'),
        ([{"a": "x"}, {"b": "y"}], ":1: no id; write the id of the question"),
        ([OK, {"id": "c", "answer": ""}], ':2: no question has the id "c"; name the file of its questions'),
        ([{"answer": "x"}], ":1: no id; write the id of the question"),
        ([{"id": "a"}], ':1: "answer" is not a string; write the one answer to "a"'),
        ([{"id": "a", "answer": ["x"]}], ':1: "answer" is not a string'),
        ([{**OK, "log_prob": "high"}], ':1: "log_prob" is not a finite number'),
        ([{**OK, "log_prob": 0.5}], ':1: "log_prob" is 0.5; a log-probability is at most 0'),
        (['{"id": "a", "answer": "x", "log_prob": NaN}'], ":1: malformed JSON (NaN is no number of JSON)"),
        (['{"id": "a", "answer": "x", "log_prob": -1' + "0" * 400 + "}"], ':1: "log_prob" is not a finite number'),
        ([{**OK, "passages": [{"id": "p"}]}], ':1: the passage "p" has no log_prior'),
        ([{**OK, "passages": [{"id": "p", "log_prior": 0, "posterior": "1"}]}], ':1: "posterior" is not a finite'),
        ([{**OK, "retrieved": ["p"]}], ':1: "retrieved" is not a list of objects'),
        ([{**OK, "retrieved": [{"id": "p", "text": 3}]}], ':1: "text" of a passage is not a string'),
        ([{**OK, "retrieved": [{"id": "p", "title": "\ud83d"}]}], ':1: "title" holds half a surrogate pair'),
        ([{**OK, "retrieved": [{"id": "p"}, {"id": "p"}]}], ':1: the passage "p" is twice in "retrieved"'),
        (['{"a": "bad \\ud83d", "b": "x"}'], "'a': \"answer\" holds half a surrogate pair"),
        ([{**OK, "question": "when"}], ':1: "a" is another question there; name the file of its questions'),
        ([{"id": "a", "output": []}], ':1: "output" holds 0 answers; write exactly one'),
        ([{"id": "a", "output": [{"answer": "x"}, {"answer": "y"}]}], ':1: "output" holds 2 answers'),
        (["[1]"], ":1: holds a list, not an object"),
        (["{"], ":1: malformed JSON"),
        (['{"a": 3}'], ":1: no id"),
    ],
)
def test_bad_predictions_are_refused(tmp_path: Path, lines: list, message: str) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(InputError) as refused:
        read_predictions(path, ASKED)
    assert message in str(refused.value)
    assert str(refused.value).startswith(str(path))
