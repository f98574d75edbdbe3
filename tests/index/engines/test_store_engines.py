"""Engines that are kept with a store: measured when they are built, and right when the store has changed."""

import shutil

import numpy as np
import pytest

from rag_jax.errors import InputError
from rag_jax.index import building, manifest, updates
from rag_jax.index.engines import store_engines
from rag_jax.index.engines.device import DeviceIndex
from rag_jax.index.engines.engine import Queries
from rag_jax.index.placement import Placement
from rag_jax.index.store import from_vectors, open_store
from stores import MORE, PASSAGES, encoder, reads

ASKED = Queries(["goats of village 3", "people in town 17"], encoder()(["goats of village 3", "people in town 17"]))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store with FAISS, words, and a measured search in eight bits."""
    folder = tmp_path_factory.mktemp("kept") / "index"
    building.build(folder, PASSAGES, encoder(), reads())
    queries = store_engines.passage_queries(open_store(folder, None, None))
    store_engines.add_faiss(open_store(folder, None, None), "Flat", queries)
    store_engines.add_bm25(open_store(folder, None, None))
    store_engines.measure_precision(open_store(folder, None, None), "int8", queries)
    return folder


@pytest.fixture
def folder(built, tmp_path):
    shutil.copytree(built, tmp_path / "index")
    return tmp_path / "index"


def naive(passages, k: int) -> np.ndarray:
    scores = ASKED.vectors @ encoder().encode_passages(passages).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def test_what_was_measured_stands_in_the_manifest_and_in_every_result(folder) -> None:
    engines = manifest.read(folder).engines
    assert engines["faiss"]["factory"] == "Flat"
    assert engines["faiss"]["recall"] == {"recall@1": 1.0, "recall@5": 1.0, "recall@10": 1.0, "recall@20": 1.0}
    assert 0.5 < engines["int8"]["recall"]["recall@10"] <= 1.0
    assert store_engines.open_faiss(open_store(folder, None, None)).search(ASKED, 5).recall == 1.0


def test_a_kept_index_finds_what_it_did(folder) -> None:
    store = open_store(folder, None, None)
    np.testing.assert_array_equal(store_engines.open_faiss(store).search(ASKED, 5).rows, naive(PASSAGES, 5))
    assert store_engines.open_bm25(store).search(ASKED, 1).rows[1, 0] == 17


def test_rows_that_came_and_went_since_are_found_and_not_found(folder) -> None:
    updates.add(folder, MORE, encoder())
    updates.remove(folder, ["p17"])
    store = open_store(folder, None, None)
    now = PASSAGES + MORE
    expected = [[row for row in ranked if row != 17][:5] for ranked in naive(now, 6).tolist()]
    assert store_engines.open_faiss(store).search(ASKED, 5).rows.tolist() == expected
    words = store_engines.open_bm25(store).search(ASKED, 3).rows
    assert words[0, 0] >= 50
    assert 17 not in words


def test_recall_is_measured_without_the_whole_index_on_the_device(folder, monkeypatch) -> None:
    monkeypatch.setattr(DeviceIndex, "of", None)
    store = open_store(folder, None, None)
    queries = store_engines.passage_queries(store)
    measured = manifest.read(folder).engines["faiss"]["recall"]
    assert store_engines.measure_recall(store_engines.open_faiss(store), store, queries) == measured


def test_a_recall_of_other_passages_is_not_reported(folder) -> None:
    updates.remove(folder, ["p18"])
    store = open_store(folder, None, None)
    assert store_engines.open_faiss(store).search(ASKED, 5).recall is None
    assert DeviceIndex.of(store, Placement(precision="int8")).search(ASKED, 5).recall is None
    assert DeviceIndex.of(store, Placement()).search(ASKED, 5).recall == 1.0
    store_engines.add_faiss(store, "Flat", store_engines.passage_queries(store))
    assert store_engines.open_faiss(open_store(folder, None, None)).search(ASKED, 5).recall == 1.0


def test_a_store_that_changed_while_an_engine_was_built_does_not_take_it(folder) -> None:
    store = open_store(folder, None, None)
    updates.add(folder, MORE, encoder())
    with pytest.raises(InputError, match="was changed while an engine was built"):
        store_engines.add_bm25(store)
    assert manifest.read(folder).engines["bm25"]["rows"] == 50


def test_an_engine_file_that_is_gone_is_named(folder) -> None:
    (folder / manifest.read(folder).engines["faiss"]["part"] / "index.faiss").unlink()
    with pytest.raises(InputError, match=r"index\.faiss: missing; build it again"):
        store_engines.open_faiss(open_store(folder, None, None))


def test_a_store_in_memory_keeps_no_engine() -> None:
    store = from_vectors(PASSAGES, encoder().encode_passages(PASSAGES), reads())
    with pytest.raises(InputError, match="the store is in memory"):
        store_engines.add_bm25(store)
