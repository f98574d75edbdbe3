"""Building: whatever interrupts it, the same command goes on, and the result is the same bytes."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from crashes import crashes
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import building, manifest, ownership, part_files
from rag_jax.index.store import Store, open_store
from rag_jax.index.workers import Lock, encode_in_processes
from stores import MORE, PASSAGES, encoder, reads

MADE_OF = building.make_build_spec(encoder(), reads())


def build(folder: Path, passages=PASSAGES, segment: int = 20) -> Store:
    """The three steps, with small segments."""
    with ownership.claim_and_lock(folder):
        plan = building.read(folder, passages, MADE_OF, segment)
        building.encode(folder, plan, encoder(), reads())
        building.commit(folder, plan, encoder(), reads())
    return open_store(folder, encoder(), reads())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a store."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_segments_are_one_store(tmp_path: Path) -> None:
    store = build(tmp_path / "index")
    assert [len(piece) for piece in store.passage_vectors.segments] == [20, 20, 10]
    assert store.passages == PASSAGES
    whole = building.build(tmp_path / "whole", PASSAGES, encoder(), reads()).knowledge
    np.testing.assert_allclose(store.knowledge.passage_vectors, whole.passage_vectors, rtol=1e-6)
    np.testing.assert_array_equal(store.knowledge.passage_tokens.lengths, whole.passage_tokens.lengths)
    np.testing.assert_array_equal(store.knowledge.passage_tokens.ids, whole.passage_tokens.ids)


@pytest.mark.extended
def test_a_build_that_crashed_anywhere_is_not_there_and_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "expected")
    expected, folder = contents(tmp_path / "expected"), tmp_path / "index"
    seen = 0
    for _ in crashes(lambda: build(folder), lambda: shutil.rmtree(folder, ignore_errors=True)):
        seen += 1
        if (folder / manifest.FILE).exists():
            assert open_store(folder, encoder(), reads()).passages == PASSAGES
        else:
            with pytest.raises(InputError, match="no knowledge store there"):
                open_store(folder, encoder(), reads())
            build(folder)
            assert contents(folder) == expected
    assert seen > 40, "every part was a moment to crash at"


def test_what_is_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    plan = building.read(folder, PASSAGES, MADE_OF, 20)
    building.encode(folder, plan, encoder(), reads(), share=(0, 2))
    heard = []

    def stranger(*arguments):
        raise AssertionError("the corpus is read once")
        yield

    again = building.read(folder, stranger(), MADE_OF, 20)
    assert again == plan
    texts = []

    def heard_tower(params, tokens, key=None):
        texts.append(tokens.ids.shape)
        return encoder().tower(params, tokens)

    spy = dataclasses.replace(encoder(), tower=heard_tower)
    building.encode(folder, plan, spy, reads(), heard.append)
    assert sum(heard) == 20, "only the second segment was missing"
    assert sorted(path.name for path in (folder / "vectors").iterdir()) == ["000000", "000001", "000002"]
    assert texts, "the second segment was missing"


def load():
    """For processes of their own, which import this module."""
    return encoder(), reads()


def test_processes_share_a_build_to_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "expected")
    folder, heard = tmp_path / "index", []
    plan = building.read(folder, PASSAGES, MADE_OF, 20)
    for rank in (1, 0):
        building.encode(folder, plan, encoder(), reads(), heard.append, (rank, 2))
    assert sum(heard) == 50
    with ownership.lock(folder) as lock:
        encode_in_processes(folder, plan, load, load(), 1, heard.append, Lock(lock))
    assert plan.encoded(folder) == sum(heard) == 50, "nothing was left to be encoded"
    building.commit(folder, plan, encoder(), reads())
    assert contents(folder) == contents(tmp_path / "expected")


def test_an_unfinished_build_of_something_else_is_refused(tmp_path: Path) -> None:
    building.read(tmp_path, PASSAGES, MADE_OF, 20)
    other = building.make_build_spec(dataclasses.replace(encoder(), max_length=8), reads(), "float16")
    with pytest.raises(InputError, match="a build with another dtype and tower was started there; finish it, delete"):
        building.read(tmp_path, PASSAGES, other, 20)


def test_an_unfinished_build_of_something_else_is_discarded_where_that_is_asked_for(tmp_path: Path) -> None:
    building.read(tmp_path, PASSAGES, building.make_build_spec(encoder(), reads(), "float16"), 20)
    with pytest.raises(InputError, match="a build with another dtype was started there"):
        building.build(tmp_path, PASSAGES, encoder(), reads())
    assert len(building.build(tmp_path, PASSAGES, encoder(), reads(), restart=True)) == len(PASSAGES)


@pytest.mark.parametrize(
    "others", [PASSAGES[:-1], [*PASSAGES, MORE[0]], [*PASSAGES[:3], PASSAGES[3]._replace(text="other"), *PASSAGES[4:]]]
)
@pytest.mark.parametrize("restart", [False, True])
def test_an_unfinished_build_of_other_passages_is_not_taken_for_one_of_these(
    tmp_path: Path, others: list, restart: bool
) -> None:
    building.read(tmp_path, PASSAGES, building.make_build_spec(encoder(), reads()), 20)
    with pytest.raises(InputError, match=r"a build of other passages was started there; delete building\.json there"):
        building.build(tmp_path, others, encoder(), reads(), restart=restart)
    assert building.build(tmp_path, iter(PASSAGES), encoder(), reads(), restart=restart).passages == PASSAGES


def test_numbers_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    huge = dataclasses.replace(encoder(), tower=lambda params, tokens, key=None: jnp.full((len(tokens.ids), 4), 1e5))
    plan = building.read(tmp_path, PASSAGES, MADE_OF | {"dtype": "float16"}, 20)
    with pytest.raises(InputError, match="vectors hold numbers beyond 65,504, the end of float16; give --dtype"):
        building.encode(tmp_path, plan, huge, None)


def test_an_unfinished_build_says_so_when_it_is_opened(tmp_path: Path) -> None:
    building.read(tmp_path, PASSAGES, MADE_OF, 20)
    with pytest.raises(InputError, match="the build was not finished: run it again"):
        open_store(tmp_path, encoder(), reads())


def test_a_build_over_a_store_replaces_it_at_the_end(tmp_path: Path) -> None:
    old = building.build(tmp_path, PASSAGES, encoder(), reads())
    plan = building.read(tmp_path, PASSAGES[:7], MADE_OF, 5)
    building.encode(tmp_path, plan, encoder(), reads())
    assert open_store(tmp_path, encoder(), reads()).passages == PASSAGES
    building.commit(tmp_path, plan, encoder(), reads())
    assert open_store(tmp_path, encoder(), reads()).passages == PASSAGES[:7]
    assert old.passages == PASSAGES, "whoever has it open reads on"
    np.testing.assert_array_equal(old.passage_vectors.whole, encoder().encode_passages(PASSAGES))
    assert sorted(path.name for path in (tmp_path / "vectors").iterdir()) == ["000001", "000002"]


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one passage"):
        build(tmp_path / "index", [])
    assert not (tmp_path / "index").exists()


def test_a_vector_that_is_no_number_is_named_by_its_passage(tmp_path: Path) -> None:
    def broken(params, tokens, key=None):
        found = encoder().tower(params, tokens)
        return found.at[:, 0].set(np.nan) if tokens.ids.shape[1] > 16 else found

    passages = [Passage("a", "", "goats"), Passage("b", "", "goats " * 30)]
    plan = building.read(tmp_path, passages, MADE_OF)
    with pytest.raises(InputError, match='passage "b": its vector holds NaN or infinity'):
        building.encode(tmp_path, plan, dataclasses.replace(encoder(), tower=broken), reads())


def test_a_disk_that_is_too_small_is_found_before_anything_is_encoded(tmp_path: Path, monkeypatch) -> None:
    plan = building.read(tmp_path, PASSAGES, MADE_OF, 20)
    assert building.storage_bytes(plan, 8, 2 * 16) == 50 * (8 * 4 + 2 * 16 + 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9_000, 6_000, 3_000))
    with pytest.raises(InputError, match=r"needs up to 3\.4 kB more, 3\.0 kB are free; make room"):
        building.check_disk_space(tmp_path, plan, 8, 2 * 16)


def test_a_disk_that_gets_full_leaves_the_old_store(tmp_path: Path, monkeypatch) -> None:
    building.build(tmp_path, PASSAGES, encoder(), reads())
    before = contents(tmp_path)
    plan = building.read(tmp_path, PASSAGES[:7], MADE_OF, 5)

    def full(path, array):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(part_files, "_write_array", full)
    with pytest.raises(InputError, match=r"vectors/000001: the disk is full, .* are free; make room and run it again"):
        building.encode(tmp_path, plan, encoder(), reads())
    monkeypatch.undo()
    assert open_store(tmp_path, encoder(), reads()).passages == PASSAGES
    assert before.items() <= contents(tmp_path).items()


def test_vectors_are_kept_in_half_the_bytes_where_that_is_asked_for(tmp_path: Path) -> None:
    made_of = building.make_build_spec(encoder(), None, "bfloat16")
    plan = building.read(tmp_path, PASSAGES, made_of)
    building.encode(tmp_path, plan, encoder(), None)
    building.commit(tmp_path, plan, encoder(), None)
    store = open_store(tmp_path, encoder(), None)
    assert store.passage_vectors.dtype == "bfloat16"
    np.testing.assert_array_equal(store.passage_vectors.whole, encoder().encode_passages(PASSAGES).astype("bfloat16"))
