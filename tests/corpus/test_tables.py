"""Datasets and Parquet files, as the libraries write them, row by row."""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpora import refusal, skipping
from rag_jax.corpus import Passage, read_corpus
from rag_jax.errors import InputError

datasets.disable_progress_bars()
PASSAGES = [Passage(f"p{i}", f"Town {i}" if i else "", f"It has {i} people — “{i}”.") for i in range(2_500)]


def columns(passages=PASSAGES, **others) -> dict[str, object]:
    rows = {name: [getattr(passage, name) for passage in passages] for name in Passage._fields[:3]} | others
    return {name: column for name, column in rows.items() if column is not None}


def save_dataset(folder: Path, shards: int = 1, **others) -> Path:
    datasets.Dataset(pa.table(columns(**others))).save_to_disk(str(folder), num_shards=shards)
    return folder


def save_parquet(file: Path, passages=PASSAGES, **others) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns(passages, **others)), file, row_group_size=700)
    return file


SAVERS = [save_dataset, lambda path, **others: save_parquet(path.with_suffix(".parquet"), **others)]
savers = pytest.mark.parametrize("save", SAVERS, ids=["dataset", "parquet"])


@pytest.mark.parametrize("shards", [1, 3])
def test_a_dataset_is_read_in_order(tmp_path, shards):
    embeddings = [[0.0] * 4] * len(PASSAGES)
    assert list(read_corpus(save_dataset(tmp_path / "data", shards, embeddings=embeddings))) == PASSAGES


def test_parquet_is_read_alone_or_as_a_folder(tmp_path):
    save_parquet(tmp_path / "data" / "b.parquet", PASSAGES[900:])
    save_parquet(tmp_path / "data" / "a" / "0.parquet", PASSAGES[:900], score=[0.5] * 900)
    (tmp_path / "README.md").write_text("# A dataset")
    assert list(read_corpus(tmp_path / "data" / "b.parquet")) == PASSAGES[900:]
    assert list(read_corpus(tmp_path)) == PASSAGES


@savers
def test_rows_without_ids_and_titles_are_numbered_from_0(tmp_path, save):
    path = save(tmp_path / "data", id=None, title=None)
    assert list(read_corpus(path)) == [Passage(str(i), "", passage.text) for i, passage in enumerate(PASSAGES)]


def test_files_without_ids_are_numbered_on(tmp_path):
    for name, some in (("a", PASSAGES[:1100]), ("b", PASSAGES[1100:])):
        save_parquet(tmp_path / f"{name}.parquet", some, id=None)
    assert list(read_corpus(tmp_path)) == [passage._replace(id=str(i)) for i, passage in enumerate(PASSAGES)]


@savers
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_every_kind_of_strings_and_whole_numbers(tmp_path, save, kind):
    texts = pa.array([passage.text for passage in PASSAGES], kind)
    path = save(tmp_path / "data", text=texts, id=pa.array(range(2_500), pa.uint16()), title=pa.nulls(2_500))
    assert list(read_corpus(path)) == [Passage(str(i), "", passage.text) for i, passage in enumerate(PASSAGES)]


def changed(name: str, value: object) -> dict[str, list[object]]:
    """A column with another value in row 1234."""
    column = [getattr(passage, name) for passage in PASSAGES]
    return {name: [*column[:1234], value, *column[1235:]]}


BROKEN = [text.encode() if i != 1234 else b"caf\xe9" for i, text in enumerate(changed("text", "")["text"])]


@savers
@pytest.mark.parametrize(
    ("column", "what"),
    [
        (changed("text", None), '"text" is missing; '),
        (changed("text", " "), '"text" is empty; '),
        (changed("text", "a\0"), '"text" holds a NUL character; '),
        (changed("id", "p3"), 'the id "p3" occurs twice; '),
        (changed("id", None), '"id" is null; '),
        ({"text": pa.array(BROKEN).view(pa.string())}, 'byte 4 of "text" is not UTF-8; '),
    ],
)
def test_a_bad_row_is_named_by_its_number_and_its_neighbours_are_read(tmp_path, save, column, what):
    path = save(tmp_path / "data", **column)
    message = refusal(path)
    assert message.startswith(f": row 1234: {what}")
    assert skipping(path) == ([*PASSAGES[:1234], *PASSAGES[1235:]], [f"{path}{message}"])


@savers
@pytest.mark.parametrize(
    ("others", "what"),
    [
        ({"text": None}, "has the columns id, title; name one of them text"),
        ({"text": [1.5] * 2_500}, 'the column "text" holds double; cast it to strings'),
        ({"text": [["a"]] * 2_500}, 'the column "text" holds list<'),
        ({"title": [1] * 2_500}, 'the column "title" holds int64; cast it to strings'),
        ({"id": [1.5] * 2_500}, 'the column "id" holds double; cast it to strings'),
    ],
)
def test_other_columns_are_refused_whatever_bad_says(tmp_path, save, others, what):
    path = save(tmp_path / "data", **others)
    assert refusal(path).startswith(f": {what}")
    with pytest.raises(InputError):
        skipping(path)


@savers
def test_a_table_without_rows_holds_no_passages(tmp_path, save):
    empty = dict.fromkeys(Passage._fields[:3], pa.array([], pa.string()))
    assert refusal(save(tmp_path / "data", **empty)) == ": holds no passages; give a corpus with one at least"


@savers
@pytest.mark.parametrize("kept", [0, 1, 2, 3])  # quarters of the file
def test_a_damaged_file_is_refused_whatever_bad_says(tmp_path, save, kept):
    path = save(tmp_path / "data")
    file = path if path.is_file() else next(path.glob("*.arrow"))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * kept // 4])
    with pytest.raises(InputError, match=r"(data\.parquet|\.arrow): cannot be read as a table \(.+\); save or copy"):
        skipping(path)


def test_an_arrow_file_that_is_cut_between_batches_is_refused(tmp_path):
    path = save_dataset(tmp_path / "data")
    [file] = path.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"\(the end is missing\)"):
        list(read_corpus(path))


def test_strings_that_end_beyond_the_file_are_refused(tmp_path):
    path = save_dataset(tmp_path / "data")
    [file] = path.glob("*.arrow")
    # The offset at which the texts of the first batch end, which stands in the file once.
    end = sum(len(passage.text.encode()) for passage in PASSAGES[:1000]).to_bytes(4, "little")
    data = file.read_bytes()
    assert data.count(end) == 1
    file.write_bytes(data.replace(end, (2**31 - 1).to_bytes(4, "little")))
    with pytest.raises(InputError, match="cannot be read as a table"):
        list(read_corpus(path))


def test_a_dataset_that_cannot_be_read_as_it_is_says_what_to_do(tmp_path):
    chosen = datasets.Dataset(pa.table(columns())).select([3, 1])
    chosen.save_to_disk(str(tmp_path / "chosen"))
    state = tmp_path / "chosen" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    assert "call flatten_indices()" in refusal(tmp_path / "chosen")
    state.write_text("{}")
    assert refusal(tmp_path / "chosen").startswith("/state.json: ")
    state.write_text(json.dumps({"_data_files": [{"filename": "../elsewhere.arrow"}]}))
    assert refusal(tmp_path / "chosen").startswith("/state.json: names '../elsewhere.arrow', which is no file below ")
    datasets.DatasetDict(train=chosen).save_to_disk(str(tmp_path / "several"))
    assert refusal(tmp_path / "several").startswith(": holds several datasets; name the folder of one")


@savers
@pytest.mark.parametrize("name", ["_id", "docid"])
def test_an_id_may_be_called_as_beir_and_tevatron_do(tmp_path, save, name):
    path = save(tmp_path / "data", **{"id": None, name: [passage.id for passage in PASSAGES]})
    assert list(read_corpus(path)) == PASSAGES
