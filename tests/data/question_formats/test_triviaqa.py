"""TriviaQA: the value, its aliases and the answers of annotators."""

import json

import pytest

from rag_jax.data.questions import Question, read_question_file, read_question_texts
from rag_jax.errors import InputError

ANSWER = {
    "Value": "AC/DC",
    "Aliases": ["ACDC", "AC/DC", "AC-DC"],
    "NormalizedAliases": ["ac dc", "acdc"],
    "NormalizedValue": "ac dc",
    "Type": "WikipediaEntity",
}


def write(tmp_path, *answers):
    rows = [{"QuestionId": f"tc_{n}", "Question": "Which band?", "Answer": each} for n, each in enumerate(answers)]
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    (tmp_path / "unfiltered-web-dev.json").write_text(json.dumps({"Data": rows, "Domain": "Web"}, indent=4))
    return tmp_path / "unfiltered-web-dev.json"


def test_normalised_aliases_are_left_out(tmp_path):
    path = write(tmp_path, ANSWER, ANSWER | {"HumanAnswers": ["Ac Dc", "ACDC"]})
    answers = ("AC/DC", "ACDC", "AC-DC")
    questions = [Question("tc_0", "Which band?", answers), Question("tc_1", "Which band?", (*answers, "Ac Dc"))]
    assert read_question_file(path) == ("TriviaQA", questions)


def test_a_test_set_has_texts_only(tmp_path):
    path = write(tmp_path, None)
    assert read_question_texts(path) == [("tc_0", "Which band?")]
    with pytest.raises(InputError, match=r'item 1 \(id "tc_0"\): no answers; write "Answer"'):
        read_question_file(path)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("AC/DC", '"Answer" is not an object; write it as'),
        ({"Aliases": ["a"]}, '"Value" is missing'),
        (ANSWER | {"Aliases": ["", "a"]}, '"Aliases" is empty'),
        (ANSWER | {"HumanAnswers": {}}, 'no answers; write "HumanAnswers" as a list'),
    ],
)
def test_bad_rows_are_named(tmp_path, answer, what):
    path = write(tmp_path, ANSWER, answer)
    with pytest.raises(InputError) as caught:
        read_question_file(path)
    assert str(caught.value).startswith(f'{path}: item 2 (id "tc_1"): {what}')
