"""The list of checksums of a folder."""

import hashlib
from pathlib import Path

import pytest

from rag_jax.data import checksums


def written(folder: Path) -> dict[str, str]:
    (folder / "below").mkdir()
    for name, text in {"a": "", "below/b c": "text", "left out": "."}.items():
        (folder / name).write_text(text)
    checksums.write(folder, lambda name: name == "left out")
    found = checksums.read(folder)
    assert found is not None
    return found


def test_the_list_names_every_file_that_is_not_left_out(tmp_path: Path) -> None:
    assert written(tmp_path) == {
        "a": hashlib.sha256(b"").hexdigest(),
        "below/b c": hashlib.sha256(b"text").hexdigest(),
    }


def test_the_first_file_that_differs_is_named(tmp_path: Path) -> None:
    listed = written(tmp_path)
    assert checksums.first_damaged(tmp_path, listed, listed) is None
    assert checksums.first_damaged(tmp_path, listed, ["a", "unknown"]) == "unknown"
    (tmp_path / "below" / "b c").write_text("Text")
    assert checksums.first_damaged(tmp_path, listed, listed) == "below/b c"
    (tmp_path / "a").unlink()
    assert checksums.first_damaged(tmp_path, listed, listed) == "a"


@pytest.mark.parametrize("damaged", [b"x", b"\xff", b"a  b\n", b"0" * 64 + b" name\n", b"0" * 64 + b"  name"])
def test_a_damaged_list_is_no_list(tmp_path: Path, damaged: bytes) -> None:
    written(tmp_path)
    path = tmp_path / checksums.FILE
    path.write_bytes(path.read_bytes() + damaged)
    with pytest.raises(ValueError, match="SHA256SUMS is damaged"):
        checksums.read(tmp_path)


def test_without_a_list_there_is_none(tmp_path: Path) -> None:
    assert checksums.read(tmp_path) is None
