"""A workdir belongs to one run, and one process trains in it at a time; whatever else is there stays as it is."""

import multiprocessing
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rag_jax.config.config import Config, Data, Retriever
from rag_jax.config.files import save_config
from rag_jax.errors import InputError
from rag_jax.pipeline.components import Components
from rag_jax.training.run import fit
from rag_jax.training.workdir import LOCK, WRITTEN, check_ownership, locked

USUAL = Config(Data(), Retriever("tower"))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_no_run_has_written_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError) as caught:
        check_ownership(tmp_path)
    told = f"holds {name}, but no config.json of a run that wrote it"
    assert str(caught.value) == f"{tmp_path}: {told}; choose another --workdir, or move it away"


def test_all_that_a_run_writes_is_known(trained) -> None:
    read_or_checked = {"config.json", "tokenizer.json", "index"}
    assert {path.name for path in trained[2].iterdir()} - read_or_checked <= set(WRITTEN)


def test_the_config_is_written_before_all_that_it_shows_to_be_ours(
    towns: Config, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(components: Components, workdir: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rag_jax.training.run.workdir_tokenizers.save", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(towns, data=replace(towns.data, index=trained[2] / "index")), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"model_type": "bart"}', '{"model_type": "rag", "generator": {}}', '{"data": {}, "steps'],
)  # fmt: skip
def test_a_config_of_something_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: is not the config of a run; choose another"):
        check_ownership(tmp_path)


@pytest.mark.parametrize("name", ["config.json", *WRITTEN])
def test_links_are_not_followed_even_in_a_workdir_of_ours(tmp_path: Path, name: str) -> None:
    save_config(USUAL, tmp_path / "config.json")
    check_ownership(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{name}: is a link to .*elsewhere, which is not overwritten; choose"):
        check_ownership(tmp_path)


def test_what_a_run_does_not_write_is_nobodys_business(tmp_path: Path) -> None:
    (tmp_path / "thesis" / "checkpoints").mkdir(parents=True)
    (tmp_path / "tokenizer.json").write_text("{}")  # read, where it is there
    check_ownership(tmp_path)
    check_ownership(tmp_path / "new")


def test_a_file_is_no_workdir(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"file: is a file; choose another --workdir$"):
        check_ownership(tmp_path / "file")


def test_a_workdir_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"file/run: cannot be written \(Not a directory\); choose another --workdir$"),
        locked(tmp_path / "file" / "run"),
    ):
        pass
    assert tree(tmp_path) == {"file": b""}


def test_the_lock_names_who_holds_it_and_is_gone_behind_it(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "a"):
        for _ in range(2):
            with (
                pytest.raises(InputError, match=rf"a: process {os.getpid()} on .+ trains in it; wait until it is done"),
                locked(tmp_path / "runs" / "a"),
            ):
                pass
        with locked(tmp_path / "runs" / "b"):
            pass
    assert tree(tmp_path) == {}  # nothing was written: the folders that were made for it are gone too
    with locked(tmp_path / "runs"):
        (tmp_path / "runs" / "config.json").write_text("{}")
    assert tree(tmp_path) == {"runs": None, "runs/config.json": b"{}"}


def test_the_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("thesis")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "thesis"


def trains(folder: Path, name: str, steps: int) -> None:
    """A run in little: a line for each step, going on behind those that are there."""
    try:
        with locked(folder):
            lines = folder / "lines"
            done = len(lines.read_text().splitlines()) if lines.exists() else 0
            for step in range(done, steps):
                with lines.open("a") as file:
                    file.write(f"{step}\n")
                time.sleep(0.001)
    except InputError as error:
        (folder.parent / f"{name}.refused").write_text(str(error))


def interleaved(place: Path, trials: int) -> int:
    """Three runs on one workdir at random moments, one of them often killed: how many were refused."""
    chance, refused = random.Random(0), 0
    for trial in range(trials):
        workdir, steps = place / str(trial) / "run", 8
        workdir.parent.mkdir()
        runs: list[multiprocessing.Process] = []
        for name in ("one", "two", "three"):
            runs.append(multiprocessing.Process(target=trains, args=(workdir, name, steps)))
            runs[-1].start()
            time.sleep(chance.uniform(0, 0.004))
            if chance.random() < 0.3:
                chance.choice(runs).kill()
        for each in runs:
            each.join()
        told = [path.read_text() for path in workdir.parent.glob("*.refused") if path.stat().st_size]
        assert all("trains in it; wait until it is done, or choose another --workdir" in each for each in told)
        trains(workdir, "last", steps)
        assert (workdir / "lines").read_text().split() == [str(step) for step in range(steps)]
        assert not (workdir / LOCK).exists()
        refused += len(told)
    return refused


@pytest.mark.extended
def test_of_three_processes_one_trains_whenever_they_are_started_and_killed(tmp_path: Path) -> None:
    """In a process of its own, which forks before it has threads."""
    command = [sys.executable, __file__, tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 5


def test_a_holder_that_has_not_said_who_it_is_is_another_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / LOCK).write_text("")
        with pytest.raises(InputError, match="another process trains in it"), locked(tmp_path):
            pass


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    print(interleaved(Path(sys.argv[1]), 50))
