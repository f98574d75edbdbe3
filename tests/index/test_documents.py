"""Ids name whole documents, with all pieces that they were cut into."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_jax.corpus import Chunker
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import building, documents, updates
from rag_jax.index.columns import PassageTable, as_table
from rag_jax.index.store import open_store
from stores import encoder, reads

CUT = Chunker(3)


def cut(*wholes: Passage) -> list[Passage]:
    return [piece for whole in wholes for piece in CUT.chunks(whole)]


LONG = Passage("doc.md", "Doc", "one two three four five six seven")
OTHER = Passage("doc.md#", "Other", "its id begins alike and it is long as well")
SHORT = Passage("short.md", "Short", "a b")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    building.build(tmp_path / "index", cut(LONG, OTHER, SHORT), encoder(), reads())
    return tmp_path / "index"


def held(folder: Path) -> list[Passage]:
    return list(open_store(folder, encoder(), reads()).live_passages())


def test_a_shorter_document_replaces_all_pieces_of_the_longer_one(folder: Path) -> None:
    shorter = LONG._replace(text="only this")
    updates.replace(folder, cut(shorter), encoder())
    assert held(folder) == [*cut(OTHER, SHORT), shorter]


def test_a_longer_document_replaces_a_shorter_one(folder: Path) -> None:
    longer = SHORT._replace(text="a b c d e f g")
    updates.replace(folder, cut(longer), encoder())
    assert held(folder) == cut(LONG, OTHER, longer)
    updates.replace(folder, [SHORT], encoder())
    assert held(folder) == cut(LONG, OTHER, SHORT)


def test_a_removed_document_goes_with_all_its_pieces(folder: Path) -> None:
    updates.remove(folder, ["doc.md"])
    assert held(folder) == cut(OTHER, SHORT)


def test_a_piece_can_be_removed_and_rewritten_alone_and_stays_with_its_document(folder: Path) -> None:
    updates.remove(folder, ["doc.md#2"])
    updates.replace(folder, [Passage("doc.md#3", "Doc", "8 9")], encoder())
    first = cut(LONG)[0]
    assert held(folder) == [first, *cut(OTHER, SHORT), Passage("doc.md#3", "Doc", "8 9", "doc.md")]
    updates.replace(folder, [LONG._replace(text="new")], encoder())
    assert held(folder) == [*cut(OTHER, SHORT), LONG._replace(text="new")], "no piece is left behind"


def test_a_piece_that_became_several_is_replaced_and_removed_as_one(folder: Path) -> None:
    first, _, *rest = cut(LONG)
    new = list(Chunker(3).chunks(Passage("doc.md#2", "Doc", "a b c d e f g h")))
    assert [passage.id for passage in new] == ["doc.md#2", "doc.md#2#2", "doc.md#2#3"]
    updates.replace(folder, new, encoder())
    again = list(Chunker(3).chunks(Passage("doc.md#2", "Doc", "i j k l")))
    updates.replace(folder, again, encoder())
    found = {passage.text for passage in held(folder)}
    assert {"i j k", "l"} <= found
    assert not {"a b c", "d e f", "g h"} & found
    updates.remove(folder, ["doc.md#2"])
    assert held(folder) == [first, *rest, *cut(OTHER, SHORT)]


def test_a_passage_whose_id_looks_like_a_piece_is_left_alone(folder: Path) -> None:
    updates.add(folder, [Passage("C", "C", "one"), Passage("C#2", "C sharp", "two")], encoder())
    updates.remove(folder, ["C"])
    assert held(folder)[-1] == Passage("C#2", "C sharp", "two")


@pytest.mark.parametrize("change", ["add", "replace"])
def test_a_new_piece_with_the_id_of_another_document_is_refused(change: str, folder: Path) -> None:
    updates.add(folder, [Passage("short.md#2", "", "a document of its own")], encoder())
    before = held(folder)
    given = {"add": Passage("short.md#2", "", "x"), "replace": SHORT._replace(text="a b c d e")}[change]
    with pytest.raises(InputError, match=r'has a passage "short\.md#2" already'):
        getattr(updates, change)(folder, cut(given), encoder())
    assert held(folder) == before


@pytest.mark.parametrize("absent", ["doc", "doc.md#4", "", "p0"])
def test_an_id_that_names_nothing_is_refused(absent: str, folder: Path) -> None:
    before = held(folder)
    with pytest.raises(InputError, match=f'no passage has the id "{absent}"; '):
        updates.remove(folder, ["doc.md", absent])
    with pytest.raises(InputError, match=f'no passage has the id "{absent}"; '):
        updates.replace(folder, [SHORT, Passage(absent, "", "x")], encoder())
    assert held(folder) == before


texts = st.integers(1, 8).map(lambda count: " ".join(map(str, range(count))))
wholes = st.dictionaries(st.sampled_from("abcde"), texts, min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(old=wholes, new=wholes, gone=st.sets(st.integers(0, 30)))
def test_replacing_is_what_a_naive_loop_does(old: dict, new: dict, gone: set) -> None:
    before = cut(*(Passage(key, "", text) for key, text in old.items()))
    alive = np.array([passage.document != "" or row not in gone for row, passage in enumerate(before)])
    after = cut(*(Passage(key, "", text) for key, text in new.items()))
    there = {documents.document_id(passage) for passage, lives in zip(before, alive, strict=True) if lives}
    table = PassageTable([as_table(before)])
    if not new.keys() <= there:
        with pytest.raises(InputError):
            documents.plan_replacement(table, alive, after, "here")
        return
    rows, given_back = documents.plan_replacement(table, alive, after, "here")
    expected = [row for row, passage in enumerate(before) if documents.document_id(passage) in new and alive[row]]
    assert rows.tolist() == expected
    assert given_back == after
