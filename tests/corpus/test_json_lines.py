"""JSON lines of passages, and the `.json` files that hold them."""

import gzip
import json

import pytest
from hypothesis import given

from corpora import corpora, one_folder, refusal, skipping
from rag_jax.corpus import Chunker, Passage, read_corpus
from rag_jax.data.jsonl import write_jsonl

NAMES = ["corpus.jsonl", "corpus.jsonl.gz", "corpus.json", "corpus.json.gz"]


def write(path, content: str):
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


@pytest.mark.parametrize("name", NAMES)
@one_folder
@given(passages=corpora)
def test_what_is_written_is_read_back(tmp_path, name, passages):
    write_jsonl(tmp_path / name, (passage._asdict() for passage in passages))
    assert list(read_corpus(tmp_path / name)) == passages


def test_nothing_is_needed_but_a_text(tmp_path):
    path = write(tmp_path / "corpus.jsonl", '\n{"text": "one"}\n{"id": 7, "text": "two", "url": "…"}\n')
    assert list(read_corpus(path)) == [Passage("2", "", "one"), Passage("7", "", "two")]


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ('{"id": "2"}', '"text" is missing', "as a string in quotes"),
        ('{"text": null}', '"text" is missing', "as a string in quotes"),
        ('{"text": 3}', '"text" is a number, not a string', "in quotes"),
        ('{"text": ["a"]}', '"text" is a list, not a string', "in quotes"),
        ('{"text": "\\n"}', '"text" is empty', "fill it in"),
        ('{"text": "a\\u0000"}', '"text" holds a NUL character', "remove it"),
        ('{"text": "\\ud800"}', '"text" holds half a surrogate pair', "write the whole character"),
        ('{"text": "a", "title": "\\udc00"}', '"title" holds half a surrogate pair', "write the whole character"),
        ('{"text": "a", "id": "\\udc00"}', '"id" holds half a surrogate pair', "write the whole character"),
        ('{"text": "a", "title": ["t"]}', '"title" is not a string', "leave it out"),
        ('{"text": "a", "id": 1.5}', '"id" is a number', "whole number"),
        ('{"text": "a", "id": 1}', 'the id "1" occurs twice', "an id of its own"),
        ('{"text": "a"', "malformed JSON", "one JSON object on each line"),
        ('["a"]', "holds a list, not an object", "one JSON object on each line"),
        ('{"text": "\0"}', "holds a NUL byte", "remove it"),
    ],
)
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.json.gz"])
def test_a_bad_line_is_named_by_file_and_line_and_its_neighbours_are_read(tmp_path, name, line, what, remedy):
    path = write(tmp_path / name, '{"text": "one"}\n' + line + '\n{"text": "three"}\n')
    message = refusal(path)
    assert message.startswith(f":2: {what}")
    assert remedy in message.split("; ")[-1]
    assert skipping(path) == ([Passage("1", "", "one"), Passage("3", "", "three")], [f"{path}{message}"])


@pytest.mark.parametrize("content", [json.dumps([{"text": "a"}]), json.dumps({"text": "a"}, indent=1), "text", "[\n"])
def test_a_json_file_of_another_form_is_no_corpus(tmp_path, content):
    message = refusal(write(tmp_path / "corpus.json", content))
    assert message.startswith(": unknown kind of corpus, not one JSON object on each line; name a .tsv, .jsonl, ")


def test_a_title_that_is_null_is_none_given(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "title": null, "text": "x"}\n{"id": "b", "text": "y"}\n')
    assert list(read_corpus(path)) == [Passage("a", "", "x"), Passage("b", "", "y")]


@pytest.mark.parametrize("name", ["id", "_id", "docid"])
def test_an_id_may_be_called_as_beir_and_tevatron_do(tmp_path, name):
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"{name}": "MED-10", "title": "t", "text": "x", "metadata": {{}}}}\n')
    assert list(read_corpus(path)) == [Passage("MED-10", "t", "x")]


def test_a_document_of_beir_may_have_a_title_alone(tmp_path):
    path = write(tmp_path / "corpus.jsonl", '{"_id": "a", "title": "T", "text": ""}\n{"_id": "b", "text": "two"}\n')
    assert list(read_corpus(path, Chunker(3))) == [Passage("a", "T", ""), Passage("b", "", "two")]
    path = write(tmp_path / "other.jsonl", '{"_id": "a", "title": " ", "text": ""}\n')
    assert refusal(path).startswith(':1: "text" is empty')
    path = write(tmp_path / "own.jsonl", '{"id": "a", "title": "T", "text": ""}\n')
    assert refusal(path).startswith(':1: "text" is empty')
