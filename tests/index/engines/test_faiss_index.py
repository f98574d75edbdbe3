"""FAISS as an engine: exact where its kind is, near it elsewhere, and whatever is wrong with a file is named."""

import errno
import os
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import faiss
import numpy as np
import pytest

from rag_jax.errors import InputError
from rag_jax.index.engines import faiss_index
from rag_jax.index.engines.engine import Queries
from rag_jax.index.engines.faiss_index import FaissIndex

RNG = np.random.default_rng(0)
N, D, QUERIES = 1_000, 16, 12
TOPICS = RNG.normal(size=(20, D))
VECTORS = (TOPICS[RNG.integers(20, size=N)] + 0.5 * RNG.normal(size=(N, D))).astype(np.float32)
ASKED = Queries(["?"] * QUERIES, VECTORS[:QUERIES] + 0.1 * RNG.normal(size=(QUERIES, D)).astype(np.float32))
ALIVE = RNG.random(N) < 0.5
COMPRESSED = "IVF8,PQ8x4"
KINDS = ["Flat", "HNSW16", "IVF8,Flat", COMPRESSED, "SQ8", "PCA8,IVF8,Flat", "IVF8,PQ8x4,RFlat", "PQ8x4fs", "PQ8x4"]


@pytest.fixture(autouse=True)
def one_thread():
    """Beside other programs FAISS's threads wait for one another far longer than they work on so little."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


@lru_cache
def built(factory: str) -> FaissIndex:
    return FaissIndex.build([VECTORS[:700], VECTORS[700:]], factory, VECTORS)


def exact(k: int, alive=None, excluded=None) -> np.ndarray:
    """The rows of the k largest inner products, in float64."""
    products = ASKED.vectors.astype(np.float64) @ VECTORS.T.astype(np.float64)
    if alive is not None:
        products[:, ~alive] = -np.inf
    if excluded is not None:
        np.put_along_axis(products, excluded, -np.inf, axis=1)
    return np.argsort(-products, axis=1, kind="stable")[:, :k]


def share(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found[:, :, None] == expected[:, None, :]).any(axis=2).mean())


@pytest.mark.parametrize("k", [1, 10, N])
def test_flat_finds_what_numpy_finds(k: int) -> None:
    hits = built("Flat").search(ASKED, k)
    np.testing.assert_array_equal(hits.rows, exact(k))
    products = np.take_along_axis(ASKED.vectors @ VECTORS.T, hits.rows, axis=1)
    np.testing.assert_allclose(hits.scores, products, rtol=1e-5, atol=1e-4)
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize(
    ("factory", "least"), [("HNSW16", 0.95), ("IVF8,Flat", 0.999), ("SQ8", 0.9), (COMPRESSED, 0.3), ("PCA8,SQ8", 0.3)]
)
def test_other_kinds_find_most_of_it(factory: str, least: float) -> None:
    assert share(built(factory).search(ASKED, 10).rows, exact(10)) >= least


def test_compressed_vectors_are_scored_again_where_that_is_asked_for() -> None:
    again = share(built("IVF8,PQ8x4,RFlat").search(ASKED, 10).rows, exact(10))
    assert again > share(built(COMPRESSED).search(ASKED, 10).rows, exact(10)) + 0.1


@pytest.mark.parametrize("factory", KINDS)
def test_rows_without_a_passage_and_excluded_ones_are_never_found(factory: str) -> None:
    index = replace(built(factory), alive=ALIVE)
    excluded = np.concatenate([index.search(ASKED, 2).rows, np.full((QUERIES, 1), -1)], axis=1)
    hits = index.search(ASKED, 10, excluded)
    assert (hits.rows >= 0).all(), "others take their places"
    assert ALIVE[hits.rows].all()
    assert not (hits.rows[:, :, None] == excluded[:, None, :]).any()


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat"])
def test_the_best_of_the_others_are_found(factory: str) -> None:
    excluded = exact(3, ALIVE)
    hits = replace(built(factory), alive=ALIVE).search(ASKED, 10, excluded)
    np.testing.assert_array_equal(hits.rows, exact(10, ALIVE, excluded))


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "PQ8x4"])
def test_fewer_than_were_asked_for_are_filled_up(factory: str) -> None:
    few = FaissIndex.build([VECTORS[:4]], factory, VECTORS)
    hits = replace(few, alive=np.asarray([True, False, True, True])).search(ASKED, 6, np.full((QUERIES, 1), 3))
    assert {frozenset(row) for row in hits.rows.tolist()} == {frozenset({0, 2, -1})}
    assert (hits.rows[:, 2:] == -1).all()
    assert np.isneginf(hits.scores[:, 2:]).all()
    assert np.isfinite(hits.scores[:, :2]).all()


def test_an_empty_index_finds_nothing() -> None:
    assert (FaissIndex.build([], "Flat", VECTORS).search(ASKED, 3).rows == -1).all()


@pytest.mark.parametrize("factory", KINDS)
def test_what_is_saved_is_what_is_opened(tmp_path: Path, factory: str) -> None:
    built(factory).save(tmp_path / "there" / "index.faiss")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["index.faiss"]
    opened = FaissIndex.open(tmp_path / "there" / "index.faiss", D, N)
    for mask in (None, ALIVE):
        first, again = (replace(index, alive=mask).search(ASKED, 10) for index in (built(factory), opened))
        np.testing.assert_array_equal(first.rows, again.rows)
        np.testing.assert_array_equal(first.scores, again.scores)


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF8,Flat"])
def test_an_opened_index_grows_as_one_in_memory(tmp_path: Path, factory: str) -> None:
    FaissIndex.build([VECTORS[:700]], factory, VECTORS).save(tmp_path / "index.faiss")
    opened = FaissIndex.open(tmp_path / "index.faiss", D, 700)
    assert opened.extend([]) is opened
    grown = opened.extend([VECTORS[700:900], VECTORS[900:]])
    np.testing.assert_array_equal(grown.search(ASKED, 10).rows, built(factory).search(ASKED, 10).rows)
    assert FaissIndex.open(tmp_path / "index.faiss", D).index.ntotal == 700, "the file is as it was"


def test_what_was_replaced_is_still_read_by_whoever_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    built("Flat").save(path)
    opened = FaissIndex.open(path, D, N)
    FaissIndex.build([VECTORS[::-1]], "Flat", VECTORS).save(path)
    np.testing.assert_array_equal(opened.search(ASKED, 3).rows, exact(3))
    np.testing.assert_array_equal(FaissIndex.open(path, D, N).search(ASKED, 3).rows, N - 1 - exact(3))


def test_fewer_lists_looked_through_find_less() -> None:
    index = FaissIndex.build([VECTORS], "IVF32,Flat", VECTORS)
    assert share(index.search(ASKED, 50).rows, exact(50)) == 1
    index.tune("nprobe=1")
    assert share(index.search(ASKED, 50).rows, exact(50)) < 1
    masked = replace(index, alive=ALIVE).search(ASKED, 50)
    assert share(masked.rows, exact(50, ALIVE)) < 1, "and so it is among selected rows"
    with pytest.raises(InputError, match=r"does not take 'efSearch=3' \(.+\); IVF takes nprobe=NUMBER, HNSW efSearch"):
        index.tune("efSearch=3")


def test_a_measured_recall_goes_with_its_k() -> None:
    index = replace(built("Flat"), recall={"recall@5": 0.75})
    assert index.search(ASKED, 5).recall == 0.75
    assert index.search(ASKED, 6).recall is None


def refused(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("factory", "rows", "says"),
    [
        (
            "nope",
            N,
            "FAISS makes no index 'nope' for vectors of width 16 (could not parse index string nope); try Flat",
        ),
        ("PQ7", N, "FAISS makes no index 'PQ7' for vectors of width 16 (The dimension of the vector (d) should be"),
        ("IVF64,Flat", 20, "IVF64,Flat cannot be trained on 20 vectors of width 16 (Number of training points (20)"),
        ("IDMap,Flat", N, "FAISS adds no rows to this index (add does not make sense with IndexIDMap"),
    ],
)
def test_a_kind_that_cannot_be_built_is_named(factory: str, rows: int, says: str) -> None:
    assert refused(lambda: FaissIndex.build([VECTORS], factory, VECTORS[:rows])).startswith(says)


def test_questions_that_do_not_fit_are_named() -> None:
    index = built("Flat")
    assert refused(lambda: index.search(ASKED._replace(vectors=None), 1)).endswith("; name the question tower")
    narrow = ASKED._replace(vectors=ASKED.vectors[:, 1:])
    assert refused(lambda: index.search(narrow, 1)).startswith("questions of width 15, the index has 16; ")
    assert refused(lambda: index.search(ASKED, 0)).startswith("cannot retrieve 0 passages; ")


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF8,Flat", COMPRESSED])
@pytest.mark.parametrize("kept", [0, 3, 0.5, 0.9, -1])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, factory: str, kept: float) -> None:
    path = tmp_path / "index.faiss"
    built(factory).save(path)
    size = path.stat().st_size
    os.truncate(path, int(kept * size) if 0 < kept < 1 else kept % size)
    line = refused(lambda: FaissIndex.open(path, D, N))
    assert line.startswith(f"{path}: cannot be read as an index of FAISS (")
    assert line.endswith("); build it again with rag-jax index --faiss")


def test_a_file_that_does_not_belong_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    assert refused(lambda: FaissIndex.open(path, D)).startswith(f"{path}: missing; build it again")
    path.write_bytes(b"something else, and long enough for a header" * 9)
    assert refused(lambda: FaissIndex.open(path, D)).startswith(f"{path}: cannot be read as an index of FAISS (")
    built("Flat").save(path)
    assert refused(lambda: FaissIndex.open(path, 8)).startswith(
        f"{path}: has vectors of width 16, the store's have 8; "
    )
    assert refused(lambda: FaissIndex.open(path, D, 9)).startswith(f"{path}: has {N} rows, the store 9; ")


@pytest.mark.parametrize("mask", [os.strerror(errno.ENOSPC), "something else"])
def test_a_disk_that_does_not_take_it_leaves_what_was_there(tmp_path: Path, monkeypatch, mask: str) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"before")

    def fails(index, name: str) -> None:
        Path(name).write_bytes(b"half")
        raise RuntimeError(f"Error in void faiss::write at x.cpp:1: write error: 7 != 9 ({mask})")

    monkeypatch.setattr(faiss_index.import_faiss(), "write_index", fails)
    says = "the disk is full, " if mask != "something else" else "cannot be written ("
    assert refused(lambda: built("Flat").save(path)).startswith(f"{path}: {says}")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"index.faiss": b"before"}


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert refused(lambda: FaissIndex.build([], "Flat", VECTORS)).endswith("; run: pip install faiss-cpu")
