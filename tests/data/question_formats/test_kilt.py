"""KILT: every answer of the outputs, and a set of evidence for each output that has some."""

import json

import pytest

from rag_jax.data.questions import Question, read_question_file, read_question_texts
from rag_jax.errors import InputError


def write(tmp_path, row):
    (tmp_path / "kilt.jsonl").write_text(json.dumps(row))
    return tmp_path / "kilt.jsonl"


def article(id):
    return {"wikipedia_id": id, "title": "Emma", "start_paragraph_id": 1, "bleu_score": 1.0, "meta": {}}


def test_answers_are_kept_once_and_evidence_by_output(tmp_path):
    outputs = [
        {"answer": "Jane Austen", "provenance": [article("9"), article("7"), article("9")]},
        {"answer": "Austen"},
        {"provenance": [article(5)]},
        {"answer": "Jane Austen", "provenance": []},
    ]
    path = write(tmp_path, {"id": "k1", "input": "who wrote emma", "output": outputs, "meta": {}})
    question = Question("k1", "who wrote emma", ("Jane Austen", "Austen"), evidence=(("9", "7"), ("5",)))
    assert read_question_file(path) == ("KILT", [question])


def test_a_test_set_has_texts_only(tmp_path):
    path = write(tmp_path, {"id": "k1", "input": "who wrote emma"})
    assert read_question_texts(path) == [("k1", "who wrote emma")]
    with pytest.raises(InputError, match=r'kilt\.jsonl:1: no answers; write "output"'):
        read_question_file(path)


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ([{"answer": " "}], '"answer" is empty'),
        ([{"answer": 3}], '"answer" is a number'),
        ([{"answer": "a", "provenance": [{"title": "Emma"}]}], '"wikipedia_id" is null'),
        ([{"answer": "a", "provenance": "9"}], '"provenance" is not a list of objects'),
        (["a"], '"output" is not a list of objects'),
        ([{"provenance": [article("9")]}], "no answers"),
    ],
)
def test_bad_rows_are_named(tmp_path, output, what):
    path = write(tmp_path, {"id": "k1", "input": "who?", "output": output})
    with pytest.raises(InputError) as caught:
        read_question_file(path)
    assert str(caught.value).startswith(f"{path}:1: {what}")
