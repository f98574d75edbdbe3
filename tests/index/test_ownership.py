"""A store writes and deletes in a folder of its own, what is its own there, and one process at a time does so."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_jax.errors import InputError
from rag_jax.index import building, manifest, ownership, part_files, updates
from rag_jax.index.engines import store_engines
from rag_jax.index.store import add_tokens, open_store
from stores import MORE, PASSAGES, encoder, reads


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Everything in a folder: the bytes of files, the targets of links, None for folders."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def write(path: Path, text: str = "mine") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def thesis(folder: Path) -> None:
    write(folder / "thesis" / "chapters" / "one.tex")


def checkout(folder: Path) -> None:
    write(folder / ".git" / "objects" / "pack" / "a.pack")
    write(folder / "src" / "passages" / "000000" / "main.py")


def runs(folder: Path) -> None:
    write(folder / "run1" / "checkpoints" / "100" / "params")


def web_project(folder: Path) -> None:
    write(folder / "manifest.json", '{"name": "a page"}')
    write(folder / "engines" / "faiss-000001" / "index.faiss")


def old_store(folder: Path) -> None:
    """As another version of this library left it, without a mark."""
    write(folder / "manifest.json", '{"format": 2, "segments": []}')
    write(folder / "vectors" / "000000" / "vectors.bin")


def link_to_thesis(folder: Path) -> None:
    thesis(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def file(folder: Path) -> None:
    write(folder)


def dangling(folder: Path) -> None:
    folder.symlink_to("nowhere")


@pytest.mark.parametrize(
    "make",
    [thesis, checkout, runs, web_project, old_store, link_to_thesis, file, dangling],
    ids=lambda each: each.__name__,
)
def test_a_place_that_holds_anything_else_is_refused_before_anything_is_written(make: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    make(folder)
    before = tree(tmp_path)
    for act in (
        lambda: building.build(folder, PASSAGES, encoder(), reads()),
        lambda: updates.add(folder, MORE, encoder()),
        lambda: updates.remove(folder, ["p0"]),
    ):
        with pytest.raises(InputError, match=f"{folder}.*; .*(name|build) ") as told:
            act()
        assert "delete" not in str(told.value)
        assert tree(tmp_path) == before


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\); choose another place"):
        building.build(tmp_path / "file" / "out", PASSAGES, encoder(), reads())


def test_what_a_user_puts_into_a_store_stays_through_every_change(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    building.build(folder, PASSAGES, encoder(), reads())
    thesis(tmp_path / "elsewhere")
    mine = {
        "README.md": write,
        "notes/000007/mine.txt": write,
        "passages/notes/mine.txt": write,
        "vectors/old/vectors.bin": write,
        "engines/my-000001/index.faiss": write,
        "removed/000099.txt": write,
        ".mine.tmp": write,
        ".manifest.json.5.tmp": lambda path: path.symlink_to(
            tmp_path / "elsewhere" / "thesis" / "chapters" / "one.tex"
        ),
        "passages/000055": lambda path: path.symlink_to(tmp_path / "elsewhere" / "thesis"),
    }
    for name, make in mine.items():
        make(folder / name) if make is not write else write(folder / name)
    before = {name: each for name, each in tree(tmp_path).items() if any(name.endswith(own) for own in mine)}
    building.build(tmp_path / "other", PASSAGES[:9], encoder(), reads())
    updates.add(folder, MORE, encoder())
    updates.remove(folder, ["p1"])
    updates.swap(folder, tmp_path / "other")
    with ownership.claim_and_lock(folder):
        plan = building.read(folder, MORE, building.make_build_spec(encoder(), None))
        building.encode(folder, plan, encoder(), None)
        building.commit(folder, plan, encoder(), None)
    assert before.items() <= tree(tmp_path).items()
    assert len(before) == len(mine)
    assert list(open_store(folder, encoder(), reads()).live_passages()) == MORE
    assert (tmp_path / "elsewhere" / "thesis" / "chapters" / "one.tex").read_text() == "mine"


def test_foreign_files_inside_of_a_part_stay_when_the_part_goes(tmp_path: Path) -> None:
    building.build(tmp_path / "index", PASSAGES, encoder(), reads())
    write(tmp_path / "index" / "vectors" / "000000" / "notes.txt")
    building.build(tmp_path / "other", PASSAGES[:9], encoder(), reads())
    updates.swap(tmp_path / "index", tmp_path / "other")
    assert tree(tmp_path / "index" / "vectors" / "000000") == {"notes.txt": b"mine"}


@pytest.mark.parametrize("kind", ["passages", "vectors", "removed", "engines"])
def test_a_folder_of_parts_that_is_a_link_is_not_written_to_and_can_be_read(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    building.build(folder, PASSAGES, encoder(), reads())
    updates.remove(folder, ["p0"])
    (folder / "engines").mkdir(exist_ok=True)
    (folder / kind).rename(tmp_path / "elsewhere")
    write(tmp_path / "elsewhere" / "000077" / "part.json")
    (folder / kind).symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path)
    for act in (
        lambda: updates.add(folder, MORE, encoder()),
        lambda: building.build(folder, PASSAGES, encoder(), reads()),
    ):
        with pytest.raises(
            InputError, match=f"{kind}: a link, .*; replace it by the folder that it links to, or link the whole"
        ):
            act()
    assert not add_tokens(folder, reads(max_length=8))
    assert tree(tmp_path) == before
    assert len(open_store(folder, encoder(), reads())) == 49


def test_a_store_behind_a_link_is_that_store(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "index").symlink_to("disk")
    building.build(tmp_path / "index", PASSAGES, encoder(), reads())
    updates.add(tmp_path / "index", MORE, encoder())
    assert (tmp_path / "index").is_symlink()
    assert list(open_store(tmp_path / "disk", encoder(), reads()).live_passages()) == PASSAGES + MORE


def test_a_copy_without_its_mark_is_read_but_not_changed(tmp_path: Path) -> None:
    building.build(tmp_path / "index", PASSAGES, encoder(), None)
    (tmp_path / "index" / ownership.MARKER).unlink()
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"has no rag-jax\.store, .*; copy that too if it is a copy, or build one"):
        updates.add(tmp_path / "index", MORE, encoder())
    store = open_store(tmp_path / "index", encoder(), reads())
    assert store.passage_tokens.shape[0] == len(PASSAGES)
    with (
        mock.patch.object(store_engines.BM25, "build") as built,
        pytest.raises(InputError, match=r"has no rag-jax\.store"),
    ):
        store_engines.add_bm25(store)
    assert not built.called, "nothing is done in vain"
    assert tree(tmp_path) == before


def test_what_cannot_be_deleted_hinders_nobody(tmp_path: Path, monkeypatch) -> None:
    def denied(part: Path) -> None:
        raise PermissionError(part)

    folder = tmp_path / "index"
    building.build(folder, PASSAGES, encoder(), reads())
    building.build(tmp_path / "other", PASSAGES[:9], encoder(), reads())
    with monkeypatch.context() as patched:
        patched.setattr(part_files, "delete_part", denied)
        updates.swap(folder, tmp_path / "other")
        updates.add(folder, MORE, encoder())
    assert (folder / "vectors" / "000000").is_dir()
    assert list(open_store(folder, encoder(), reads()).live_passages()) == PASSAGES[:9] + MORE
    updates.remove(folder, ["p1"])
    assert not (folder / "vectors" / "000000").exists()


@pytest.mark.parametrize("name", ["manifest.json", "building.json"])
def test_a_file_that_is_replaced_is_not_written_through_a_link(name: str, tmp_path: Path) -> None:
    folder, mine = tmp_path / "index", tmp_path / "mine.txt"
    write(mine)
    building.build(folder, PASSAGES, encoder(), None)
    (folder / f".{name}.{os.getpid()}.tmp").symlink_to(mine)
    (folder / "building.json").symlink_to(mine)
    with pytest.raises(InputError, match=r"cannot be written \(File exists\)|building\.json: damaged"):
        building.build(folder, MORE, encoder(), None)
    (folder / "building.json").unlink()
    with pytest.raises(InputError, match=r"cannot be written \(File exists\)"):
        building.build(folder, MORE, encoder(), None)
    assert mine.read_text() == "mine"
    assert list(open_store(folder, encoder(), None).live_passages()) == PASSAGES


def test_a_refused_build_leaves_nothing_and_a_crash_leaves_a_place_to_build_in(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one passage"):
        building.build(tmp_path / "a" / "b" / "index", [], encoder(), reads())
    assert tree(tmp_path) == {}
    (tmp_path / "index").mkdir()  # and no further
    with pytest.raises(InputError, match="at least one passage"):
        building.build(tmp_path / "index", [], encoder(), reads())
    assert tree(tmp_path) == {"index": None}
    ownership.claim(tmp_path / "index")  # and no further
    building.build(tmp_path / "index", PASSAGES, encoder(), reads())
    assert list(open_store(tmp_path / "index", encoder(), reads()).live_passages()) == PASSAGES


names = st.sampled_from(
    ["passages", "vectors", "removed", "engines", "tokens-0123456789abcdef", "tokens-x", "notes", "Passages"]
)
inner = st.sampled_from(
    ["000000", "000001", "12", "chapters", ".000003.17.tmp", ".x.17.tmp", "faiss-000001", "bm25-000002", "000001.bak"]
)
leaves = st.sampled_from(["part.json", "table.arrow", "vectors.bin", "index.faiss", "one.tex", "part.json.bak"])
OWN = {
    "passages": ["000000", "000001", ".000003.17.tmp"],
    "vectors": ["000000", "000001", ".000003.17.tmp"],
    "tokens-0123456789abcdef": ["000000", "000001", ".000003.17.tmp"],
    "removed": ["000000", "000001", ".000003.17.tmp"],
    "engines": ["faiss-000001", "bm25-000002"],
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.sets(st.tuples(names, inner, leaves), max_size=12))
def test_only_files_of_parts_are_ever_cleared_away(files: set, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.rmtree(folder, ignore_errors=True)
    ownership.claim(folder)
    for path in files:
        write(folder.joinpath(*path))
    ownership.delete_parts(folder, lambda part: False)
    left = {tuple(path.relative_to(folder).parts) for path in folder.rglob("*") if path.is_file()}
    foreign = {path for path in files if path[1] not in OWN.get(path[0], ()) or path[2] in ("one.tex", "part.json.bak")}
    assert left == {*foreign, (ownership.MARKER,)}


HOLD = "import sys; from pathlib import Path; from rag_jax.index import ownership\n"
HOLD += "with ownership.lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_every_writer_is_refused_in_a_line_while_another_process_writes(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "index"
    building.build(folder, PASSAGES, encoder(), None)
    monkeypatch.setattr(ownership, "LOCK_TIMEOUT", 0.05)
    before = tree(folder)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    for act in (
        lambda: updates.add(folder, MORE, encoder()),
        lambda: updates.remove(folder, ["p0"]),
        lambda: updates.replace(folder, PASSAGES[:1], encoder()),
        lambda: updates.swap(folder, folder),
        lambda: building.build(folder, MORE, encoder(), None),
    ):
        with pytest.raises(ownership.BusyError, match="another process is writing to it; wait until it is done"):
            act()
    assert tree(folder) == before
    (folder / "building.json").write_text("{}")  # it is a build that writes: no end of it is waited for
    assert open_store(folder, encoder(), reads()).passage_tokens.shape[0] == len(PASSAGES), "tokens made in memory"
    (folder / "building.json").unlink()
    holder.communicate()
    store_engines.add_bm25(open_store(folder, None, None))
    assert manifest.read(folder).version == 2
