"""The format of a question file is chosen by its content."""

import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_jax.data.question_formats.registry import FORMATS
from rag_jax.data.questions import Question, read_question_file, read_question_texts
from rag_jax.errors import InputError

ROWS = {
    "plain": {"question": "who?", "answers": ["me"]},
    "FlashRAG": {"question": "who?", "golden_answers": ["me"]},
    "DPR output": {"question": "who?", "answers": ["me"], "ctxs": []},
    "DPR training": {"question": "who?", "answers": ["me"], "positive_ctxs": []},
    "Atlas": {"question": "who?", "target": "me"},
    "TriviaQA": {"QuestionId": "1", "Question": "who?", "Answer": {"Value": "me"}},
    "claims": {"claim": "who?", "label": "me"},
    "texts": {"text": "who?", "label": "me"},
    "prompts": {"prompt": "who?", "label": "me"},
    "KILT": {"input": "who?", "output": [{"answer": "me"}]},
}
SQUAD = {"data": [{"paragraphs": [{"qas": [{"question": "who?", "answers": [{"text": "me"}]}]}]}]}


def test_every_format_is_tried_here():
    assert {*ROWS, "SQuAD", "BEIR"} == {format.name for format in FORMATS}


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.txt", "q.json.gz"])
@pytest.mark.parametrize("write", ["line", "list", "pretty list", "blank lines"])
@pytest.mark.parametrize("format", ROWS)
def test_a_row_is_recognised_whatever_the_file_is_called(tmp_path, format, write, name):
    text = json.dumps([ROWS[format]], indent=2 if write == "pretty list" else None)
    text = {"line": text[1:-1], "blank lines": f"\n\r\n{text[1:-1]}"}.get(write, f"\ufeff{text}")
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    id = "3" if write == "blank lines" and format != "TriviaQA" else "1"
    assert read_question_file(tmp_path / name) == (format, [Question(id, "who?", ("me",))])
    assert read_question_texts(tmp_path / name) == [(id, "who?")]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(("format", "document"), [("SQuAD", SQUAD), ("TriviaQA", {"Data": [ROWS["TriviaQA"]]})])
def test_a_document_is_recognised(tmp_path, format, document, indent):
    (tmp_path / "q.json").write_text(json.dumps({"version": "1", "x": [1]} | document, indent=indent))
    assert read_question_file(tmp_path / "q.json") == (format, [Question("1", "who?", ("me",))])


def test_a_document_in_one_line_may_be_longer_than_the_head(tmp_path, monkeypatch):
    monkeypatch.setattr("rag_jax.data.json_documents.CHUNK_BYTES", 60)
    (tmp_path / "q.json").write_text(json.dumps({"version": "1.1"} | SQUAD))
    assert read_question_file(tmp_path / "q.json").format == "SQuAD"


def test_a_question_may_have_a_field_called_data(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps(ROWS["plain"] | {"data": [1]}))
    assert read_question_file(tmp_path / "q.jsonl").format == "plain"


@pytest.mark.parametrize("other", [name for name in ROWS if name != "claims"])
def test_a_mixed_file_is_refused_at_the_first_other_row(tmp_path, other):
    rows = [ROWS["claims"], ROWS["claims"], ROWS[other]]
    path = tmp_path / "q.json"
    for text, location in [("\n".join(map(json.dumps, rows)), f"{path}:3"), (json.dumps(rows), f"{path}: item 3")]:
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            read_question_file(path)
        assert str(caught.value).startswith(location)
        assert f"a row of {other} in a file that begins with claims; give each" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            "question,answers\nwho?,me\n",
            ': in none of the formats of question files, it begins with "question,answers"',
        ),
        ("null", ': in none of the formats of question files, it begins with "null"'),
        ('{"prompt": "who?", "completion": "me"}', ':1: in none of the .*, its fields are "prompt, completion"'),
        ('{"instruction": "do", "input": "", "output": "x"}', ":1: in none of the formats"),
        ('[{"text": "who?"}]', ': item 1: in none of the .*, its fields are "text"'),
        ('{"prompt": "who?", "chosen": "me"}', ':1: in none of the .*, its fields are "prompt, chosen"'),
        ("[]", ": holds no questions; write one"),
        ('{"data": []}', ": holds no questions; write one"),
        ('{"Data": []}', ": holds no questions; write one"),
        ("", ": holds no questions; write one"),
        ('{"data": [3]}', ': "data" is not a list of objects; write it as one'),
        ('{"Data": {}}', ': "Data" is not a list of objects; write it as one'),
        ('{\n "data": [{"title"', ": malformed JSON at line 2"),
        ('{\n "question": "who?"\n}', r":1: malformed JSON at column 2 .*; write one JSON object on each line"),
        ('[{"question": "who?", "answers": ["me"]}', ": malformed JSON after the last item"),
        ('[{"id": "a", "question": "who?", "answers": []}]', r': item 1 \(id "a"\): no answers'),
        ('[{"id": 7, "question": " ", "answers": ["a"]}]', r': item 1 \(id 7\): "question" is empty'),
        ('[{"question": "who?", "answers": ["\\ud800"]}]', ': item 1: "answers" holds half a surrogate pair'),
    ],
)
def test_a_file_that_is_not_understood_is_refused_in_one_line(tmp_path, text, what):
    path = tmp_path / "q.json"
    path.write_text(text)
    with pytest.raises(InputError, match=f"^{path}{what}") as caught:
        read_question_file(path)
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_an_unknown_file_is_told_the_formats(tmp_path):
    (tmp_path / "q.csv").write_text("question,answer")
    with pytest.raises(
        InputError, match=r'write \{"question": …, "answers": \[…\]\} on each line, or use one of (.+)$'
    ) as error:
        read_question_file(tmp_path / "q.csv")
    assert all(format.name in str(error.value) for format in FORMATS if format.name != "plain")


def test_an_id_that_occurs_twice_is_named_by_its_item(tmp_path):
    (tmp_path / "q.json").write_text(json.dumps([{"id": "a", "question": "?", "answers": ["x"]}] * 2))
    with pytest.raises(InputError, match=r'q\.json: item 2 \(id "a"\): the id "a" occurs twice'):
        read_question_file(tmp_path / "q.json")


@pytest.mark.parametrize("content", [b'{"question": "caf\xe9"}\n', gzip.compress(b'{"question": "x"}', mtime=0)[:-9]])
def test_damage_in_lines_is_named_by_its_line(tmp_path, content):
    path = tmp_path / ("q.jsonl" if content.startswith(b"{") else "q.jsonl.gz")
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"^{path}:1: "):
        read_question_file(path)


def test_lines_may_come_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as writer:
        writer.submit((tmp_path / "pipe").write_text, f"{json.dumps(ROWS['KILT'])}\n" * 3)
        assert len(read_question_texts(tmp_path / "pipe")) == 3


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: no such file; check the path"):
        read_question_file(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a folder, not a file; name a file in it"):
        read_question_file(tmp_path)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("")
    with pytest.raises(InputError, match=f"^{tmp_path}: is a folder, not a file; name its relevance .*test.tsv$"):
        read_question_file(tmp_path)
