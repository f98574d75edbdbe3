"""Claims of FEVER and HoVer: the label is the answer, and titles of articles the evidence."""

import json

import pytest

from rag_jax.data.questions import Question, read_question_file
from rag_jax.errors import InputError

NONE = [[92206, None, None, None]]


def read(tmp_path, **fields):
    (tmp_path / "claims.jsonl").write_text(
        json.dumps({"id": 5, "claim": "Emma is a novel.", "label": "SUPPORTS"} | fields)
    )
    return read_question_file(tmp_path / "claims.jsonl")


def titles(tmp_path, **fields):
    (question,) = read(tmp_path, **fields).questions
    return question.evidence_titles


def test_the_label_is_the_answer(tmp_path):
    assert read(tmp_path, label="REFUTES") == ("claims", [Question("5", "Emma is a novel.", ("REFUTES",))])


def test_every_group_of_fever_is_a_set(tmp_path):
    groups = [
        [[1, 2, "Emma_-LRB-novel-RRB-", 7], [1, 3, "Jane_Austen", 0], [1, 3, "Jane_Austen", 4]],
        [[4, 5, "Star_Trek-COLON-_Picard", 0]],
        [[6, 7, "Star_Trek-COLON-_Picard", 1]],
    ]
    assert titles(tmp_path, evidence=groups) == (("Emma (novel)", "Jane Austen"), ("Star Trek: Picard",))


def test_not_enough_info_has_no_set(tmp_path):
    assert titles(tmp_path, label="NOT ENOUGH INFO", evidence=[NONE, NONE]) == ()
    assert titles(tmp_path, evidence=[]) == titles(tmp_path, evidence=None) == titles(tmp_path) == ()


def test_the_articles_of_hover_are_one_set(tmp_path):
    evidence = [{"title": "Emma (novel)", "text": ""}, {"title": "A_b%20", "text": ""}, {"title": "Emma (novel)"}]
    assert titles(tmp_path, evidence=evidence) == (("Emma (novel)", "A_b%20"),)
    assert titles(tmp_path, supporting_facts=[["B", 0], ["A", 1], ["B", 2]]) == (("B", "A"),)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"label": None}, 'no answers; write the verdict as "label"'),
        ({"label": 1}, '"label" is a number'),
        ({"claim": " "}, '"claim" is empty'),
        ({"evidence": "Emma"}, '"evidence" is not a list of objects'),
        ({"evidence": [{"text": "Emma"}]}, '"title" is missing'),
        ({"evidence": [NONE, "Emma"]}, 'a group of "evidence" is not a list'),
        ({"evidence": [["Emma"]]}, 'a sentence of "evidence" has no title'),
        ({"evidence": [[[1, 2, "Emma", 0], [1, 2, None, 0]]]}, '"title" is missing'),
        ({"supporting_facts": "Emma"}, '"supporting_facts" is not a list'),
        ({"supporting_facts": [[]]}, 'a sentence of "supporting_facts" has no title'),
    ],
)
def test_bad_rows_are_named(tmp_path, fields, what):
    with pytest.raises(InputError) as caught:
        read(tmp_path, **fields)
    assert str(caught.value).startswith(f"{tmp_path / 'claims.jsonl'}:1: {what}")
