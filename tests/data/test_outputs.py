"""Nothing that is there is overwritten, and what was cut short is resumed."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_jax.data import outputs
from rag_jax.data.outputs import check_new_folder, new_json, resumable_lines
from rag_jax.errors import InputError

MARK = "0123456789abcdef"
ROWS = [{"question": f"who? {number} é", "answer": "x" * number} for number in range(4)]


def write(path: Path, rows=ROWS, mark: str = MARK) -> None:
    """All rows that are not there yet."""
    with resumable_lines(path, mark) as lines:
        for number, row in enumerate(rows):
            if str(number) not in lines:
                lines.append(str(number), row)


def begin(path: Path) -> None:
    with resumable_lines(path, MARK):
        pass


def figures(path: Path) -> None:
    with new_json(path) as tell:
        tell({})


def there(folder: Path) -> dict[str, Path]:
    """What is not to be written to, and why."""
    (folder / "thesis.txt").write_text("years of work")
    (folder / "link").symlink_to(folder / "thesis.txt")
    (folder / "dangling").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "fifo")
    for place in ("store/vectors", "run/checkpoints", "begun"):
        (folder / place).mkdir(parents=True)
    for place in ("store/manifest.json", "run/config.json", "begun/rag-jax.store"):
        (folder / place).write_text("{}")
    return {
        "exists already": folder / "thesis.txt",
        "is a link": folder / "link",
        "is a link; ": folder / "dangling",
        "is a folder": folder,
        "is no plain file": folder / "fifo",
        "is no plain file; ": Path("/dev/null"),
        f"is inside {folder / 'store'}, a store or a workdir": folder / "store" / "new.jsonl",
        f"is inside {folder / 'run'}, a store or a workdir": folder / "run" / "sub" / "new.jsonl",
        f"is inside {folder / 'begun'}, a store": folder / "begun" / "new.jsonl",
    }


@pytest.mark.parametrize("command", [begin, figures])
def test_what_is_there_stays(tmp_path: Path, command) -> None:
    refused = there(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for why, path in refused.items():
        with pytest.raises(InputError) as caught:
            command(path)
        assert str(caught.value).startswith(str(path))
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_file_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    write(tmp_path / "empty")
    assert [json.loads(line)["id"] for line in (tmp_path / "empty").read_text().splitlines()] == ["0", "1", "2", "3"]


def test_a_file_to_which_nothing_came_is_gone(tmp_path: Path) -> None:
    begin(tmp_path / "sub" / "new")
    assert not (tmp_path / "sub" / "new").exists()
    (tmp_path / "empty").touch()
    begin(tmp_path / "empty")
    assert (tmp_path / "empty").exists()


def test_folders_that_were_made_for_it_are_gone_with_it(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "new" / "more" / "lines.jsonl"
    with pytest.raises(InputError, match="no"), resumable_lines(path, "f"):
        raise InputError("no")
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


def test_lines_say_which_command_wrote_them(tmp_path: Path) -> None:
    write(tmp_path / "answers.jsonl")
    found = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert found == [{"fingerprint": MARK, "id": str(number), **row} for number, row in enumerate(ROWS)]


@given(st.integers(0, 400))
def test_a_file_that_was_cut_anywhere_is_finished_to_the_same_bytes(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        write(path)
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        with resumable_lines(path, MARK) as lines:
            assert len(lines) == whole[:cut].count(b"\n")
        write(path)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda text: text.replace(MARK, "f" * 16), 1),
        (lambda text: text + "mine\n", 5),
        (lambda text: text + "mine", 5),
        (lambda text: text.replace('"id": "2"', '"it": "2"'), 3),
        (lambda text: text.replace('"id": "1"', '"id": "1'), 2),
    ],
)
def test_a_file_that_is_not_all_of_this_command_is_refused(tmp_path: Path, change, line: int) -> None:
    path = tmp_path / "answers.jsonl"
    write(path)
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"^{path}:{line}: exists already, and is not from this command"):
        write(path)
    assert path.read_bytes() == before


def test_lines_are_put_in_order(tmp_path: Path) -> None:
    path, torn = tmp_path / "answers.jsonl", '{"fingerprint": "0123456789abcdef", "id": "9", "ques'
    path.write_text(torn)
    with resumable_lines(path, MARK) as lines:
        for number in (2, 0, 3, 1):
            lines.append(str(number), ROWS[number])
        lines.reorder(["0", "1", "2", "3"])
    write(tmp_path / "straight.jsonl")
    assert path.read_bytes() == (tmp_path / "straight.jsonl").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["answers.jsonl", "straight.jsonl"]


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with resumable_lines(tmp_path / "answers.jsonl", MARK) as lines:
        lines.append("0", {})
        with pytest.raises(InputError, match="another process is writing it"):
            begin(tmp_path / "answers.jsonl")


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch) -> None:
    path, pwrite = tmp_path / "answers.jsonl", os.pwrite
    write(path, ROWS[:2])
    before = path.read_bytes()

    def full(handle: int, data: bytes, at: int) -> int:
        if len(data) < 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(handle, data[:30], at)

    monkeypatch.setattr(outputs.os, "pwrite", full)
    with pytest.raises(InputError, match=r"\(No space left on device\); make room, then run the same"):
        write(path)
    assert path.read_bytes() == before


def test_figures_are_written_in_place_of_those_before(tmp_path: Path) -> None:
    with new_json(tmp_path / "figures.json") as tell:
        tell({"results": list(range(100))})
        tell({"results": [1]})
    assert json.loads((tmp_path / "figures.json").read_text()) == {"results": [1]}
    with pytest.raises(InputError, match="exists already"):
        figures(tmp_path / "figures.json")
    with new_json(None) as tell:
        tell({})


def test_gz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"which \.gz does not allow"):
        begin(tmp_path / "answers.jsonl.gz")


def test_a_folder_is_made_where_nothing_is(tmp_path: Path) -> None:
    refused = there(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "to empty").symlink_to(tmp_path / "empty")
    for path in (*refused.values(), tmp_path / "to empty"):
        with pytest.raises(InputError, match=r"exists already; |a store or a workdir; "):
            check_new_folder(path)
    check_new_folder(tmp_path / "empty")
    check_new_folder(tmp_path / "new" / "deep")
