"""Markdown is split at its headings and between its blocks: titles, tables, code, sizes, and no text lost."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rag_jax.corpus import Chunker, Passage, read_corpus
from rag_jax.corpus.markdown import markdown_chunks


def split(text: str, size: int, overlap: int = 0, title: str = "Guide") -> list[tuple[str, str]]:
    chunks = list(markdown_chunks(Passage("guide.md", title, text), Chunker(size, overlap)))
    assert [chunk.id for chunk in chunks] == ["guide.md", *(f"guide.md#{n}" for n in range(2, len(chunks) + 1))]
    assert {chunk.document for chunk in chunks} == {"guide.md" if len(chunks) > 1 else ""}
    return [(chunk.title, chunk.text) for chunk in chunks]


def test_a_short_document_is_one_passage() -> None:
    assert split("# Guide\n\nShort.\n\n## More\n\nText.", 10) == [("Guide", "# Guide\n\nShort.\n\n## More\n\nText.")]


def test_line_ends_of_windows_change_nothing(tmp_path) -> None:
    text = "Guide\n=====\n\nAn introduction here.\n\nInstall\n-------\n\nUse pip, it is quick.\n"
    for name, found in (("unix", text), ("windows", text.replace("\n", "\r\n"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "guide.md").write_bytes(found.encode())
    unix, windows = (list(read_corpus(tmp_path / name, Chunker(6))) for name in ("unix", "windows"))
    assert unix == windows
    assert [passage.title for passage in unix] == ["guide > Guide", *["guide > Guide > Install"] * 2]


def test_a_section_starts_a_chunk_that_carries_its_headings() -> None:
    text = "# Guide\n\nAn introduction here.\n\n## Install\n\nUse pip.\n\n### On GPU\n\nUse CUDA.\n\n## Run\n\nCall it."
    assert split(text, 6) == [
        ("Guide", "# Guide\n\nAn introduction here."),
        ("Guide > Install", "## Install\n\nUse pip."),
        ("Guide > Install > On GPU", "### On GPU\n\nUse CUDA."),
        ("Guide > Run", "## Run\n\nCall it."),
    ]


def test_a_heading_without_text_is_joined_with_the_section_after_it() -> None:
    assert split("# Guide\n\n## Install\n\nUse pip now.\n\n## Run\n\nCall it.", 8) == [
        ("Guide > Install", "# Guide\n\n## Install\n\nUse pip now."),
        ("Guide > Run", "## Run\n\nCall it."),
    ]


def test_every_chunk_of_a_long_section_carries_its_heading() -> None:
    assert split("intro\n\n## Run\n\none two three\n\nfour five six", 5) == [
        ("Guide", "intro"),
        ("Guide > Run", "## Run\n\none two three"),
        ("Guide > Run", "four five six"),
    ]


@pytest.mark.parametrize("heading", ["Install\n=======", "Install\n-------", "## Install ##"])
def test_headings_of_all_forms_start_a_section(heading: str) -> None:
    titles = [title for title, _ in split(f"one two three\n\n{heading}\n\nfour five six", 6)]
    assert titles == ["Guide", "Guide > Install"]


def test_code_stays_whole_where_it_fits() -> None:
    code = "```py\n# not a heading\na = 1\n\nb = 2\n```"
    assert split(f"one two three four five\n\n{code}\n\nsix", 14) == [
        ("Guide", "one two three four five"),
        ("Guide", f"{code}\n\nsix"),
    ]


def test_code_longer_than_a_chunk_is_split_between_lines_that_keep_their_indentation() -> None:
    assert split("```\nif a:\n    b = 1\n    c = 2\n```", 5) == [
        ("Guide", "```\nif a:"),
        ("Guide", "    b = 1"),
        ("Guide", "    c = 2\n```"),
    ]


def test_a_table_is_not_split_below_its_header() -> None:
    table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"
    assert split(f"one two three\n\n{table}", 14) == [
        ("Guide", "one two three"),
        ("Guide", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("Guide", "| 3 | 4 |"),
    ]


def test_a_long_line_is_split_as_plain_text_and_fills_the_chunk_of_its_heading() -> None:
    assert split("## Run\n\none two three four five six", 4) == [
        ("Guide > Run", "## Run\n\none two"),
        ("Guide > Run", "three four five six"),
    ]
    assert [text for _, text in split("one two three four five", 3, overlap=1)] == ["one two three", "three four five"]


def test_only_markdown_files_are_split_at_their_structure(tmp_path) -> None:
    text = "one two\n\n## Run\n\nthree four"
    for name in ("a.md", "a.txt"):
        (tmp_path / name).write_text(text)
    assert [(passage.id, passage.title, passage.text) for passage in read_corpus(tmp_path, Chunker(4))] == [
        ("a.md", "a", "one two"),
        ("a.md#2", "a > Run", "## Run\n\nthree four"),
        ("a.txt", "a", "one two ## Run"),
        ("a.txt#2", "a", "three four"),
    ]


BLOCKS = st.sampled_from(
    [
        "# Guide",
        "## Section",
        "### Sub",
        "Under\n=====",
        "word",
        "one two three four five six seven",
        "two lines\nof text",
        "- item\n- other item",
        "```\n# code\n\nx = 1\n```",
        "~~~\nnever closed",
        "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |",
        "---",
        "中文没有空格中文没有空格中文没有空格",
    ]
)
DOCUMENTS = st.lists(BLOCKS, min_size=1, max_size=12).map("\n\n".join)


@given(DOCUMENTS, st.integers(1, 30))
@example("## Section\n\none two three four five six seven", 2)
def test_no_text_is_lost_and_sizes_are_respected(text: str, size: int) -> None:
    chunks = [text for _, text in split(text, size)]
    assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(chunk.strip() and Chunker(size).count(chunk) <= size for chunk in chunks)


@given(DOCUMENTS.filter(lambda text: "~~~" not in text), st.integers(12, 30))  # all below an open fence is code
def test_no_chunk_ends_with_a_heading_that_has_text(text: str, size: int) -> None:
    chunks = [text for _, text in split(text, size)]
    for chunk, following in pairwise(chunks):
        headings = [line.startswith(("# Guide", "## ", "### ")) for line in chunk.split("\n") if line.strip()]
        if not following.startswith("#") and "Under" not in chunk + following:
            assert not headings[-1] or all(headings)  # headings alone may fill a chunk
