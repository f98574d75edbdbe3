"""Ids are refused exactly when they came before, whatever their number, in little memory and time."""

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data import unique_ids as module
from rag_jax.data.unique_ids import UniqueIds
from rag_jax.errors import InputError

MANY = 100_000


def random_ids(count: int) -> list[str]:
    drawn = random.Random(0)
    return [f"{drawn.getrandbits(64):016x}" for _ in range(count)]


def refused(ids: UniqueIds, new: str) -> bool:
    try:
        ids.add(new, "f:1")
    except InputError as error:
        message = str(error)
    else:
        return False
    assert message == f'f:1: the id "{new}" occurs twice; give every line an id of its own'
    return True


spellings = st.integers(-2, 12).map(str) | st.sampled_from(["01", "a", "¹", "٣", "9" * 5000, "\udc00"])


@given(st.lists(spellings, max_size=40), st.sampled_from([1, 2, 5, 4096]))
def test_ids_are_refused_exactly_when_they_were_there_before(new_ids, newest):
    seen = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_RECENT", newest)  # so that few ids are merged many times
        ids = UniqueIds()
        for new in new_ids:
            assert refused(ids, new) == (new in seen)
            seen.add(new)


def test_every_one_of_many_ids_is_remembered():
    ids, many = UniqueIds(), random_ids(30_000)
    assert not any(refused(ids, new) for new in many)
    assert all(refused(ids, new) for new in many)
    assert not refused(ids, "another")


def test_ids_with_the_same_first_half_of_their_digests_are_told_apart(monkeypatch):
    class Halved:  # of whose digest the first half is always the same
        def __init__(self, data: bytes, digest_size: int) -> None:
            self.data, self.size = data, digest_size

        def digest(self) -> bytes:
            return self.data.rjust(self.size, b"\0")

    monkeypatch.setattr(module, "blake2b", Halved)
    monkeypatch.setattr(module, "MAX_RECENT", 3)
    ids, many = UniqueIds(), [chr(ord("a") + i) for i in range(20)]
    assert not any(refused(ids, new) for new in many)
    assert all(refused(ids, new) for new in many)


@pytest.mark.extended
def test_random_ids_take_less_than_forty_bytes_each():
    many, ids = random_ids(MANY), UniqueIds()
    tracemalloc.start()
    try:
        for new in many:
            ids.add(new, "f:1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * MANY


def test_random_ids_are_added_in_little_time():
    many, ids = random_ids(MANY), UniqueIds()
    start = time.process_time()
    for new in many:
        ids.add(new, "f:1")
    assert time.process_time() - start < 2 * MANY / 300_000  # seconds


def test_ids_that_count_are_not_remembered_one_by_one():
    ids = UniqueIds()
    tracemalloc.start()
    try:
        for number in range(1, 10_000):
            ids.add(str(number), "f:1")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000  # bytes, in all
    assert refused(ids, "7")
