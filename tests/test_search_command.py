"""`rag-jax search`, as it is typed: which tower reads the questions, and what is not to be found."""

import re
import shutil
from pathlib import Path

import pytest

import world
from index_commands import SMALL, TOWNS, built, refused, run
from rag_jax.config.config import Config
from rag_jax.data.jsonl import write_jsonl
from rag_jax.index.passage_tokenizer import PassageTokenizer

ASKED = "what colour is Norburg"


def ids(found: str) -> list[str]:
    """The ids in the table that is printed for one question."""
    return re.findall(r"^-?\d+\.\d{4} +(\S+)", found, re.MULTILINE)


def test_a_tower_that_changed_since_the_index_was_built_is_refused(towns: Config, tmp_path: Path, capsys) -> None:
    tower, index, mined = tmp_path / "tower", tmp_path / "index", tmp_path / "mined.jsonl"
    shutil.copytree(towns.retriever.tower, tower)
    write_jsonl(tmp_path / "passages.jsonl", TOWNS)
    write_jsonl(tmp_path / "asked.jsonl", [{"id": "q", "question": ASKED, "positive_ids": [TOWNS[0]["id"]]}])
    run(capsys, "index", tmp_path / "passages.jsonl", "--out", index, "--tower", tower, *SMALL)
    asked = ("search", ASKED, "--index", index, "--num-docs", "2")
    before = ids(run(capsys, *asked))
    shutil.copytree(tower, tmp_path / "same")
    world.change_tower(tower)
    remedy = "build the index again, or name the question tower that belongs to it: --tower"
    line = f"error: {tower}: another tower than when {index} was built; {remedy}"
    assert refused(capsys, *asked) == line
    mine = ("mine", tmp_path / "asked.jsonl", "--output", mined, "--depth", "2", "--negatives", "1")
    assert refused(capsys, *mine, "--index", index, "--engine", "device") == line
    assert not mined.exists()
    assert ids(run(capsys, *asked, "--tower", tmp_path / "same")) == before == [TOWNS[0]["id"], TOWNS[1]["id"]]
    assert len(ids(run(capsys, *asked, "--tower", tower))) == 2, "one that is named is not compared"


def test_the_tower_of_a_workdir_does_not_read_the_passages(trained, towns, tmp_path, capsys, monkeypatch) -> None:
    rag, _, workdir = trained
    index = built(capsys, towns, tmp_path / "index")  # without tokens for its generator
    monkeypatch.setattr(PassageTokenizer, "tokenize", None)
    found = ids(run(capsys, "search", ASKED, "--index", index, "--workdir", workdir))
    assert found == [passage.id for passage in rag.search(ASKED)]


def test_a_document_is_excluded_with_all_its_pieces(towns: Config, tmp_path: Path, capsys) -> None:
    docs, index = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    (docs / "doc.md").write_text("# Norburg\n" + "Norburg is painted red . " * 4)
    (docs / "other.md").write_text("# Sudhof\nSudhof is painted blue . Sudhof is painted blue .")
    words = ("--words", "6", "--bm25")
    run(capsys, "index", docs, "--out", index, "--tower", towns.retriever.tower, *SMALL, *words)
    pieces = {"doc.md", *(f"doc.md#{number}" for number in (2, 3, 4))}
    asked = ("search", "Norburg is painted", "--index", index, "--num-docs", "6")
    for engine in ("device", "bm25"):
        assert {*ids(run(capsys, *asked, "--engine", engine))} == pieces | {"other.md", "other.md#2"}
        left = {*ids(run(capsys, *asked, "--engine", engine, "--exclude", "doc.md"))}
        assert left == {"other.md", "other.md#2"}
        less = {*ids(run(capsys, *asked, "--engine", engine, "--exclude", "doc.md#3", "other.md"))}
        assert less == pieces - {"doc.md#3"}
    assert f'{index}: no passage has the id "nowhere"; ' in refused(capsys, *asked, "--exclude", "doc.md", "nowhere")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--engine", "bm25", "--tower", "x"), "--engine bm25 searches without vectors; leave --tower out"),
        (("--engine", "bm25", "--workdir", "x"), "--engine bm25 searches without vectors; leave --workdir out"),
        (
            ("--engine", "bm25", "--question-template", "{question}"),
            "--engine bm25 searches without vectors; leave --question-template out",
        ),
        (
            ("--engine", "faiss", "--precision", "int8"),
            "--engine faiss searches no vectors on the device; leave --precision int8 out",
        ),
        (
            ("--engine", "bm25", "--precision", "bfloat16"),
            "--engine bm25 searches no vectors on the device; leave --precision bfloat16 out",
        ),
        (
            ("--workdir", "x", "--tower", "y"),
            "--tower and --workdir are two question towers; leave one of them out",
        ),
        (
            ("--workdir", "x", "--question-template", "{question}"),
            "--question-template and --workdir are two question towers; leave one of them out",
        ),
    ],
)
def test_options_that_a_search_would_ignore_are_refused(options, told: str, capsys) -> None:
    assert refused(capsys, "search", ASKED, "--index", "nowhere", *options) == f"error: {told}"
