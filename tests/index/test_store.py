"""The knowledge store: what is built is what is opened, and what does not fit is named."""

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.index import manifest, part_files, sealed_json, updates
from rag_jax.index.building import build
from rag_jax.index.engines import store_engines
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import Store, add_tokens, closed_book, from_vectors, open_store
from rag_jax.models.decoder_tower import DecoderTowerConfig
from rag_jax.models.rope import Rope
from stores import MORE, PASSAGES, encoder, reads


def built(folder: Path) -> Store:
    return build(folder, PASSAGES, encoder(), reads())


def test_what_is_built_is_what_is_opened(tmp_path: Path) -> None:
    first, opened = built(tmp_path / "index"), open_store(tmp_path / "index", encoder(), reads())
    assert list(opened.passages) == list(first.passages) == PASSAGES
    expected = from_vectors(PASSAGES, encoder().encode_passages(PASSAGES), reads())
    for store in (first, opened):
        jax.tree.map(np.testing.assert_array_equal, store.knowledge, expected.knowledge)
    assert opened.passage_tokens.dtype == np.uint16
    assert opened.find([passage.id for passage in PASSAGES]).tolist() == list(range(len(PASSAGES)))
    assert opened.find(["p7", "nowhere"]).tolist() == [7, -1]


def test_what_was_built_holds_nothing_but_its_parts(tmp_path: Path) -> None:
    built(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    folders = {"passages", "vectors", reads().folder}
    assert {path.name for path in (tmp_path / "index").iterdir()} == {"manifest.json", "rag-jax.store", *folders}
    kinds = {path.suffix for path in (tmp_path / "index").rglob("*") if path.is_file()}
    assert kinds == {".json", ".arrow", ".bin", ".store"}


def test_the_manifest_says_what_there_is(tmp_path: Path) -> None:
    built(tmp_path / "index")
    told = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert (told["version"], told["passages"], told["rows"], told["width"]) == (1, 50, 50, 8)
    assert told["dtype"] == "float32"
    assert told["tower"] == encoder().spec | {"source": "here"}
    assert told["generators"] == {reads().key: reads().spec}


def test_a_store_can_be_moved(tmp_path: Path) -> None:
    built(tmp_path / "index")
    (tmp_path / "index").rename(tmp_path / "moved")
    assert open_store(tmp_path / "moved", encoder(), reads()).passages == PASSAGES


def test_another_generator_reads_the_same_store_and_what_it_reads_is_kept_where_it_is_added(tmp_path: Path) -> None:
    built(tmp_path / "index")
    other = PassageTokenizer(train_generator_tokenizer(["something else"], 270), 12)
    expected = from_vectors(PASSAGES, np.zeros((50, 8), np.float32), other)
    before = contents(tmp_path)
    opened = open_store(tmp_path / "index", encoder(), other)
    assert contents(tmp_path) == before, "opening writes nothing"
    assert opened.truncated == expected.truncated
    added = [add_tokens(tmp_path / "index", other) for _ in range(2)]
    kept = open_store(tmp_path / "index", encoder(), other)
    for store in (opened, kept):
        jax.tree.map(np.testing.assert_array_equal, store.knowledge.passage_tokens, expected.knowledge.passage_tokens)
    assert added == [True, True]
    assert kept.manifest is not None
    assert kept.manifest.version == 2, "the second time adds nothing"
    assert kept.manifest.truncated(other.folder) == expected.truncated
    assert set(kept.manifest.generators) == {reads().key, other.key}
    jax.tree.map(
        np.testing.assert_array_equal,
        open_store(tmp_path / "index", encoder(), reads()).knowledge.passage_tokens,
        from_vectors(PASSAGES, np.zeros((50, 8), np.float32), reads()).knowledge.passage_tokens,
    )


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_segments_without_tokens_are_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(tmp_path / "index")
    updates.add(tmp_path / "index", MORE, encoder())
    tokenised, real = [], PassageTokenizer.tokenize
    monkeypatch.setattr(PassageTokenizer, "tokenize", lambda own, given: tokenised.extend(given) or real(own, given))
    store = open_store(tmp_path / "index", encoder(), reads())
    assert tokenised == MORE
    expected = from_vectors([*PASSAGES, *MORE], np.zeros((55, 8), np.float32), reads())
    jax.tree.map(np.testing.assert_array_equal, store.knowledge.passage_tokens, expected.knowledge.passage_tokens)


def test_a_store_that_cannot_be_written_is_read_by_another_generator_all_the_same(tmp_path, monkeypatch) -> None:
    built(tmp_path / "index")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    other = PassageTokenizer(reads().tokenizer, 8)
    assert not add_tokens(tmp_path / "index", other)
    store = open_store(tmp_path / "index", encoder(), other)
    assert store.passage_tokens.shape == (50, 8)
    assert store.manifest == manifest.read(tmp_path / "index")
    assert store.manifest.version == 1


def test_a_store_opens_without_a_generator_and_whichever_tower_made_it(tmp_path: Path) -> None:
    built(tmp_path / "index")
    store = open_store(tmp_path / "index", None, None)
    assert len(store) == 50
    assert store.passage_tokens.shape == (50, 0)


def test_opening_takes_milliseconds(tmp_path: Path) -> None:
    built(tmp_path / "index")
    open_store(tmp_path / "index", None, reads())
    taken = []
    for _ in range(5):  # other processes delay some of them
        began = time.perf_counter()
        open_store(tmp_path / "index", None, reads())
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"params": {"word": np.zeros((300, 8), np.float32)}}, "fingerprint"),
        ({"max_length": 24}, "max_length 32, the run's has 24; set retriever.max_passage, .* to 32, or rebuild it"),
        ({"template": "{text}"}, "template"),
        ({"norm": 2.0}, "norm None, the run's has 2.0"),
    ],
)
def test_a_store_of_another_tower_is_refused(change, told, tmp_path: Path) -> None:
    built(tmp_path / "index")
    with pytest.raises(InputError, match=f"index: built by a tower with {told}"):
        open_store(tmp_path / "index", dataclasses.replace(encoder(), **change), reads())


@pytest.mark.parametrize(("built_with", "opened_with"), [(None, 4), (4, None), (4, 2)])
def test_a_store_of_vectors_that_were_cut_otherwise_is_refused(built_with, opened_with, tmp_path: Path) -> None:
    build(tmp_path / "index", PASSAGES, dataclasses.replace(encoder(), cut_to=built_with), reads())
    with pytest.raises(InputError, match=f"built by a tower with cut_to {built_with}, the run's has {opened_with}; "):
        open_store(tmp_path / "index", dataclasses.replace(encoder(), cut_to=opened_with), reads())


def test_a_store_of_another_network_with_the_same_weights_is_refused(tmp_path: Path) -> None:
    config = DecoderTowerConfig(pooling="mean", rope=Rope(theta=5e5))
    build(tmp_path / "index", PASSAGES, dataclasses.replace(encoder(), config=config), reads())

    def opened_with(**changes) -> Store:
        return open_store(
            tmp_path / "index",
            dataclasses.replace(encoder(), config=dataclasses.replace(config, **changes)),
            reads(),
        )

    told = "index: built by a tower with {}; name that tower, or rebuild it"
    with pytest.raises(InputError, match=told.format("pooling \"'mean'\", the run's has 'the default'")):
        opened_with(pooling="last")
    with pytest.raises(InputError, match=r"with rope .*500000.*, the run's has .*10000"):
        opened_with(rope=Rope(theta=1e4))
    assert len(opened_with(scan=True, dtype=np.float16, init_std=0.5)) == len(PASSAGES)


def test_a_store_that_does_not_know_its_network_opens_with_any(tmp_path: Path) -> None:
    built(tmp_path / "index")
    known = dataclasses.replace(encoder(), config=DecoderTowerConfig(pooling="mean"))
    assert len(open_store(tmp_path / "index", known, reads())) == len(PASSAGES)


FILES = ["manifest.json", "vectors/000000/vectors.bin", "passages/000000/table.arrow", "vectors/000000/part.json"]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    built(tmp_path / "index")
    (tmp_path / "index" / file).unlink()
    with pytest.raises(InputError, match=file):
        open_store(tmp_path / "index", encoder(), reads())


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_was_cut_is_named(file: str, tmp_path: Path) -> None:
    built(tmp_path / "index")
    path = tmp_path / "index" / file
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=file):
        open_store(tmp_path / "index", encoder(), reads())


def test_a_changed_byte_is_found_by_its_checksum(tmp_path: Path) -> None:
    built(tmp_path / "index")
    path = tmp_path / "index" / "vectors/000000/vectors.bin"
    part_files.verify(path.parent)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    open_store(tmp_path / "index", encoder(), reads())
    with pytest.raises(InputError, match=r"vectors\.bin: does not have the checksum"):
        part_files.verify(path.parent)


def test_a_part_of_another_store_is_not_what_the_manifest_names(tmp_path: Path) -> None:
    """It is whole, and of the same sizes."""
    store, part = built(tmp_path / "index"), "vectors/000000"
    assert store.manifest is not None
    manifest.verify(tmp_path / "index", store.manifest)
    build(tmp_path / "other", PASSAGES[::-1], encoder(), reads())
    shutil.copytree(tmp_path / "other" / part, tmp_path / "index" / part, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"part\.json: not what the manifest names"):
        manifest.verify(tmp_path / "index", store.manifest)
    with pytest.raises(InputError, match=r"part\.json: not what the manifest names"):
        open_store(tmp_path / "index", None, None)


def test_a_description_of_other_sizes_is_found(tmp_path: Path) -> None:
    built(tmp_path / "index")
    path = tmp_path / "index" / "vectors/000000/part.json"
    path.write_text(path.read_text().replace("50", "49"))
    with pytest.raises(InputError, match=r"part\.json: vectors does not have the bytes"):
        part_files.read_arrays(path.parent)
    with pytest.raises(InputError, match=r"part\.json: not what the manifest names"):
        open_store(tmp_path / "index", encoder(), reads())


def test_a_manifest_of_other_counts_is_found(tmp_path: Path) -> None:
    built(tmp_path / "index")
    path = tmp_path / "index" / "manifest.json"
    path.write_text(path.read_text().replace('"passages": 50', '"passages": 51'))
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        open_store(tmp_path / "index", encoder(), reads())
    sealed_json.write(path, without_checksum(path))
    with pytest.raises(InputError, match="50 rows of passages, the manifest counts 51"):
        open_store(tmp_path / "index", encoder(), reads())


def without_checksum(path: Path) -> dict:
    """What a file says, without its own checksum."""
    return {key: each for key, each in sealed_json.read(path).items() if key != sealed_json.KEY}


def test_a_store_of_an_older_format_is_refused(tmp_path: Path) -> None:
    built(tmp_path / "index")
    path = tmp_path / "index" / "manifest.json"
    for format in (1, manifest.FORMAT):
        path.write_text(json.dumps(without_checksum(path) | {"format": format}))
        with pytest.raises(InputError, match="of another version of this library; rebuild the store"):
            open_store(tmp_path / "index", encoder(), reads())


def test_a_store_of_the_format_before_opens_and_the_next_change_completes_its_checksums(tmp_path: Path) -> None:
    """It had no checksums of itself, of removed rows and of engines, and no description of FAISS's file."""
    folder = tmp_path / "index"
    built(folder)
    updates.remove(folder, ["p7"])
    store_engines.add_bm25(open_store(folder, None, None))
    store = open_store(folder, None, None)
    found = store_engines.add_faiss(store, "Flat", store_engines.passage_queries(store))
    (folder / found.engines["faiss"]["part"] / part_files.DESCRIPTION_FILE).unlink()
    old = without_checksum(folder / "manifest.json") | {"format": manifest.UNSEALED}
    del old["checksums"]
    (folder / "manifest.json").write_text(json.dumps(old))

    opened = open_store(folder, encoder(), reads())
    assert list(opened.live_passages()) == [passage for passage in PASSAGES if passage.id != "p7"]
    assert store_engines.open_bm25(opened).size == 50
    with pytest.raises(InputError, match="has no index of FAISS; build one with rag-jax index"):
        store_engines.open_faiss(opened)
    updates.remove(folder, ["p8"])
    assert sealed_json.is_intact(sealed_json.read(folder / "manifest.json"))
    assert set(manifest.read(folder).checksums) == {"removed/000005", found.engines["bm25"]["part"]}


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no knowledge store there; build one"):
        open_store(tmp_path / "index", encoder(), reads())


def test_chosen_rows_are_a_little_knowledge_of_their_own(tmp_path: Path) -> None:
    store = built(tmp_path / "index")
    rows = np.array([7, -1, 3, 7])
    little = store.subset(rows)
    whole = store.knowledge
    there = rows >= 0
    np.testing.assert_array_equal(little.passage_vectors[there], whole.passage_vectors[[7, 3, 7]])
    np.testing.assert_array_equal(little.passage_tokens.ids[there], whole.passage_tokens.ids[[7, 3, 7]])
    np.testing.assert_array_equal(little.passage_tokens.lengths[there], whole.passage_tokens.lengths[[7, 3, 7]])
    empty = closed_book(store.width, reads().tokenizer).knowledge
    np.testing.assert_array_equal(little.passage_vectors[1], empty.passage_vectors[0])
    assert (little.passage_tokens.ids[1, 0], little.passage_tokens.lengths[1]) == (empty.passage_tokens.ids[0, 0], 1)


def test_removed_rows_stay_removed_behind_another_store() -> None:
    first, second = (
        from_vectors(each, np.zeros((len(each), 2), np.float32), reads()) for each in (PASSAGES[:3], PASSAGES[3:6])
    )
    both = first.remove_rows([1]).concatenate(second.remove_rows([0, 2]))
    assert both.alive.tolist() == [True, False, True, False, True, False]
    assert both.find([passage.id for passage in PASSAGES[:6]]).tolist() == [0, -1, 2, -1, 4, -1]


@pytest.mark.parametrize(("norm", "fits"), [(4.472136, True), (4.47213595499958, True), (4.4722, False)])
def test_norms_that_differ_by_rounding_are_the_same(norm: float, fits: bool, tmp_path: Path) -> None:
    made = dataclasses.replace(encoder(), norm=20**0.5)
    build(tmp_path / "index", PASSAGES, made, reads())
    if fits:
        open_store(tmp_path / "index", dataclasses.replace(made, norm=norm), reads())
        return
    with pytest.raises(InputError, match=r"has 4\.4722; give retriever\.vector_norm, or --norm of rag-jax index"):
        open_store(tmp_path / "index", dataclasses.replace(made, norm=norm), reads())
