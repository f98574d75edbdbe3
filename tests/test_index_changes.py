"""`rag-jax index` on an index that exists: passages are added, replaced and removed, or nothing is changed."""

import json
from pathlib import Path

import pytest

from index_commands import SMALL, TOWNS, built, refused, run
from rag_jax.config.config import Config
from rag_jax.data.jsonl import write_jsonl
from rag_jax.index import manifest
from rag_jax.index.store import open_store


@pytest.fixture
def tower(towns: Config) -> str:
    return towns.retriever.tower


@pytest.fixture
def index(towns: Config, tmp_path: Path, capsys) -> Path:
    return built(capsys, towns, tmp_path / "index")


def test_passages_are_added_replaced_and_removed(index, tmp_path, capsys) -> None:
    more = [{"id": "new", "title": "Neustadt", "text": "Neustadt is painted red ."}]
    write_jsonl(tmp_path / "more.jsonl", more)
    assert "257" in run(capsys, "index", tmp_path / "more.jsonl", "--out", index, "--change", "add")
    write_jsonl(tmp_path / "more.jsonl", [more[0] | {"text": "Neustadt is painted blue ."}])
    run(capsys, "index", tmp_path / "more.jsonl", "--out", index, "--change", "replace")
    run(capsys, "index", "--out", index, "--remove", "Norburg", "Sudhof")
    store = open_store(index, None, None)
    assert len(store) == 255
    assert store.passages[int(store.find(["new"])[0])].text == "Neustadt is painted blue ."
    assert "already; replace it" in refused(capsys, "index", tmp_path / "more.jsonl", "--out", index, "--change", "add")


def test_a_replacement_needs_the_ids_of_its_documents(index, tmp_path, capsys) -> None:
    write_jsonl(tmp_path / "changed.jsonl", [{"title": "Neustadt", "text": "Neustadt is painted red ."}])
    before = (index / manifest.FILE).read_bytes()
    told = refused(capsys, "index", tmp_path / "changed.jsonl", "--out", index, "--change", "replace")
    assert told == f'error: {tmp_path / "changed.jsonl"}:1: has no "id"; --change replace needs the id of each document'
    assert (index / manifest.FILE).read_bytes() == before


def test_a_command_whose_second_half_cannot_be_done_changes_nothing(index, tmp_path, capsys) -> None:
    before = (index / manifest.FILE).read_bytes()
    assert "HNSWx" in refused(capsys, "index", "--out", index, "--remove", "Norburg", "--faiss", "HNSWx")
    assert "typo" in refused(capsys, "index", "--out", index, "--remove", "Norburg", "--generator", tmp_path / "typo")
    assert (index / manifest.FILE).read_bytes() == before


def test_documents_are_replaced_and_removed_with_all_their_pieces(tower, tmp_path, capsys) -> None:
    docs, out = tmp_path / "docs", tmp_path / "index"
    docs.mkdir()
    (docs / "doc.md").write_text("# Norburg\n" + "Norburg is painted red . " * 4)
    (docs / "other.md").write_text("# Sudhof\nSudhof is painted blue . Sudhof is painted blue .")
    run(capsys, "index", docs, "--out", out, "--tower", tower, *SMALL, "--words", "6")
    ids = ["doc.md", "doc.md#2", "doc.md#3", "doc.md#4", "other.md", "other.md#2"]
    assert [passage.id for passage in open_store(out, None, None).live_passages()] == ids
    (tmp_path / "doc.md").write_text("# Norburg\nNorburg is painted black .")
    run(capsys, "index", tmp_path / "doc.md", "--out", out, "--change", "replace", "--words", "6")
    store = open_store(out, None, None)
    assert [(passage.id, "red" in passage.text) for passage in store.live_passages()] == [
        ("other.md", False),
        ("other.md#2", False),
        ("doc.md", False),
        ("doc.md#2", False),
    ]
    run(capsys, "index", "--out", out, "--remove", "other.md")
    assert [passage.id for passage in open_store(out, None, None).live_passages()] == ["doc.md", "doc.md#2"]
    assert 'no passage has the id "other.md"' in refused(capsys, "index", "--out", out, "--remove", "other.md")
    assert "two changes" in refused(capsys, "index", docs, "--out", out, "--remove", "doc.md", "--change", "add")
    assert len(open_store(out, None, None)) == 2


def test_later_passages_are_split_as_those_of_the_build(tower, tmp_path, capsys) -> None:
    texts = {name: [{"id": name, "title": name, "text": f"{name} is painted red . " * 4}] for name in ("a", "b", "c")}
    for name, rows in texts.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    out = tmp_path / "index"
    built = run(
        capsys,
        *("index", tmp_path / "a.jsonl", "--out", out, "--tower", tower, *SMALL, "--words", "7", "--overlap", "2"),
    )
    assert "7 words, 2 of them shared" in built
    added = ["index", tmp_path / "b.jsonl", "--out", out, "--change", "add"]
    run(capsys, *added)
    run(capsys, "index", tmp_path / "c.jsonl", "--out", out, "--change", "add", "--words", "100")
    store = open_store(out, None, None)
    by_document = {name: [p.text for p in store.live_passages() if p.id.split("#")[0] == name] for name in texts}
    assert [text.replace("b", "a") for text in by_document["b"]] == by_document["a"]
    assert len(by_document["a"]) == 4
    assert len(by_document["c"]) == 1
    run(capsys, "index", tmp_path / "b.jsonl", "--out", out, "--change", "replace", "--overlap", "3")
    replaced = [p.text.split() for p in open_store(out, None, None).live_passages() if p.id.split("#")[0] == "b"]
    assert [len(words) for words in replaced] == [7, 7, 7, 7, 4], "of 7 words still, and 3 of them shared"
    again = ["index", tmp_path / "b.jsonl", "--out", out, "--change", "replace", "--overlap"]
    assert "an overlap of 7 between passages of 7 words" in refused(capsys, *again, "7")
    run(capsys, *again, "0")
    apart = [p.text.split() for p in open_store(out, None, None).live_passages() if p.id.split("#")[0] == "b"]
    assert [len(words) for words in apart] == [7, 7, 6]


def test_a_change_that_is_refused_leaves_the_list_of_bad_lines(tower, tmp_path, capsys) -> None:
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(town) + "\n" for town in TOWNS) + "no JSON\n")
    out = tmp_path / "index"
    run(capsys, "index", tmp_path / "corpus.jsonl", "--out", out, "--tower", tower, *SMALL, "--skip-bad")
    before = (out / "bad.log").read_text()
    (tmp_path / "more.jsonl").write_text(json.dumps(TOWNS[0]) + "\nnot this either\n")
    told = refused(capsys, "index", tmp_path / "more.jsonl", "--out", out, "--change", "add", "--skip-bad")
    assert TOWNS[0]["id"] in told
    assert (out / "bad.log").read_text() == before
