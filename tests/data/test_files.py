"""A small file is written whole or not at all, and a link is not followed."""

import os
import stat
from pathlib import Path

import pytest

from rag_jax.data.files import write_atomically
from rag_jax.errors import InputError


def test_the_new_text_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_atomically(tmp_path / "a.json", text)
        assert (tmp_path / "a.json").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o666 & ~mask


def test_links_of_its_name_and_of_the_one_beside_it_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("thesis")
    (tmp_path / "a.json").symlink_to(tmp_path / "mine")
    (tmp_path / ".a.json.tmp").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "mine").read_text() == "thesis"
    assert (tmp_path / "a.json").read_text() == "new"


def test_what_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a.json", "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.json: the disk is full, .* are free; make room and run it again$"):
        write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
