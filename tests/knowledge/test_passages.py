"""Corpus files and the cutting of long texts."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage, read_passages, split_passages, split_words

HEADER = "id\ttext\ttitle\n"
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# What a corpus is full of, and csv stumbles over, more often than chance would bring it.
awkward = st.lists(st.sampled_from(['"', '""', "\t", "\n", "\r\n", "é", "\ufeff", "a b"])).map("".join)
texts = any_text | awkward
corpora = st.lists(
    st.builds(Passage, texts.filter(str.strip), texts, texts.filter(str.strip)),
    min_size=1,
    max_size=4,
    unique_by=lambda passage: passage.id,
)
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


def read(tmp_path, name: str, content: str) -> list[Passage]:
    (tmp_path / name).write_bytes(content.encode())
    return list(read_passages(tmp_path / name))


def as_tsv(passages, columns=("id", "text", "title")) -> str:
    file = io.StringIO()
    # Every field quoted: csv's minimal quoting leaves a lone "\r" bare, which no csv reader takes back.
    writer = csv.DictWriter(file, columns, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(passage._asdict() for passage in passages)
    return file.getvalue()


@one_folder
@given(passages=corpora, columns=st.permutations(["id", "text", "title"]))
def test_tsv_is_read_back_in_any_order_of_columns(tmp_path, passages, columns):
    assert read(tmp_path, "corpus.tsv", as_tsv(passages, columns)) == passages


@one_folder
@given(passages=corpora)
def test_jsonl_is_read_back(tmp_path, passages):
    write_jsonl(tmp_path / "corpus.jsonl", (passage._asdict() for passage in passages))
    assert list(read_passages(tmp_path / "corpus.jsonl")) == passages


def test_tsv_as_dpr_writes_it(tmp_path):
    content = HEADER + '1\t"He said ""no"". He left"\tA Title\n2\t"""Yes"""\t"A ""Title"""\n\n3\tbare\t\n'
    assert read(tmp_path, "corpus.tsv", content) == [
        Passage("1", "A Title", 'He said "no". He left'),
        Passage("2", 'A "Title"', '"Yes"'),
        Passage("3", "", "bare"),
    ]


def test_tsv_with_carriage_returns_and_a_byte_order_mark(tmp_path):
    content = "\ufeff" + HEADER.replace("\n", "\r\n") + "1\ttext\ttitle\r\n"
    assert read(tmp_path, "corpus.tsv", content) == [Passage("1", "title", "text")]


@pytest.mark.parametrize("name", ["corpus.tsv", "corpus.jsonl"])
def test_gzip_reads_like_the_plain_file(tmp_path, name):
    passages = [Passage("1", "t", "one"), Passage("x", "", "two")]
    content = as_tsv(passages) if name.endswith("tsv") else "\n".join(json.dumps(p._asdict()) for p in passages)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert list(read_passages(tmp_path / f"{name}.gz")) == passages


def test_jsonl_needs_nothing_but_a_text(tmp_path):
    assert read(tmp_path, "corpus.jsonl", '\n{"text": "one"}\n{"id": 7, "text": "two", "url": "…"}\n') == [
        Passage("2", "", "one"),
        Passage("7", "", "two"),
    ]


def test_passages_are_read_only_as_they_are_asked_for(tmp_path):
    (tmp_path / "corpus.tsv").write_text(HEADER + "1\ttext\ttitle\n2\n")
    assert next(read_passages(tmp_path / "corpus.tsv")) == Passage("1", "title", "text")


@pytest.mark.parametrize(
    ("row", "what", "remedy"),
    [
        ("2\ttext", "2 columns, not 3", "one tab between columns"),
        ("2", "1 column, not 3", "one tab between columns"),
        ("2\ttext\ttitle\tmore", "4 columns, not 3", "fields with tabs in quotes"),
        ("2\t \ttitle", '"text" is empty', "fill it in"),
        ("\ttext\ttitle", '"id" is empty', "fill it in"),
        ("1\ttext\ttitle", 'the id "1" occurs twice', "an id of its own"),
        ('2\t"text\ttitle\n3\ttext\ttitle', "malformed row (unexpected end of data)", 'close every "'),
        ('2\t"Weird Al" sang\ttitle', "malformed row", "double those inside a field"),
        ("2\t" + "x" * 200_000 + "\ttitle", "malformed row (field larger than field limit", "or use .jsonl"),
        ("2\tte\0xt\ttitle", "holds a NUL byte", "remove it"),
    ],
)
def test_a_bad_tsv_row_is_named_by_file_and_line(tmp_path, row, what, remedy):
    # The first passage fills lines 2 and 3, so the row begins on line 4.
    with pytest.raises(InputError) as caught:
        read(tmp_path, "corpus.tsv", HEADER + '1\t"two\nlines"\ttitle\n' + row + "\n")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'corpus.tsv'}:4: {what}")
    assert remedy in message.split("; ")[-1]
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "what", "remedy"),
    [
        ('{"id": "2"}', '"text" is missing', "as a string in quotes"),
        ('{"text": null}', '"text" is missing', "as a string in quotes"),
        ('{"text": 3}', '"text" is a number, not a string', "in quotes"),
        ('{"text": "\\n"}', '"text" is empty', "fill it in"),
        ('{"text": "a\\u0000"}', '"text" holds a NUL character', "remove it"),
        ('{"text": "a", "title": "\\udc00"}', '"title" holds half a surrogate pair', "write the whole character"),
        ('{"text": "a", "title": ["t"]}', '"title" is not a string', "leave it out"),
        ('{"text": "a", "id": 1.5}', '"id" is a number', "whole number"),
        ('{"text": "a", "id": 1}', 'the id "1" occurs twice', "an id of its own"),
        ('{"text": "a"', "malformed JSON", "one JSON object on each line"),
    ],
)
def test_a_bad_json_line_is_named_by_file_and_line(tmp_path, line, what, remedy):
    with pytest.raises(InputError) as caught:
        read(tmp_path, "corpus.jsonl", '{"text": "one"}\n' + line + "\n")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'corpus.jsonl'}:2: {what}")
    assert remedy in message.split("; ")[-1]
    assert "\n" not in message


@pytest.mark.parametrize(
    "header", ["", "\n\n", "1\ttext\ttitle\n", "id\ttext\n", "id\ttext\ttext\n", "id,text,title\n"]
)
def test_a_wrong_header_is_an_input_error(tmp_path, header):
    with pytest.raises(InputError, match=r"corpus\.tsv:1: not the header of a corpus; begin with the line id<TAB>text"):
        read(tmp_path, "corpus.tsv", header)


def test_broken_utf8_is_an_input_error(tmp_path):
    (tmp_path / "corpus.tsv").write_bytes(HEADER.encode() + b"1\tcaf\xe9\ttitle\n")
    with pytest.raises(InputError, match=r"corpus\.tsv:2: byte 6 is not UTF-8; save the file as UTF-8 text"):
        list(read_passages(tmp_path / "corpus.tsv"))


@pytest.mark.parametrize(("name", "content"), [("corpus.tsv", HEADER), ("corpus.jsonl", ""), ("corpus.jsonl", "\n \n")])
def test_a_corpus_without_passages_is_an_input_error(tmp_path, name, content):
    with pytest.raises(InputError, match=rf"{name}: holds no passages; write one on each line"):
        read(tmp_path, name, content)


@pytest.mark.parametrize("name", ["corpus.txt", "corpus", "corpus.gz", "corpus.csv.gz", "tsv", "jsonl"])
def test_an_unknown_suffix_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name}: unknown kind of corpus; name a \.tsv or \.jsonl file"):
        read(tmp_path, name, HEADER)


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path):
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(InputError, match=r"folder\.tsv: is a folder, not a file; name a file in it"):
        list(read_passages(tmp_path / "folder.tsv"))
    with pytest.raises(InputError, match=r"none\.jsonl\.gz: no such file; check the path"):
        list(read_passages(tmp_path / "none.jsonl.gz"))


@given(text=any_text, size=st.integers(1, 5))
def test_split_words_loses_no_word_and_fills_every_chunk_but_the_last(text, size):
    chunks = list(split_words(text, size))
    assert " ".join(chunks).split() == text.split()
    assert [len(chunk.split()) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert all(1 <= len(chunk.split()) <= size for chunk in chunks)


def test_split_words_refuses_chunks_without_words():
    with pytest.raises(InputError, match="passages of 0 words cannot be cut; ask for 1 word at least"):
        list(split_words("some text", 0))


@given(passages=corpora, size=st.integers(1, 3))
def test_split_passages_cuts_only_the_long_ones_and_only_once(passages, size):
    pieces = list(split_passages(passages, size))
    assert all(len(piece.text.split()) <= size for piece in pieces)
    assert {p for p in passages if len(p.text.split()) <= size} <= set(pieces)
    assert list(split_passages(pieces, size)) == pieces


def test_the_pieces_of_a_passage_are_numbered_from_its_id():
    passages = [Passage("a", "A", "one  two"), Passage("b", "B", "one two\nthree four five")]
    assert list(split_passages(passages, 2)) == [
        Passage("a", "A", "one  two"),
        Passage("b", "B", "one two"),
        Passage("b#2", "B", "three four"),
        Passage("b#3", "B", "five"),
    ]
