"""Folders of text and Markdown: a document for each file, under its path and its heading."""

import gzip
import os
import sys

import pytest
from hypothesis import example, given

from corpora import any_text, one_folder, refusal, skipping
from rag_jax.corpus import BadLines, Chunker, Passage, read_corpus
from rag_jax.errors import InputError


def write(folder, **contents: str | bytes):
    """Files of a folder; in their names `__` stands for a slash and `_1` for a full stop."""
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_1", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def only(path) -> Passage:
    [passage] = read_corpus(path)
    return passage


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    write(
        tmp_path, b_1txt="two", a__z_1md_1gz="# One\n\nFirst.", a_1markdown="zero", c__d__e_1txt_1gz="four", bb_1TXT="3"
    )
    write(tmp_path, _1hidden_1txt="no", _1git__x_1txt="no", c__picture_1png=b"\xff\0", a__notes="no", table_1csv="no")
    assert list(read_corpus(tmp_path)) == [
        Passage("a/z.md.gz", "One", "# One\n\nFirst."),
        Passage("a.markdown", "a", "zero"),
        Passage("b.txt", "b", "two"),
        Passage("bb.TXT", "bb", "3"),
        Passage("c/d/e.txt.gz", "e", "four"),
    ]


def test_files_of_other_kinds_are_named(tmp_path, capsys):
    write(tmp_path, b_1txt="two", _1hidden_1pdf="no")
    assert len(list(read_corpus(tmp_path))) == 1
    assert not capsys.readouterr().err
    write(tmp_path, a__first_1pdf="no", table_1csv="no")
    assert len(list(read_corpus(tmp_path))) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path}: 2 files of other kinds are not read, first a/first.pdf; convert" in told.replace("\\", "/")
    list(read_corpus(tmp_path))
    assert not capsys.readouterr().err


def test_linked_folders_are_named(tmp_path, capsys):
    write(tmp_path, docs__a__b_1txt="one", other__c_1txt="two")
    (tmp_path / "docs" / "a" / "linked").symlink_to(tmp_path / "other")
    assert [passage.id for passage in read_corpus(tmp_path / "docs")] == ["a/b.txt"]
    assert (
        "docs: 1 linked folder is not read, first a/linked; copy what should be in the corpus"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["notes.txt", "notes.md", "notes.markdown", "notes.txt.gz", "notes.md.gz"])
@one_folder
@example(text="one\r\ntwo")
@given(text=any_text.filter(str.strip).filter(lambda text: text.strip()[0] not in "-#~` \ufeff"))
def test_a_file_alone_is_a_document_as_it_is_written(tmp_path, name, text):
    write(tmp_path, **{name.replace(".", "_1"): text})
    passage = only(tmp_path / name)
    assert (passage.id, passage.text) == (name, text.removeprefix("\ufeff").replace("\r\n", "\n").strip())


@pytest.mark.parametrize("name", ["notes.txt", "notes.md"])
def test_line_ends_of_windows_are_line_ends(tmp_path, name):
    (tmp_path / name).write_bytes(b"One line.\r\nAnother.\r\n\r\nA paragraph.\r\n")
    assert only(tmp_path / name).text == "One line.\nAnother.\n\nA paragraph."


def test_a_title_is_made_of_the_name_of_a_file(tmp_path):
    write(tmp_path, **{"the_city-of.light.txt": "# Not a heading in plain text"})
    assert only(tmp_path).title == "the city of.light"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Heading\ntext", "Heading"),
        ("text\n\n  # Heading ##\n# Second", "Heading"),
        ("# C#", "C#"),
        ("#\tHeading\r\n", "Heading"),
        ("# \n## Lower\n#tag\ntext", "name"),
        ("# #\n# Heading", "Heading"),
        ("    # code\ntext", "name"),
        ("```sh\n# comment\n~~~\n```\n# Heading", "Heading"),
        ("~~~\n```\n# comment\n~~~~\n# Heading", "Heading"),
        ("````\n```\n# comment\n", "name"),
        ("```inline``` code\n# Heading", "Heading"),
        ("---\ntitle: x\n# comment\n---\n# Heading", "Heading"),
    ],
)
def test_the_title_of_markdown_is_its_first_heading(tmp_path, text, title):
    write(tmp_path, name_1md=text)
    assert only(tmp_path).title == title


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("---\ntitle: x\n---\n\n# Heading\n```\ncode\n```\n", "# Heading\n```\ncode\n```"),
        ("---\r\ntitle: x\r\n...\r\ntext\r\n", "text"),
        ("---\nno front matter without an end", "---\nno front matter without an end"),
        ("text\n---\nnot: first\n---\n", "text\n---\nnot: first\n---"),
        ("---\n---\ntext", "text"),
        ("---\n\nrules around this\n\n---\ntext", "---\n\nrules around this\n\n---\ntext"),
    ],
)
def test_front_matter_is_left_out_of_markdown(tmp_path, text, left):
    assert only(write(tmp_path / "md", name_1md=text)).text == left
    assert only(write(tmp_path / "txt", name_1txt=text)).text == text.strip().replace("\r\n", "\n")


def test_documents_are_cut(tmp_path):
    write(tmp_path, a_1txt="one two\nthree", b_1md="# B\nfour")
    assert list(read_corpus(tmp_path, Chunker(2))) == [
        Passage("a.txt", "a", "one two", "a.txt"),
        Passage("a.txt#2", "a", "three", "a.txt"),
        Passage("b.md", "B", "# B", "b.md"),
        Passage("b.md#2", "B", "four", "b.md"),
    ]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ("", 1, "holds no text; write some, remove the file, or give --skip-bad"),
        (" \n\n", 1, "holds no text; write some, remove the file, or give --skip-bad"),
        ("---\ntitle: x\n---\n", 1, "holds no text; write some, remove the file, or give --skip-bad"),
        (b"one\ntwo \xff\n\xff", 2, "byte 5 is not UTF-8; save the file as UTF-8 text"),
        (b"one\0\n", 1, "holds a NUL byte; remove it, or save the file as UTF-8 text"),
        (
            b"one\n" + b"x" * 2**25 + b"\n",
            2,
            "longer than 32 MiB; cut the text into several, or end the lines with line feeds",
        ),
    ],
)
@pytest.mark.parametrize("name", ["b_1md", "b_1md_1gz"])
def test_a_bad_document_is_named_by_file_and_line_and_its_neighbours_are_read(tmp_path, name, content, line, what):
    write(tmp_path, a_1txt="one", c_1txt="three", **{name: content})
    message = f"/{name.replace('_1', '.')}:{line}: {what}"
    assert refusal(tmp_path) == message
    assert skipping(tmp_path) == (
        [Passage("a.txt", "a", "one"), Passage("c.txt", "c", "three")],
        [f"{tmp_path}{message}"],
    )


def test_a_damaged_file_is_refused_whatever_bad_says(tmp_path):
    write(tmp_path, a_1txt="one", b_1txt_1gz="two")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"two" * 1000)[:-9])
    with pytest.raises(InputError, match=r"b\.txt\.gz:1: damaged gzip"):
        skipping(tmp_path)


def test_links_to_folders_are_not_followed(tmp_path):
    write(tmp_path, a__b_1txt="one")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "a" / "c.txt").symlink_to(tmp_path / "a" / "b.txt")
    assert [passage.id for passage in read_corpus(tmp_path)] == ["a/b.txt", "a/c.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take no such name")
def test_a_name_that_is_not_utf8_is_a_fault_that_can_be_logged(tmp_path):
    write(tmp_path, b_1txt="two")
    (tmp_path / os.fsdecode(b"a\xff.txt")).write_text("one")
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        assert list(read_corpus(tmp_path, on_bad_line=BadLines(log.write))) == [Passage("b.txt", "b", "two")]
    what = '"id" holds half a surrogate pair; write the whole character\n'
    assert (tmp_path / "log").read_text("utf-8") == f"{tmp_path}/a\ufffd.txt: {what}"
