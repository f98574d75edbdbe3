"""Indexes from elsewhere: each format is read from files of the library that writes it, and every fault is named."""

import codecs
import gzip
import os
import pickle
import re
import sys
from pathlib import Path

import datasets
import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import importers
from rag_jax.index.importers import import_index

N, D = 40, 8
PASSAGES = [Passage(f"p{i}", f"Town {i}" if i else "", f"It has {i} people.") for i in range(N)]
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float16).astype(np.float32)
ROWS, BAD = np.arange(N)[:, None], (np.nan, np.inf, np.float64(1e300))
F32 = pa.list_(pa.float32())
KINDS = [F32, pa.list_(pa.float64()), pa.list_(pa.float16()), pa.large_list(pa.float32()), pa.list_(pa.float32(), D)]
LOSSES = {"HNSW8": 0, "IVF4,Flat": 0, "PCAR8,IVF4,Flat": 1e-5, "SQ8": 0.05, "HNSW8_SQ8": 0.05, "PQ4x4": 3}
SPELLINGS, FLOATS = st.sampled_from([int, str, np.int64, "wiki:{}".format]), st.sampled_from(["<f2", "<f4", ">f8"])
datasets.disable_progress_bars()


def save_dataset(folder: Path, vectors=VECTORS, kind=F32, shards: int = 1, **columns) -> Path:
    rows = {name: [getattr(passage, name) for passage in PASSAGES] for name in Passage._fields[:3]} | columns
    if isinstance(vectors, np.ndarray):
        vectors = list(vectors.astype(kind.value_type.to_pandas_dtype()))
    rows |= {} if vectors is None else {"embeddings": pa.array(vectors, kind)}
    table = pa.table({name: column for name, column in rows.items() if column is not None})
    datasets.Dataset(table).save_to_disk(str(folder), num_shards=shards)
    return folder


def save_tsv(folder: Path, name: str = "psgs_w100.tsv", passages=PASSAGES) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    rows = "".join(f"{p.id}\t{p.text}\t{p.title}\n" for p in passages)
    content = f"id\ttext\ttitle\n{rows}".encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def save_faiss(file: Path, kind: str = "Flat", vectors=VECTORS, ids=None) -> Path:
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors) if ids is None else index.add_with_ids(vectors, np.asarray(ids))
    faiss.write_index(index, str(file))
    return file.parent


def save_shard(file: Path, entries: object, protocol: int = 4, numpy_1: bool = False) -> Path:
    data = pickle.dumps(entries, protocol)
    file.write_bytes(data.replace(b"numpy._core.", b"numpy.core.") if numpy_1 else data)
    return file.parent


def refused(folder: Path, width: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        import_index(folder, width)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert re.fullmatch("[^\n]+; [^\n]+", message)
    return message.removeprefix(str(folder))


def assert_read(folder: Path, tolerance: float = 0.0) -> None:
    found = import_index(folder, D)
    assert found.passages == PASSAGES
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, VECTORS, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_dataset_with_embeddings(tmp_path, kind, shards):
    assert_read(save_dataset(tmp_path / "bare", kind=kind, shards=shards))
    assert_read(save_dataset(tmp_path / "passages", kind=kind, shards=shards).parent)


def test_a_dataset_as_python_users_make_it(tmp_path):
    rows = {"title": [None, "b"], "text": ["one", "two"], "embeddings": [[1.0, 2.0], [3.0, 4.0]], "id": [7, 5]}
    kinds = {"title": "string", "text": "large_string", "id": "uint16"}
    features = datasets.Features({name: datasets.Value(kind) for name, kind in kinds.items()})
    features["embeddings"] = datasets.Sequence(datasets.Value("float32"))
    made = datasets.Dataset.from_dict(rows, features)
    made.filter(lambda row: row["id"] == 5).save_to_disk(str(tmp_path / "a"))
    made.remove_columns("id").save_to_disk(str(tmp_path / "b"))
    assert import_index(tmp_path / "a").passages == [Passage("5", "b", "two")]
    assert import_index(tmp_path / "a").vectors.tolist() == [[3, 4]]
    assert import_index(tmp_path / "b").passages == [Passage("0", "", "one"), Passage("1", "b", "two")]


@pytest.mark.parametrize(("data", "index"), importers.DATASETS)
def test_a_dataset_with_a_faiss_file(tmp_path, data, index):
    save_dataset(tmp_path / data, None, shards=2)
    assert_read(save_faiss(tmp_path / index))
    whole = (tmp_path / index).read_bytes()
    for damaged in (b"", b"garbage" * 9, whole[:20], whole[:-5]):
        (tmp_path / index).write_bytes(damaged)
        assert refused(tmp_path).startswith(f"/{index}: FAISS cannot read it (")


@pytest.mark.parametrize(("kind", "tolerance"), LOSSES.items())
def test_kinds_of_faiss_indexes(tmp_path, kind, tolerance):
    save_dataset(tmp_path / "passages", None)
    assert_read(save_faiss(tmp_path / "index.faiss", kind), tolerance=tolerance)


@pytest.mark.parametrize("kind", ["IDMap,Flat", "IDMap2,Flat", "IDMap,IVF4,Flat", "IVF4,Flat"])
def test_ids_of_a_faiss_index_are_rows(tmp_path, kind):
    save_dataset(tmp_path / "passages", None)
    order = np.random.default_rng(1).permutation(N)
    assert_read(save_faiss(tmp_path / "index.faiss", kind, VECTORS[order], order))
    for ids in ([*range(1, N + 1)], [0, *range(N - 1)]):
        save_faiss(tmp_path / "index.faiss", kind, ids=ids)
        assert refused(tmp_path).startswith("/index.faiss: does not give its vectors back (")


def test_a_dataset_s_own_vectors_come_first(tmp_path):
    save_dataset(tmp_path / "passages")
    assert_read(save_faiss(tmp_path / "index.faiss", vectors=VECTORS + 1))
    save_faiss(tmp_path / "index.faiss", vectors=VECTORS[1:])
    assert refused(tmp_path).startswith(f"/index.faiss: {N - 1} vectors for {N} passages; ")


def test_dpr_s_column_that_makes_distances_inner_products_is_dropped(tmp_path):
    norms = (VECTORS**2).sum(1)
    longer = np.column_stack([VECTORS, np.sqrt(norms.max() - norms)]).astype(np.float32)
    save_faiss(save_tsv(tmp_path) / "hnsw.index", "HNSW8", longer)
    assert_read(tmp_path)
    assert import_index(tmp_path).vectors.shape == (N, D + 1)
    assert refused(tmp_path, 7).startswith("/hnsw.index: vectors of width 9, the question tower's have 7; ")


@pytest.mark.parametrize("name", ["psgs_w100.tsv", "psgs_w100.tsv.gz", "mine.tsv"])
def test_npy_files_in_the_order_of_their_numbers(tmp_path, name):
    save_tsv(tmp_path, name)
    for number, rows in enumerate(np.array_split(np.arange(N), 12)):
        np.save(tmp_path / f"v_{number}.npy", VECTORS[rows].astype(np.float64))
    assert_read(tmp_path)
    np.save(tmp_path / "v_12.npy", VECTORS[:, 1:])
    assert refused(tmp_path).startswith("/v_12.npy: vectors of width 7, those before have 8; ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.permutations(range(N)), st.integers(0, N), FLOATS, SPELLINGS, st.integers(0, 5), st.booleans())
def test_dpr_s_shards_in_any_order_and_spelling(tmp_path, order, cut, kind, spell, protocol, numpy_1):
    save_tsv(tmp_path, passages=[passage._replace(id=str(i)) for i, passage in enumerate(PASSAGES)])
    entries = [(spell(i), VECTORS[i].astype(kind), *(["more"] * (i % 2))) for i in order]
    save_shard(tmp_path / "wikipedia_passages_0.pkl", entries[:cut], protocol, numpy_1 and protocol < 4)
    save_shard(tmp_path / "out_1", entries[cut:], protocol, numpy_1 and protocol < 4)
    for name in ("index.dpr", "index_meta.dpr", "psgs_w100.tsv.pkl"):  # beside good vectors, these are not looked at
        (tmp_path / name).touch()
    np.testing.assert_array_equal(import_index(tmp_path).vectors, VECTORS)


def test_ids_of_shards_and_passages_are_the_same(tmp_path):
    save_tsv(tmp_path)
    entries = [(passage.id, vector) for passage, vector in zip(PASSAGES, VECTORS, strict=True)]
    save_shard(tmp_path / "a_0", [*entries[2:], entries[7], ("x", VECTORS[0]), ("nq:p1", VECTORS[1])])
    assert refused(tmp_path).startswith(
        ": 2 passages without a vector (first 'p0'), 2 vectors of unknown ids (first 'x'), "
        "1 vectors of ids that had one (first 'p7'); put all shards"
    )
    save_shard(tmp_path / "a_0", [*entries[1:], ("p0", VECTORS[0, 1:])])
    assert '/a_0: the vector of "p0" has width 7, those before 8; ' in refused(tmp_path)


class Calls(tuple):  # pickled, it becomes a call: a function, arguments, and perhaps a state that is set
    def __reduce__(self):
        return tuple(self)


# An array of objects whose dtype says that it is pickled as bytes: numpy would take the eight for a pointer.
FORGED_DTYPE = Calls((np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)))
FORGED = Calls((np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), FORGED_DTYPE, False, b"A" * 8)))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda marker: Calls((os.system, (f"touch {marker}",))), f"it asks for '{os.system.__module__}.system'"),
        (lambda marker: Calls((eval, (f"open({str(marker)!r}, 'w').close()",))), "eval'"),
        (lambda marker: Calls((np.save, (str(marker), 1))), "it asks for 'numpy.save'"),
        (lambda marker: Calls((codecs.encode, ("x", "rot13"))), "bytes in rot13"),
        (lambda marker: FORGED, "an array of O8"),
        (lambda marker: np.array([{}, None]), "an array of O8"),
    ],
)
def test_a_hostile_pickle_is_not_run(tmp_path, call, what, protocol):
    marker = tmp_path / "ran"
    save_shard(save_tsv(tmp_path / "folder") / "a_0", [("p0", VECTORS[0]), ("p1", call(marker))], protocol)
    assert re.match(f"/a_0: no DPR vector shard.*{what}", refused(tmp_path / "folder"))
    assert not marker.exists()


NO_ENTRIES = [{"p0": 1}, ["p0"], [("p0",)], [("p0", [1.0])], [(1.5, VECTORS[0])], [("p0", VECTORS[:1])]]
NO_ENTRIES += [[("p0", each)] for each in (np.arange(3), VECTORS[0, :0], Calls((np.ndarray, (3,))), np.float32(1))]


NO_SHARDS = {pickle.dumps(each): " (entry 0 is not an id and a vector of floats); " for each in NO_ENTRIES}
WHOLE = pickle.dumps([("p0", VECTORS[0]), (np.int64(1), VECTORS[1])])
NO_SHARDS |= {WHOLE[:end]: " (" for end in range(0, len(WHOLE), 7)}
NO_SHARDS[b"Pelsewhere\n."] = ", it points to another file, which was not run; "


@pytest.mark.parametrize(("content", "what"), NO_SHARDS.items(), ids=range(len(NO_SHARDS)))
def test_a_pickle_of_something_else_is_refused(tmp_path, content, what):
    (save_tsv(tmp_path) / "a_0").write_bytes(content)
    assert refused(tmp_path).startswith(f"/a_0: no DPR vector shard{what}")


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ({"text": ["x"] * 17 + [" "] + ["x"] * 22}, ': row 17: "text" is empty; '),
        ({"id": ["a", "b"] * 20}, ': row 2: the id "a" occurs twice; '),
        ({"id": [0.5] * N}, ': the column "id" holds double; cast it to strings'),
        ({"text": None}, ": has the columns id, title, embeddings; "),
        ({"vectors": [[1.0]] * 5 + [[1.0, 2.0]] * 35}, ": row 5: an embedding of 2 numbers, that of row 0 1; "),
        ({"vectors": [[1.0]] * 5 + [None] * 35}, ": row 5: an embedding of 0 numbers, that of row 0 1; "),
        ({"vectors": [[1.0, 2.0]] * 5 + [[1.0, None]] * 35}, ": row 5: an embedding with a null; "),
        ({"kind": pa.list_(pa.int8()), "vectors": [[1]] * N}, ': the column "embeddings" holds list<'),
        ({"vectors": None}, ": holds passages, but no vectors; add a column embeddings, or put index.faiss into "),
    ],
)
def test_a_fault_in_a_dataset_is_named(tmp_path, fault, what):
    assert refused(save_dataset(tmp_path / "a", shards=3, **fault)).startswith(what)


def test_a_damaged_dataset_is_named(tmp_path):
    folder = save_dataset(tmp_path / "a")
    file, state = next(folder.glob("*.arrow")), folder / "state.json"
    whole, text = file.read_bytes(), state.read_text()
    for cut in (0, 3, 100, len(whole) // 2, len(whole) - 8, len(whole) - 1, None):
        file.unlink() if cut is None else file.write_bytes(whole[:cut])
        assert refused(folder).startswith(f"/{file.name}: cannot be read as Arrow (")
    state.write_text(text.replace("{", '{"_indices_data_files": [{"filename": "indices.arrow"}],', 1))
    assert "call flatten_indices() and save it anew" in refused(folder)
    for damage in ("{", "[]", "{}", '{"_data_files": [1]}', '{"_data_files": null}'):
        state.write_text(damage)
        assert re.fullmatch(r"/state\.json(:1)?: [^\n]+; (save the dataset anew|give) [^\n]+", refused(folder))
    state.write_text('{"_data_files": []}')
    assert refused(folder).startswith(": holds no passages; ")


@pytest.mark.parametrize(
    ("array", "what"),
    [
        *((np.where(ROWS < 17, VECTORS, bad), 'the vector of row 17, passage "p17", holds NaN or ') for bad in BAD),
        (VECTORS[1:], f"{N - 1} vectors for {N} passages; "),
        (VECTORS[0], "not an array of two dimensions; "),
        (np.ones((N, D), int), "an array of int64 (40, 8); "),
        (np.array([{}]), "cannot be read ("),
        (VECTORS[:, :5], "vectors of width 5, the question tower's have 8; "),
    ],
)
def test_a_fault_in_npy_files_is_named(tmp_path, array, what):
    np.save(save_tsv(tmp_path) / "v.npy", array, allow_pickle=True)
    assert refused(tmp_path, D).startswith(f"/v.npy: {what}")


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ([], ": no index there, neither passages/state.json, hf_dataset/state.json, "),
        (["index.faiss"], ": holds vectors, but no passages; "),
        (["dataset_dict.json"], ": holds several datasets; "),
        (["a.tsv", "b.tsv.gz"], ": holds a.tsv and b.tsv.gz; leave one .tsv"),
        (["a.tsv"], "/a.tsv: holds passages, but there are no vectors; "),
        (["a.tsv", "a.index", "b.faiss"], ": holds a.index and b.faiss; "),
        (["psgs_w100.tsv", "index.dpr", "index_meta.dpr"], "/index.dpr: belongs to an index with pickled metadata"),
        (["psgs_w100.tsv.pkl"], "/psgs_w100.tsv.pkl: belongs to an index with pickled metadata, which is not read; "),
    ],
)
def test_half_an_index_is_named(tmp_path, files, what):
    for name in files:
        (tmp_path / name).touch()
    assert refused(tmp_path).startswith(what)


def test_a_missing_folder_and_a_missing_package_are_named(tmp_path, monkeypatch):
    assert refused(tmp_path / "none") == ": no such folder; check the path"
    save_dataset(tmp_path / "a")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="needs the package pyarrow; run: pip install rag-jax"):
        import_index(tmp_path / "a")


@pytest.mark.parametrize("name", ["_id", "docid"])
def test_a_dataset_may_call_ids_as_beir_and_tevatron_do(tmp_path, name):
    assert_read(save_dataset(tmp_path, **{"id": None, name: [passage.id for passage in PASSAGES]}))


@pytest.mark.parametrize("own", [None, VECTORS])
def test_an_index_that_ranks_by_distance_is_told(tmp_path, own, capsys):
    """As `add_faiss_index` makes one; the order is another unless all vectors have the same length."""
    same = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    l2, product = faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT
    for metric, vectors, told in ((l2, VECTORS, True), (l2, same, False), (product, VECTORS, False)):
        save_dataset(tmp_path / "passages", None if own is None else vectors)
        index = faiss.IndexFlat(D, metric)
        index.add(vectors)
        faiss.write_index(index, str(tmp_path / "index.faiss"))
        found = import_index(tmp_path, D)
        said = capsys.readouterr().err
        assert said.startswith(f"warning: {tmp_path / 'index.faiss'}: ranks by L2 distance") is told
        assert said.count("\n") == told
        by_distance = np.argsort(((found.vectors[0] - found.vectors) ** 2).sum(axis=1))
        by_product = np.argsort(-(found.vectors @ found.vectors[0]))
        if metric == l2:
            assert (by_distance.tolist() != by_product.tolist()) is told
        for file in (tmp_path / "passages").iterdir():
            file.unlink()
