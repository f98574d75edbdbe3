"""DPR's tsv: what is written is read back, and every fault is named and costs its own row only."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import corpora, one_folder, refusal, skipping
from rag_jax.corpus import Passage, read_corpus
from rag_jax.errors import InputError

HEADER = "id\ttext\ttitle\n"


def write(tmp_path, content: str, name: str = "corpus.tsv"):
    (tmp_path / name).write_bytes(content.encode())
    return tmp_path / name


def as_tsv(passages, columns=("id", "text", "title")) -> str:
    file = io.StringIO()
    # Every field quoted: csv's minimal quoting leaves a lone "\r" bare, which no csv reader takes back.
    writer = csv.DictWriter(
        file, columns, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(passage._asdict() for passage in passages)
    return file.getvalue()


@one_folder
@given(passages=corpora.filter(lambda passages: passages[0].id != "1"), columns=st.permutations(Passage._fields[:3]))
def test_a_tsv_is_read_back_in_any_order_of_columns(tmp_path, passages, columns):
    content = as_tsv(passages, columns).encode()
    (tmp_path / "corpus.tsv").write_bytes(content)
    (tmp_path / "corpus.tsv.gz").write_bytes(gzip.compress(content))
    assert list(read_corpus(tmp_path / "corpus.tsv")) == list(read_corpus(tmp_path / "corpus.tsv.gz")) == passages


def test_a_tsv_as_dpr_writes_it(tmp_path):
    content = HEADER + '1\t"He said ""no"". He left"\tA Title\n2\t"""Yes"""\t"A ""Title"""\n\n3\tbare\t\n'
    assert list(read_corpus(write(tmp_path, content))) == [
        Passage("1", "A Title", 'He said "no". He left'),
        Passage("2", 'A "Title"', '"Yes"'),
        Passage("3", "", "bare"),
    ]


def test_carriage_returns_and_a_byte_order_mark(tmp_path):
    content = "\ufeff" + HEADER.replace("\n", "\r\n") + "1\ttext\ttitle\r\n"
    assert list(read_corpus(write(tmp_path, content))) == [Passage("1", "title", "text")]


def test_passages_are_read_only_as_they_are_asked_for(tmp_path):
    reading = read_corpus(write(tmp_path, HEADER + "1\ttext\ttitle\n2\n"))
    assert next(reading) == Passage("1", "title", "text")
    with pytest.raises(InputError):
        next(reading)


BAD_ROWS = [  # each on line 4
    ("b\ttext", "2 columns, not 3", "one tab between columns"),
    ("b", "1 column, not 3", "one tab between columns"),
    ("b\ttext\ttitle\tmore", "4 columns, not 3", "fields with tabs in quotes"),
    ("b\t \ttitle", '"text" is empty', "fill it in"),
    ("\ttext\ttitle", '"id" is empty', "fill it in"),
    ("a\ttext\ttitle", 'the id "a" occurs twice', "an id of its own"),
    ('b\t"text\ttitle', "malformed row (", 'close every "'),
    ('b\t"Weird Al" sang\ttitle', "malformed row (", "double those inside a field"),
    ("b\tte\0xt\ttitle", "holds a NUL byte", "remove it"),
    ("b\tcaf\udce9\ttitle", "byte 6 is not UTF-8", "save the file as UTF-8"),
]


@pytest.mark.parametrize(("row", "what", "remedy"), BAD_ROWS)
@pytest.mark.parametrize("name", ["corpus.tsv", "corpus.tsv.gz"])
def test_a_bad_row_is_named_by_file_and_line_and_its_neighbours_are_read(tmp_path, name, row, what, remedy):
    # The first passage fills lines 2 and 3, so the row begins on line 4.
    rows = ['a\t"two\nlines"\ttitle', row, 'c\t"text, with ""quotes"""\ttitle', "d\ttext\ttitle"]
    content = (HEADER + "\n".join(rows) + "\n").encode(errors="surrogateescape")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    message = refusal(path)
    assert message.startswith(f":4: {what}")
    assert remedy in message.split("; ")[-1]
    passages, messages = skipping(path)
    assert [passage.id for passage in passages] == ["a", "c", "d"]
    assert messages == [f"{path}{message}"]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path):
    path = write(tmp_path, HEADER + 'a\t"open\ttitle\n' + "".join(f"p{i}\ttext\ttitle\n" for i in range(9)))
    passages, messages = skipping(path)
    assert [passage.id for passage in passages] == [f"p{i}" for i in range(9)]
    assert [message.split(" ")[0] for message in messages] == [f"{path}:2:"]
    assert "unexpected end of data" in messages[0]


def test_a_bad_line_within_a_row_costs_the_whole_row(tmp_path):
    path = tmp_path / "corpus.tsv"
    path.write_bytes(HEADER.encode() + b'a\t"one\n\xff\nthree"\ttitle\nb\ttext\ttitle\n')
    assert skipping(path) == (
        [Passage("b", "title", "text")],
        [f"{path}:3: byte 1 is not UTF-8; save the file as UTF-8 text"],
    )


def counting(*ids: str) -> str:
    return HEADER + "".join(f"{new}\ttext {place}\ttitle\n" for place, new in enumerate(ids))


def out_of_sequence(line: int, new: str, due: int) -> str:
    what = f'the id "{new}" where "{due}" is due, for the ids count from "1"'
    return f":{line}: {what}; copy or download the file again, or write a choice of rows as .jsonl"


@pytest.mark.parametrize(
    ("ids", "left", "faults"),
    [
        ("1 2 5 6 7", "1 2 6 7", [(4, "5", 3)]),
        ("1 3", "1", [(3, "3", 2)]),
        ("1 2 x 3 4", "1 2 3 4", [(4, "x", 3)]),
        ("1 2 03 3", "1 2 3", [(4, "03", 3)]),
        ("1 2 0 1000 3 4", "1 2 4", [(4, "0", 3), (5, "1000", 3), (6, "3", 1001)]),
        ("1 2 x 5 6", "1 2 6", [(4, "x", 3), (5, "5", 3)]),
        ("1 " + "9" * 5000 + " 2", "1 2", [(3, "9" * 5000, 2)]),
    ],
)
def test_an_id_out_of_sequence_is_named_with_the_one_that_is_due(tmp_path, ids, left, faults):
    path = write(tmp_path, counting(*ids.split()))
    assert refusal(path) == out_of_sequence(*faults[0])
    passages, messages = skipping(path)
    assert [passage.id for passage in passages] == left.split()
    assert messages == [f"{path}{out_of_sequence(*fault)}" for fault in faults]


def test_an_id_that_occurs_twice_does_not_change_the_sequence(tmp_path):
    path = write(tmp_path, counting("1", "2", "1", "3"))
    passages, messages = skipping(path)
    assert [passage.id for passage in passages] == ["1", "2", "3"]
    assert messages == [f'{path}:4: the id "1" occurs twice; give every line an id of its own']


@pytest.mark.parametrize("rows", ["3\t \ttitle", "3\ttext", '3\t"text\ttitle', "3\t\0\ttitle", "3\t\n4\t"])
def test_a_row_that_is_bad_in_another_way_does_not_make_the_next_one_out_of_sequence(tmp_path, rows):
    first, last, after = 2, 4 + rows.count("\n"), 6 + rows.count("\n")
    content = HEADER + "1\ttext\ttitle\n2\ttext\ttitle\n" + rows + f"\n{last}\ttext\ttitle\n{after}\ttext\ttitle\n"
    path = write(tmp_path, content)
    passages, messages = skipping(path)
    assert [passage.id for passage in passages] == ["1", str(first), str(last)]
    # But the row after that is checked again.
    assert messages[-1] == f"{path}{out_of_sequence(after, str(after), last + 1)}"
    assert len(messages) == 2 + rows.count("\n")


@pytest.mark.parametrize("ids", [("2", "4"), ("a", "1", "7"), ("0", "2"), ("01", "3")])
def test_ids_that_do_not_begin_with_one_need_not_count(tmp_path, ids):
    assert [passage.id for passage in read_corpus(write(tmp_path, counting(*ids)))] == list(ids)


@pytest.mark.parametrize(
    "header",
    ["", "\n\n", "1\ttext\ttitle\n", "id\ttext\n", "id\ttext\ttext\n", "id,text,title\n", 'id\t"text\ttitle\n'],
)
def test_a_wrong_header_is_refused_whatever_bad_says(tmp_path, header):
    path = write(tmp_path, header)
    with pytest.raises(InputError, match=r"corpus\.tsv:1: not the header of a corpus; begin with the line id<TAB>text"):
        skipping(path)
    assert refusal(path).startswith(":1: ")


def test_a_header_in_the_middle_is_refused(tmp_path):
    path = write(tmp_path, HEADER + "1\ttext\ttitle\n" + HEADER + "2\tmore\ttitle\n")
    assert refusal(path).startswith(":3: the header again; delete the line")


@pytest.mark.parametrize("length", [131_073, 2_000_000])
def test_a_field_may_be_as_long_as_a_line(tmp_path, length):
    passages = [Passage("a", "t", "x" * length), Passage("b", "t", "y")]
    assert list(read_corpus(write(tmp_path, as_tsv(passages)))) == passages
