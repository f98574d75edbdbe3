"""Changes to a store: each is there whole or not at all, and nobody who reads is disturbed."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from crashes import crashes
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import building, manifest, ownership, updates
from rag_jax.index.encoder import TextEncoder
from rag_jax.index.store import Store, add_tokens, open_store
from stores import MORE, PASSAGES, encoder, reads
from suites import first

REWRITTEN = [PASSAGES[3]._replace(text="nobody lives here"), PASSAGES[9]._replace(title="Nowhere")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    building.build(tmp_path / "index", PASSAGES, encoder(), reads())
    return tmp_path / "index"


def opened(folder: Path) -> Store:
    return open_store(folder, encoder(), reads())


def assert_holds(store: Store, passages: list[Passage]) -> None:
    """Just these passages, in this order, with the vectors and tokens of a store that was built of them."""
    assert list(store.live_passages()) == passages
    assert len(store) == len(passages)
    rows = store.find([passage.id for passage in passages])
    np.testing.assert_array_equal(rows, np.flatnonzero(store.alive))
    np.testing.assert_allclose(store.passage_vectors[rows], encoder().encode_passages(passages), rtol=1e-6)
    ids, lengths, _ = reads().tokenize(passages)
    np.testing.assert_array_equal(store.passage_lengths[rows], lengths)
    np.testing.assert_array_equal(store.passage_tokens[rows][:, : ids.shape[1]], ids)


def test_added_passages_are_there(folder: Path) -> None:
    updates.add(folder, MORE, encoder())
    assert_holds(opened(folder), PASSAGES + MORE)


def test_removed_passages_are_gone_and_the_others_keep_their_rows(folder: Path) -> None:
    updates.remove(folder, ["p3", "p0"])
    store = opened(folder)
    assert_holds(store, [*PASSAGES[1:3], *PASSAGES[4:]])
    assert store.find(["p4", "p3"]).tolist() == [4, -1]


def test_replaced_passages_are_rewritten(folder: Path) -> None:
    updates.replace(folder, REWRITTEN, encoder())
    kept = [passage for passage in PASSAGES if passage.id not in ("p3", "p9")]
    assert_holds(opened(folder), kept + REWRITTEN)


def test_a_removed_id_can_be_used_again(folder: Path) -> None:
    updates.remove(folder, ["p3"])
    updates.add(folder, REWRITTEN[:1], encoder())
    updates.remove(folder, ["p3"])
    updates.add(folder, [PASSAGES[3]], encoder())
    assert opened(folder).find(["p3"]).tolist() == [51]


def test_swapped_stores_have_the_other_s_contents_and_the_other_stays(folder: Path, tmp_path: Path) -> None:
    building.build(tmp_path / "other", PASSAGES[5:20], encoder(), reads())
    updates.remove(tmp_path / "other", ["p7"])
    updates.swap(folder, tmp_path / "other")
    expected = [*PASSAGES[5:7], *PASSAGES[8:20]]
    assert_holds(opened(folder), expected)
    shutil.rmtree(folder)
    assert_holds(opened(tmp_path / "other"), expected)


def test_the_journal_tells_every_change(folder: Path) -> None:
    updates.add(folder, MORE, encoder())
    updates.replace(folder, REWRITTEN, encoder())
    updates.remove(folder, ["p0"])
    add_tokens(folder, reads())
    told = [(each["version"], each["change"], each["passages"], each["rows"]) for each in manifest.read(folder).changes]
    assert told == [
        (1, "build", 50, 50),
        (2, "add", 55, 55),
        (3, "replace", 55, 57),
        (4, "remove", 54, 57),
        (5, "tokenise", 54, 57),
    ]


def test_readers_of_an_old_version_read_on(folder: Path) -> None:
    old = opened(folder)
    updates.remove(folder, ["p1"])
    updates.swap(folder, folder)
    updates.add(folder, MORE, encoder())
    opened(folder)
    assert_holds(old, PASSAGES)


def test_what_no_version_names_is_cleared_away(folder: Path, tmp_path: Path) -> None:
    building.build(tmp_path / "other", PASSAGES[:5], encoder(), reads())
    updates.swap(folder, tmp_path / "other")
    parts = {str(path.parent.relative_to(folder)) for path in folder.rglob("part.json")}
    assert parts == {"passages/000001", "vectors/000001", f"{reads().folder}/000001"}


def changes(folder: Path, other: Path) -> dict:
    """What each change makes of the store, and how it is made."""
    kept = [passage for passage in PASSAGES if passage.id not in ("p3", "p9")]
    return {
        "add": (lambda: updates.add(folder, MORE, encoder()), PASSAGES + MORE),
        "remove": (lambda: updates.remove(folder, ["p0"]), PASSAGES[1:]),
        "replace": (lambda: updates.replace(folder, REWRITTEN, encoder()), kept + REWRITTEN),
        "swap": (lambda: updates.swap(folder, other), PASSAGES[5:20]),
    }


@pytest.mark.parametrize("name", first(1, ["add", "remove", "replace", "swap"]))
def test_a_change_that_crashed_anywhere_is_made_or_not_and_can_be_made_again(name, folder, tmp_path) -> None:
    other, original = tmp_path / "other", tmp_path / "original"
    building.build(other, PASSAGES[5:20], encoder(), reads())
    shutil.copytree(folder, original)
    change, after = changes(folder, other)[name]

    def restore() -> None:
        shutil.rmtree(folder)
        shutil.copytree(original, folder)

    seen, outcomes = 0, set()
    for _ in crashes(change, restore):
        seen += 1
        done = manifest.read(folder).version > 1
        outcomes.add(done)
        assert_holds(opened(folder), after if done else PASSAGES)
        if not done:
            change()
            assert_holds(opened(folder), after)
    assert seen > 3
    assert outcomes == {True, False}, "before the manifest, and after it"


def narrow() -> TextEncoder:
    """The tower of the store, whose program returns fewer components."""
    return dataclasses.replace(encoder(), tower=lambda *given: encoder().tower(*given)[:, :4])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: updates.add(folder, [PASSAGES[3]], encoder()), 'has a passage "p3" already'),
        (lambda folder: updates.add(folder, [MORE[0], MORE[0]], encoder()), '"more0" is given twice'),
        (lambda folder: updates.remove(folder, ["p3", "x"]), 'no passage has the id "x"'),
        (lambda folder: updates.replace(folder, MORE, encoder()), 'no passage has the id "more0"'),
        (lambda folder: updates.remove(folder, [p.id for p in PASSAGES]), "would hold no passage any more"),
        (
            lambda folder: updates.add(folder, MORE, dataclasses.replace(encoder(), max_length=8)),
            "built by a tower with max_length 32",
        ),
        (lambda folder: updates.add(folder, MORE, narrow()), "vectors of width 8, the new ones have 4; name its tower"),
        (lambda folder: updates.replace(folder, REWRITTEN, narrow()), "width 8, the new ones have 4; name its tower"),
    ],
)
def test_a_change_that_cannot_be_made_leaves_the_store(change, told, folder: Path) -> None:
    before = manifest.read(folder)
    with pytest.raises(InputError, match=told):
        change(folder)
    assert manifest.read(folder) == before
    assert_holds(opened(folder), PASSAGES)


def test_two_writers_do_not_meet(folder: Path) -> None:
    with ownership.lock(folder), pytest.raises(InputError, match="another process is writing to it"):
        updates.remove(folder, ["p3"])


def test_a_store_under_construction_is_not_changed(folder: Path) -> None:
    building.read(folder, MORE, building.make_build_spec(encoder(), reads()))
    with pytest.raises(InputError, match="a build is unfinished there"):
        updates.remove(folder, ["p3"])
