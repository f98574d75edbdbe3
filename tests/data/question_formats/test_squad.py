"""SQuAD: questions of all articles, with the title of their article."""

import json

import pytest

from rag_jax.data.questions import Question, read_question_file
from rag_jax.errors import InputError


def document(*questions, title="Emma_(novel)"):
    return {"version": "v2.0", "data": [{"title": title, "paragraphs": [{"context": "…", "qas": list(questions)}]}]}


def question(id, *answers, **fields):
    return {"id": id, "question": "who?", "answers": [{"text": text, "answer_start": 0} for text in answers]} | fields


def read(tmp_path, found):
    (tmp_path / "squad.json").write_text(json.dumps(found))
    return read_question_file(tmp_path / "squad.json")


def test_questions_come_with_the_shown_title_of_their_article(tmp_path):
    found = document(question("a", "me", "I", "me"), question("b", "you", is_impossible=False))
    found["data"] += document(question("c", "we"), title="Saint_Barth%C3%A9lemy")["data"]
    emma = (("Emma (novel)",),)
    assert read(tmp_path, found) == (
        "SQuAD",
        [
            Question("a", "who?", ("me", "I"), evidence_titles=emma),
            Question("b", "who?", ("you",), evidence_titles=emma),
            Question("c", "who?", ("we",), evidence_titles=(("Saint Barthélemy",),)),
        ],
    )


def test_an_unanswerable_question_has_the_empty_answer(tmp_path):
    found = document(question("a", is_impossible=True, plausible_answers=[{"text": "me"}]), title=None)
    assert read(tmp_path, found).questions == [Question("a", "who?", ("",))]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (question("b"), 'item 2 (id "b"): no answers; write "answers" as a list of {"text": …}'),
        (question("b", "me", is_impossible=True), 'item 2 (id "b"): answers to a question that "is_impossible"; leave'),
        (question("b", " "), 'item 2 (id "b"): "text" is empty'),
        (question("b", answers=["me"]), 'item 2 (id "b"): "answers" is not a list of objects'),
        (question("a", "me"), 'item 2 (id "a"): the id "a" occurs twice'),
        (question("b", "me", question=""), 'item 2 (id "b"): "question" is empty'),
        ("who?", 'article 1: "qas" is not a list of objects'),
    ],
)
def test_bad_questions_are_named(tmp_path, row, what):
    with pytest.raises(InputError) as caught:
        read(tmp_path, document(question("a", "me"), row))
    assert str(caught.value).startswith(f"{tmp_path / 'squad.json'}: {what}")


@pytest.mark.parametrize("name", ["paragraphs", "qas"])
def test_a_list_that_is_missing_is_not_an_empty_one(tmp_path, name):
    found = json.loads(json.dumps(document(question("a", "me"))).replace(f'"{name}"', '"other"'))
    with pytest.raises(InputError, match=f'squad.json: article 1: has no "{name}"; write'):
        read(tmp_path, found)


def test_a_title_is_text(tmp_path):
    with pytest.raises(InputError, match=r'item 1 \(id "a"\): "title" is a number, not a string'):
        read(tmp_path, document(question("a", "me"), title=3))
