"""DPR's output and training data, and Atlas: the ids of the passages are read."""

import json

import pytest

from rag_jax.data.questions import Question, read_question_file
from rag_jax.errors import InputError

PASSAGE = {"title": "Emma", "text": "Emma is a novel.", "score": "80.1", "has_answer": True}


def read(tmp_path, *rows):
    (tmp_path / "q.json").write_text(json.dumps(rows))
    return read_question_file(tmp_path / "q.json")


def with_ids(name, *ids):
    return [PASSAGE | ({} if id is None else {name: id}) for id in ids]


@pytest.mark.parametrize("name", ["id", "passage_id", "psg_id", "docid"])
def test_the_passages_of_dprs_output_were_retrieved(tmp_path, name):
    row = {"question": "who?", "answers": ["me", "I", "me"], "ctxs": with_ids(name, "wiki:9", 3, "3")}
    assert read(tmp_path, row) == ("DPR output", [Question("1", "who?", ("me", "I"), (), ("wiki:9", "3"))])


@pytest.mark.parametrize("name", ["passage_id", "psg_id", "id"])
def test_dprs_training_data_has_gold_passages_and_hard_negatives(tmp_path, name):
    negative = {"negative_ctxs": with_ids(name, "7"), "hard_negative_ctxs": with_ids(name, "8")}
    row = {"dataset": "nq", "question": "who?", "answers": ["me"], "positive_ctxs": with_ids(name, "17", 3)} | negative
    assert read(tmp_path, row) == ("DPR training", [Question("1", "who?", ("me",), ("17", "3"), negative_ids=("8",))])


@pytest.mark.parametrize("answers", [{"answers": ["me"]}, {"answer": "me"}, {"target": "me"}])
def test_the_passages_of_atlas_were_retrieved(tmp_path, answers):
    row = {"question": "who?", "passages": with_ids("id", "9", "3")} | answers
    assert read(tmp_path, row) == ("Atlas", [Question("1", "who?", ("me",), (), ("9", "3"))])


def test_answers_go_before_the_target(tmp_path):
    row = {"question": "who?", "target": "me", "answers": ["me", "I"], "passages": []}
    assert read(tmp_path, row).questions[0].answers == ("me", "I")


def test_passages_without_ids_are_none(tmp_path):
    row = {"question": "who?", "answers": ["me"], "ctxs": with_ids("id", None, None)}
    assert read(tmp_path, row).questions[0].passage_ids == ()


def test_ids_of_this_library_in_the_same_row_go_first(tmp_path):
    row = {
        "question": "who?",
        "answers": ["me"],
        "ctxs": with_ids("id", "9"),
        "passage_ids": ["a"],
        "positive_ids": ["b"],
    }
    assert read(tmp_path, row).questions == [Question("1", "who?", ("me",), ("b",), ("a",))]
    row = {
        "question": "who?",
        "answers": ["me"],
        "positive_ctxs": with_ids("psg_id", "9"),
        "positive_ids": ["b"],
        "hard_negative_ctxs": with_ids("psg_id", "8", "7"),
        "negative_ids": ["c", 4, "c"],
    }
    assert read(tmp_path, row).questions == [Question("1", "who?", ("me",), ("b",), negative_ids=("c", "4"))]


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"ctxs": with_ids("id", "9", None)}, 'passage 2 of "ctxs" has no id; write "id" for all of them or for none'),
        (
            {"positive_ctxs": with_ids("psg_id", None, "9")},
            'passage 1 of "positive_ctxs" has no id; write "passage_id"',
        ),
        (
            {"positive_ctxs": [], "hard_negative_ctxs": with_ids("psg_id", "9", None)},
            'passage 2 of "hard_negative_ctxs" has no id; write "passage_id"',
        ),
        ({"negative_ids": "9"}, '"negative_ids" is not a list; write it as a list of passage ids'),
        ({"passages": with_ids("id", 1.5)}, '"passages" is a number; write an id'),
        ({"ctxs": "x"}, '"ctxs" is not a list of objects'),
        ({"ctxs": ["9"]}, '"ctxs" is not a list of objects'),
        ({"ctxs": [], "answers": None}, "no answers; write"),
        ({"ctxs": [], "answers": ["me", ""]}, '"answers" is empty'),
        ({"ctxs": [], "question": None}, '"question" is missing'),
    ],
)
def test_bad_rows_are_named(tmp_path, fields, what):
    with pytest.raises(InputError) as caught:
        read(tmp_path, {"question": "who?", "answers": ["me"]} | fields)
    assert str(caught.value).startswith(f"{tmp_path / 'q.json'}: item 1: {what}")
