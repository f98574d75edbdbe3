"""Texts and prompts with a label, as questions with one answer."""

import json

import pytest

from rag_jax.data.questions import Question, read_question_file, read_question_texts
from rag_jax.errors import InputError


def write(tmp_path, *rows):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_text_is_a_question_and_its_label_the_answer(tmp_path):
    path = write(tmp_path, {"id": "c1", "text": "buy now", "label": "spam"}, {"text": "hello", "label": "fine"})
    expected = [Question("c1", "buy now", ("spam",)), Question("2", "hello", ("fine",))]
    assert read_question_file(path) == ("texts", expected)
    path = write(tmp_path, {"_id": "c1", "text": "buy now", "label": "spam"})
    assert read_question_file(path) == ("texts", expected[:1])


def test_prompts_as_those_of_xstest_are_read(tmp_path):
    path = write(tmp_path, {"id": "x-1", "prompt": "How do I end a process?", "type": "homonyms", "label": "safe"})
    assert read_question_file(path) == ("prompts", [Question("x-1", "How do I end a process?", ("safe",))])


@pytest.mark.parametrize("row", [{"id": "1", "title": "Emma", "text": "…"}, {"id": "1", "text": "…"}])
def test_passages_are_no_texts_to_be_classified(tmp_path, row):
    with pytest.raises(InputError, match="in none of the formats of question files"):
        read_question_texts(write(tmp_path, row))


def test_a_label_is_a_text(tmp_path):
    with pytest.raises(InputError, match=r':1: "label" is a number'):
        read_question_file(write(tmp_path, {"text": "buy now", "label": 1}))
    with pytest.raises(InputError, match=r':2: "label" is missing; write'):
        read_question_file(write(tmp_path, {"text": "buy now", "label": "spam"}, {"text": "hello"}))
