"""Question files and training pairs."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import (
    Question,
    fingerprint,
    read_question_file,
    read_question_texts,
    read_questions,
    training_pairs,
)
from rag_jax.errors import InputError

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip)
unique_texts = st.lists(texts, unique=True).map(tuple)
questions = st.builds(
    lambda relevance, *fields: Question(*fields, relevance=relevance[: len(fields[3])]),
    st.just(()) | st.lists(st.integers(1, 3), min_size=20, max_size=20).map(tuple),
    *(texts, texts, unique_texts.filter(bool), st.lists(texts, unique=True, max_size=20).map(tuple), unique_texts),
)


def read(tmp_path, text: str) -> list[Question]:
    (tmp_path / "q.jsonl").write_text(text, encoding="utf-8")
    return read_questions(tmp_path / "q.jsonl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(questions=st.lists(questions, min_size=1, max_size=4, unique_by=lambda question: question.id))
def test_what_is_written_is_read_back(tmp_path, questions):
    write_jsonl(tmp_path / "q.jsonl", (question._asdict() for question in questions))
    assert read_questions(tmp_path / "q.jsonl") == questions


def test_the_id_defaults_to_the_line_and_positive_ids_to_none(tmp_path):
    assert read(tmp_path, '\n{"question": "who?", "answers": ["me"], "source": "x"}\n') == [
        Question("2", "who?", ("me",), ())
    ]


@pytest.mark.parametrize("field", ['"answer": "me"', '"answer": ["me"]', '"answers": "me"', '"answers": ["me", "me"]'])
def test_answers_are_one_string_or_a_list_and_kept_once(tmp_path, field):
    assert read(tmp_path, f'{{"question": "who?", {field}}}')[0].answers == ("me",)


def test_ids_are_whole_numbers_or_strings_and_come_out_as_strings(tmp_path):
    (question,) = read(tmp_path, '{"id": 7, "question": "who?", "answers": ["me"], "positive_ids": [17, "a", "17"]}')
    assert question.id == "7"
    assert question.positive_ids == ("17", "a")


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ('{"question": "who?", "answers": []}', "no answers", "as a list of strings"),
        ('{"question": "who?"}', "no answers", "as a list of strings"),
        ('{"question": "who?", "answers": {"a": 1}}', "no answers", "as a list of strings"),
        ('{"question": "who?", "answers": ["a", " "]}', '"answers" is empty', "fill it in"),
        ('{"question": "who?", "answers": [3]}', '"answers" is a number, not a string', "in quotes"),
        ('{"question": " \\t", "answers": ["a"]}', '"question" is empty', "fill it in"),
        ('{"answers": ["a"]}', '"question" is missing', "as a string in quotes"),
        ('{"question": ["who"], "answers": ["a"]}', '"question" is a list, not a string', "in quotes"),
        ('{"question": "who\\u0000", "answers": ["a"]}', '"question" holds a NUL character', "remove it"),
        ('{"question": "\\ud800", "answers": ["a"]}', '"question" holds half a surrogate', "write the whole"),
        (
            '{"question": "who?", "answers": ["a"], "ctxs": []}',
            "a row of DPR output in a file that begins",
            "of its own",
        ),
        ('{"question": "who?", "answers": ["a"], "positive_ids": 3}', '"positive_ids" is not a list', "as a list"),
        ('{"question": "who?", "answers": ["a"], "positive_ids": [1.5]}', '"positive_ids" is a number', "whole number"),
        ('{"question": "who?", "answers": ["a"], "positive_ids": [true]}', '"positive_ids" is true', "whole number"),
        ('{"id": null, "question": "who?", "answers": ["a"]}', '"id" is null', "whole number"),
        ('{"id": "1", "question": "who?", "answers": ["a"]}', 'the id "1" occurs twice', "an id of its own"),
        (
            '{"question": "who?", "answers": ["(a"], "regex": true}',
            "'(a': not a regular expression",
            'correct the answer, or leave "regex" out',
        ),
        (
            '{"question": "who?", "answers": ["a|"], "regex": true}',
            "'a|': as a regular expression it matches every",
            "correct",
        ),
        ('{"question": "who?", "answers": ["a"], "regex": "yes"}', '"regex" is "yes"', "true or false"),
        (
            '{"question": "?", "answers": ["a"], "relevance": [0]}',
            '"relevance" is not a list of grades',
            "of at least 1",
        ),
        (
            '{"question": "?", "answers": ["a"], "relevance": [1]}',
            "1 grades for 0 different positive_ids",
            "one to each",
        ),
        ('{"question": "who?", "answers": ["a"]', "malformed JSON", "one JSON object on each line"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, line, what, remedy):
    with pytest.raises(InputError) as caught:
        read(tmp_path, f'{{"question": "why?", "answers": ["so"]}}\n{line}\n')
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'q.jsonl'}:2: {what}")
    assert remedy in message.split("; ")[-1]
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_file_without_questions_is_an_input_error(tmp_path, text):
    with pytest.raises(InputError, match=r"q\.jsonl: holds no questions; write one"):
        read(tmp_path, text)


def test_answers_may_be_regular_expressions(tmp_path):
    (question,) = read(tmp_path, '{"question": "how many?", "answers": ["\\\\d+", "[[a]b"], "regex": true}')
    assert (question.answers, question.regex) == (("\\d+", "[[a]b"), True)


def test_a_question_with_gold_passages_needs_no_answers(tmp_path):
    assert read(tmp_path, '{"question": "who?", "positive_ids": ["a"]}') == [Question("1", "who?", (), ("a",))]


def test_a_file_says_its_format(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "who?", "golden_answers": ["me"]}')
    assert read_question_file(tmp_path / "q.jsonl") == ("FlashRAG", [Question("1", "who?", ("me",))])
    (tmp_path / "q.jsonl").write_text('{"claim": "It is.", "label": "SUPPORTS"}')
    assert read_question_file(tmp_path / "q.jsonl").format == "claims"


def test_texts_are_read_without_answers(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"id": "a", "question": "who?"}\n{"question": "why?", "answers": [3]}')
    assert read_question_texts(tmp_path / "q.jsonl") == [("a", "who?"), ("2", "why?")]


@pytest.mark.parametrize(
    ("question", "what"),
    [
        (Question("q7", "how many?", (r"\d+",), regex=True), "answers are regular expressions; write them out"),
        (Question("q7", "where?", (), ("p",)), "no answers; give it one"),
    ],
)
def test_a_question_that_is_no_training_pair_is_named(question, what):
    with pytest.raises(InputError, match=f"^training question 'q7': .*{what}"):
        training_pairs([Question("1", "who?", ("me",)), question], "sampled")


def test_training_pairs_take_every_answer_or_the_first():
    one, two = Question("1", "who?", ("me", "myself")), Question("2", "where?", ("here",))
    assert training_pairs([one, two], "all") == [(one, "me"), (one, "myself"), (two, "here")]
    assert training_pairs([one, two], "first") == [(one, "me"), (two, "here")]


def test_a_fingerprint_is_of_what_a_score_depends_on() -> None:
    one, two = Question("1", "who", ("a", "b")), Question("2", "what", ("c",))
    same = [two._replace(id="x", positive_ids=("p",)), one._replace(answers=("b", "a"))]
    assert fingerprint([one, two]) == fingerprint(same)
    others = [[one], [one, two, two], [one, two._replace(question="What")], [one, two._replace(answers=("d",))]]
    assert len({fingerprint(each) for each in [[one, two], *others]}) == 5


@pytest.mark.parametrize("name", ["id", "_id", "query_id"])
def test_an_id_may_be_called_as_beir_and_tevatron_do(tmp_path, name):
    line = f'{{"{name}": "PLAIN-2", "question": "who?", "answers": ["me"]}}'
    assert read(tmp_path, line)[0].id == "PLAIN-2"
    assert read_question_texts(tmp_path / "q.jsonl") == [("PLAIN-2", "who?")]
