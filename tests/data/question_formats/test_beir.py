"""BEIR: the questions of a qrels file, with the grades of their relevant documents."""

import gzip

import pytest

from rag_jax.data.questions import Question, read_question_file, read_question_texts
from rag_jax.errors import InputError

HEADER = "query-id\tcorpus-id\tscore\n"
QUERIES = '{"_id": "q1", "text": "who?"}\n{"_id": "q2", "text": "why?", "metadata": {}}\n{"_id": "q3", "text": ""}\n'


def write(folder, qrels, queries=QUERIES):
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text(qrels)
    return folder / "qrels" / "test.tsv"


def test_the_questions_are_those_with_judgements(tmp_path):
    path = write(tmp_path, f"{HEADER}q2\td 1\t2\nq1\t7\t1\n\nq2\td3\t0\r\nq2\td2\t1\n")
    questions = [
        Question("q2", "why?", (), ("d 1", "d2"), relevance=(2, 1)),
        Question("q1", "who?", (), ("7",), relevance=(1,)),
    ]
    assert read_question_file(path) == ("BEIR", questions)
    assert read_question_texts(path) == [("q2", "why?"), ("q1", "who?")]


def test_all_files_may_be_compressed(tmp_path):
    path = write(tmp_path, f"{HEADER}q1\t7\t1\n")
    for each in (path, tmp_path / "queries.jsonl"):
        each.with_name(f"{each.name}.gz").write_bytes(gzip.compress(each.read_bytes()))
        each.unlink()
    questions = [Question("q1", "who?", (), ("7",), relevance=(1,))]
    assert read_question_file(path.with_name("test.tsv.gz")).questions == questions


def test_the_folder_is_found_from_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, f"{HEADER}q1\t7\t1\n").parent)
    assert read_question_texts("test.tsv") == [("q1", "who?")]


def test_queries_by_themselves_are_texts(tmp_path):
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "who?"}\n')
    assert read_question_texts(tmp_path / "queries.jsonl") == [("q1", "who?")]
    with pytest.raises(InputError, match=r"queries\.jsonl:1: no answers; name a file of relevance judgements"):
        read_question_file(tmp_path / "queries.jsonl")


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("q1\t7\t1\nq9\t7\t1\n", ':3: the query "q9" is not in '),
        ("q1\t7\t1\nq1\t7\t2\n", ':3: the document "7" is judged twice for "q1"; remove one line'),
        ("q1\t7\n", ":2: not three fields; write query-id<TAB>corpus-id<TAB>score"),
        ("q1\t \t1\n", ":2: not three fields"),
        ("q1\t7\t1.5\n", """:2: the score of "7" for "q1" is '1.5'; write a whole number"""),
        ("q1\t7\t0\n", ":2: no answers; name a file of relevance judgements"),
        ("", ": holds no questions"),
    ],
)
def test_bad_judgements_are_named(tmp_path, lines, what):
    path = write(tmp_path, HEADER + lines)
    with pytest.raises(InputError) as caught:
        read_question_file(path)
    assert str(caught.value).startswith(f"{path}{what}")


@pytest.mark.parametrize(
    ("queries", "what"),
    [
        ('{"_id": "q1", "text": " "}', ':1: "text" is empty'),
        ('{"_id": "q1"}', ':1: "text" is missing'),
        ('{"text": "who?"}', ':1: "_id" is null'),
        ('{"_id": "q1", "text": "who?"}\n{"_id": "q1", "text": "who?"}', ':2: the id "q1" occurs twice'),
    ],
)
def test_bad_queries_are_named(tmp_path, queries, what):
    path = write(tmp_path, f"{HEADER}q1\t7\t1\n", queries)
    with pytest.raises(InputError) as caught:
        read_question_file(path)
    assert str(caught.value).startswith(f"{tmp_path / 'queries.jsonl'}{what}")


def test_missing_queries_are_asked_for(tmp_path):
    path = write(tmp_path, f"{HEADER}q1\t7\t1\n")
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=f"^{path}: there is no {tmp_path / 'queries.jsonl'}; put the queries"):
        read_question_file(path)
