"""Folders of results: nothing is replaced that was not written there."""

import json
from pathlib import Path

import pytest

from rag_jax.data import own_folder
from rag_jax.data.own_folder import OwnFolder
from rag_jax.errors import InputError

MARKER = "mark"


def folder(path: Path) -> OwnFolder:
    return OwnFolder(path, MARKER, "results", "choose another --output")


def test_its_own_files_are_written_again(tmp_path: Path) -> None:
    out = folder(tmp_path / "new" / "out")
    out.claim()
    out.write({"a.txt": b"one", "b.txt": b"x"})
    out.write({"a.txt": b"two"})
    out.write({"a.txt": b"three", "b.txt": b"y"})
    assert {path.name: path.read_bytes() for path in out.path.iterdir() if path.name != MARKER} == {
        "a.txt": b"three",
        "b.txt": b"y",
    }


def test_what_the_user_changed_or_put_there_is_refused(tmp_path: Path) -> None:
    out = folder(tmp_path / "out")
    out.claim()
    out.write({"a.txt": b"one"})
    (out.path / "a.txt").write_text("edited")
    (out.path / "b.txt").write_text("mine")
    for name in ("a.txt", "b.txt"):
        with pytest.raises(InputError, match=rf"{name}: not written by this command, or changed since; move it away"):
            out.write({name: b"two"})
    assert (out.path / "a.txt").read_text() == "edited"
    assert (out.path / "b.txt").read_text() == "mine"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes.txt, but no results; choose another --output"):
        folder(tmp_path).claim()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_crash_between_the_marker_and_the_file_leaves_it_ours(tmp_path: Path, monkeypatch) -> None:
    out = folder(tmp_path / "out")
    out.claim()
    out.write({"a.txt": b"one"})

    def crash(old: Path, new: Path) -> None:
        """Stop where the file of results would be renamed; the marker's own renaming goes through."""
        if new.name == "a.txt":
            raise KeyboardInterrupt
        Path(old).rename(new)

    with monkeypatch.context() as patched:
        patched.setattr(own_folder.os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            out.write({"a.txt": b"two"})
    assert (out.path / "a.txt").read_bytes() == b"one"
    out.write({"a.txt": b"three"})
    assert (out.path / "a.txt").read_bytes() == b"three"
    assert sorted(path.name for path in out.path.iterdir()) == ["a.txt", MARKER]


@pytest.mark.parametrize("text", ["[]", "{", "{}", json.dumps({"checksums": 3})])
def test_another_marker_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(InputError, match="mark: not a marker of results; choose another --output"):
        folder(tmp_path).check(["a.txt"])


def test_links_files_and_places_inside_a_workdir_are_refused(tmp_path: Path, trained) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for place in ("file", "link"):
        with pytest.raises(InputError, match="is a link or no folder"):
            folder(tmp_path / place).check()
    with pytest.raises(InputError, match="a store or a workdir; choose a path outside"):
        folder(trained[2] / "out").check()
    out = folder(tmp_path / "out")
    out.claim()
    out.write({"a.txt": b"one"})
    (tmp_path / "real").write_bytes(b"one")
    (out.path / "a.txt").unlink()
    (out.path / "a.txt").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="not written by this command"):
        out.write({"a.txt": b"two"})


def test_a_folder_in_the_commands_own_workdir_is_no_foreign_one(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"is inside .*run, a store or a workdir"):
        folder(tmp_path / "run" / "data").check()
    own = OwnFolder(tmp_path / "run" / "data", MARKER, "data", "choose another --workdir", tmp_path / "run")
    own.claim()
    own.write({"a.txt": b"one"})
    nested = OwnFolder(
        tmp_path / "run" / "x" / "data", MARKER, "data", "choose another --workdir", tmp_path / "run" / "x"
    )
    with pytest.raises(InputError, match=r"x: is inside .*run, a store or a workdir"):
        nested.claim()
