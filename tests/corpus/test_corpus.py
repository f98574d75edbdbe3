"""What a corpus is told apart by, how it is streamed, and what is refused of all kinds alike."""

import gzip
import json
import tracemalloc

import pytest

from corpora import refusal, skipping
from rag_jax.corpus import Chunker, Passage, read_corpus
from rag_jax.errors import InputError

KINDS = ".tsv, .jsonl, .json, .txt, .md, .markdown (each also as .gz), .parquet, or a folder of documents or tables"


@pytest.mark.parametrize(
    "name", ["corpus", "corpus.gz", "a.csv", "a.csv.gz", "tsv", ".jsonl", "a.parquet.gz", "a.md.GZ"]
)
def test_an_unknown_suffix_is_refused_with_the_kinds_there_are(tmp_path, name):
    (tmp_path / name).write_text("id\ttext\ttitle\n")
    assert refusal(tmp_path / name) == f": unknown kind of corpus, by its suffix; name a {KINDS}"


@pytest.mark.parametrize("names", [[], ["table.tsv", "passages.jsonl"], [".hidden.txt", "a.parquet.gz"]])
def test_a_folder_without_documents_or_tables_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("text")
    assert refusal(tmp_path) == f": unknown kind of corpus, a folder without documents or tables; name a {KINDS}"


@pytest.mark.parametrize("name", ["none", "none.tsv", "none.jsonl.gz", "none.parquet", "none.md"])
def test_what_is_not_there_is_refused(tmp_path, name):
    assert refusal(tmp_path / name) == ": no such file; check the path"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus.tsv", "id\ttext\ttitle\n"),
        ("corpus.jsonl", ""),
        ("corpus.json", "\n \n"),
        ("corpus.jsonl", "[]\n"),
        ("corpus.txt", ""),
    ],
)
def test_a_corpus_of_which_nothing_is_left_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: holds no passages; give a corpus with one at least"):
        skipping(tmp_path / name)


def test_the_suffix_may_be_capital_and_the_path_a_string(tmp_path):
    (tmp_path / "CORPUS.JSONL").write_text('{"text": "one"}')
    assert list(read_corpus(str(tmp_path / "CORPUS.JSONL"))) == [Passage("1", "", "one")]


def test_a_tsv_is_cut_while_its_rows_count(tmp_path):
    (tmp_path / "corpus.tsv").write_text("id\ttext\ttitle\n1\ta b c\tA\n2\td\tD\n")
    assert list(read_corpus(tmp_path / "corpus.tsv", Chunker(2, 1))) == [
        Passage("1", "A", "a b", "1"),
        Passage("1#2", "A", "b c", "1"),
        Passage("2", "D", "d"),
    ]


@pytest.mark.parametrize(("first", "second"), [("a", "a#2"), ("a#2", "a")])
def test_a_piece_does_not_get_the_id_of_another_passage(tmp_path, first, second):
    path = tmp_path / "corpus.jsonl"
    texts = {"a": "one two three", "a#2": "four"}
    path.write_text("".join(json.dumps({"id": each, "text": texts[each]}) + "\n" for each in (first, second)))
    assert [passage.id for passage in read_corpus(path)] == [first, second], "uncut they are two"
    with pytest.raises(
        InputError, match=r'corpus\.jsonl:2: the id "a#2" occurs twice; give every line an id of its own'
    ):
        list(read_corpus(path, Chunker(2)))
    faults = []
    left = list(read_corpus(path, Chunker(2), faults.append))
    assert len(faults) == 1
    assert len({passage.id for passage in left}) == len(left) == (2 if first == "a" else 1)


@pytest.mark.parametrize("name", ["corpus.tsv.gz", "corpus.jsonl.gz"])
def test_a_line_of_a_hundred_megabytes_costs_its_row_and_little_memory(tmp_path, name):
    tsv = name.startswith("corpus.tsv")
    before, after = [f"{i}\ttext {i}\ttitle" if tsv else f'{{"id": {i}, "text": "text {i}"}}' for i in (7, 9)]
    with gzip.open(tmp_path / name, "wb", 1) as file:
        file.write(f"id\ttext\ttitle\n{before}\n8\t".encode() if tsv else f'{before}\n{{"text": "'.encode())
        for _ in range(100):
            file.write(b"word " * 200_000)
        file.write(f"\ttitle\n{after}\n".encode() if tsv else f'"}}\n{after}\n'.encode())
    tracemalloc.start()
    try:
        passages, [message] = skipping(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [passage.id for passage in passages] == ["7", "9"]
    assert message.startswith(f"{tmp_path / name}:{3 if tsv else 2}: longer than 32 MiB; ")
    assert peak < 40 * 10**6


@pytest.mark.extended
def test_a_long_corpus_is_read_without_being_held(tmp_path):
    # 4.5 MB of texts, in 1 MB of memory.
    with (tmp_path / "corpus.tsv").open("w") as file:
        file.write("id\ttext\ttitle\n")
        file.writelines(f"{i}\t{'word ' * 600}\ttitle\n" for i in range(1, 1501))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_corpus(tmp_path / "corpus.tsv", Chunker(100)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 1500 * 600 // 100
    assert peak < 10**6
