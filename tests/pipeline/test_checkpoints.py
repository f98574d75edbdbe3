"""Training states and bare parameters on disk: what was saved comes back, and what is damaged is named."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bit_flips import outcomes
from rag_jax.core.refresh import RefreshedIndex
from rag_jax.core.training import TrainState
from rag_jax.data import checksums
from rag_jax.errors import InputError
from rag_jax.pipeline.checkpoints import Checkpoints, refreshed_at, saved_host_state
from rag_jax.types import Int8Vectors, RagParams


def params(fill: float = 1.0) -> RagParams:
    return RagParams({"word": jnp.full((3, 2), fill)}, {"bias": jnp.full(4, -fill)})


def state(step: int = 0, fill: float = 1.0) -> TrainState:
    moments = {"mu": params(10 * fill), "count": jnp.asarray(step, jnp.int32)}
    count, none = jnp.asarray(step, jnp.int32), jnp.zeros((), jnp.int32)
    return TrainState(count, params(fill), moments, jax.random.key(7 + step), none, none)


SHAPES = jax.eval_shape(state)


def place(step: int) -> dict:
    return {"input": {"examples": 4 * step}, "window": [{"loss": 0.1, "recall": None}]}


def assert_same(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    readable = (jax.tree.map(_numbers, each) for each in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *readable)


def _numbers(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def saved(workdir: Path, *states: TrainState) -> Path:
    checkpoints = Checkpoints(workdir)
    for each in states:
        checkpoints.save(each, place(int(each.step)))
    checkpoints.close()
    return workdir


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, *(state(step, 0.5 * step) for step in (1, 2, 3)), state(3, 9.0))  # a step is saved once
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.restore(SHAPES)
    assert found is not None
    assert_same(found[0], state(3, 1.5))
    assert found[1] == place(3)
    assert_same(checkpoints.restore_params(params()), params(1.5))
    checkpoints.close()
    assert sorted(folder.name for folder in checkpoints.folder.iterdir()) == ["2", "3"]


def test_bare_parameters_are_where_a_training_begins(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_params(params(3.0))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert_same(checkpoints.restore_params(params()), params(3.0))
    assert checkpoints.restore(SHAPES) is None
    checkpoints.save(state(1, 4.0), place(1))
    checkpoints.close()
    assert_same(restored(tmp_path), state(1, 4.0))


def test_a_workdir_without_checkpoints_has_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore(SHAPES) is None
    assert checkpoints.restore_params(params()) is None
    checkpoints.close()


def restored(workdir: Path, told: list[str] | None = None) -> TrainState:
    checkpoints = Checkpoints(workdir)
    found = checkpoints.restore(SHAPES, report=(told if told is not None else []).append)
    checkpoints.close()
    assert found is not None
    return found[0]


def spoil(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize("odd", [jnp.nan, jnp.inf, -jnp.inf])
def test_parameters_that_are_no_numbers_are_as_good_as_damaged(tmp_path: Path, odd: float) -> None:
    saved(tmp_path, state(1, 1.0), state(2, odd))
    told: list[str] = []
    checkpoints = Checkpoints(tmp_path)
    assert_same(checkpoints.restore_params(params(), told.append), params(1.0))
    checkpoints.close()
    assert_same(restored(tmp_path, told), state(1, 1.0))
    why = "cannot be restored (its parameters hold NaN or infinity); resuming from step 1"
    assert told == [f"{tmp_path}/checkpoints/2: {why}"] * 2


@pytest.mark.parametrize("item", ["params", "rest", "place", ""])
def test_a_damaged_checkpoint_is_told_and_the_one_before_serves(tmp_path: Path, item: str) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    spoil(tmp_path / "checkpoints" / "2" / item)
    told: list[str] = []
    assert_same(restored(tmp_path, told), state(1, 1.0))
    (line,) = told
    assert line.startswith(f"{tmp_path}/checkpoints/2: cannot be restored (")
    assert line.endswith("; resuming from step 1")
    assert "\n" not in line


def test_what_is_damaged_is_put_aside_and_its_number_is_free(tmp_path: Path) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    spoil(tmp_path / "checkpoints" / "2" / "rest")
    restored(tmp_path)
    saved(tmp_path, state(2, 3.0))
    assert_same(restored(tmp_path), state(2, 3.0))
    assert len(list((tmp_path / "checkpoints").glob("2.damaged-*"))) == 1


def test_an_answer_needs_the_parameters_only_and_moves_nothing(tmp_path: Path) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    checkpoints, told = Checkpoints(tmp_path), []
    spoil(tmp_path / "checkpoints" / "2" / "rest")
    assert_same(checkpoints.restore_params(params(), told.append), params(2.0))
    spoil(tmp_path / "checkpoints" / "2" / "params")
    assert_same(checkpoints.restore_params(params(), told.append), params(1.0))
    assert len(told) == 1
    assert sorted(folder.name for folder in checkpoints.folder.iterdir()) == ["1", "2"]
    checkpoints.close()


def is_restored(workdir: Path, expected: TrainState) -> bool:
    """Whether the newest state is the expected one."""
    checkpoints = Checkpoints(workdir)
    try:
        found = checkpoints.restore(jax.eval_shape(lambda: expected))
    finally:
        checkpoints.close()
    if found is None:
        return False
    assert_same(found[0], expected)
    return found[1] == place(int(expected.step))


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    saved(tmp_path, state(1, 1.0))
    seen = outcomes(tmp_path, 12, lambda: is_restored(tmp_path, state(1, 1.0)))
    assert seen.noticed


@pytest.mark.parametrize("item", ["params", "rest", "place"])
def test_a_changed_byte_of_any_item_is_told_and_the_one_before_serves(tmp_path: Path, item: str) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    written = (path for path in (tmp_path / "checkpoints" / "2" / item).rglob("*") if path.is_file())
    largest = max(written, key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    told: list[str] = []
    assert saved_host_state(tmp_path) == place(1 if item == "place" else 2)
    assert_same(restored(tmp_path, told), state(1, 1.0))
    (line,) = told
    assert f"checkpoints/2: cannot be restored ({item}/" in line
    assert line.endswith(" is not what was written); resuming from step 1")


def test_sha256sum_checks_a_checkpoint(tmp_path: Path) -> None:
    """Each has its checksums from the moment that it is complete, those of all files but orbax's own record of it."""
    saved(tmp_path, state(1))
    folder = tmp_path / "checkpoints" / "1"
    listed = checksums.read(folder)
    assert listed is not None
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - set(listed) == {checksums.FILE, "_CHECKPOINT_METADATA", "commit_success.txt"}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", checksums.FILE], cwd=folder, check=True)


def test_an_added_file_is_as_good_as_damaged(tmp_path: Path) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    (tmp_path / "checkpoints" / "2" / "params" / "more").write_text("more")
    told: list[str] = []
    assert_same(restored(tmp_path, told), state(1, 1.0))
    assert "params/more is not what was written" in told[0]


def test_a_checkpoint_without_checksums_is_restored_and_told(tmp_path: Path) -> None:
    saved(tmp_path, state(1, 1.0))
    (tmp_path / "checkpoints" / "1" / checksums.FILE).unlink()
    told: list[str] = []
    assert_same(restored(tmp_path, told), state(1, 1.0))
    assert told == [f"{tmp_path}/checkpoints/1: restored unchecked, an older version wrote it without checksums"]


@pytest.mark.extended
def test_processes_agree_on_what_is_damaged(tmp_path: Path) -> None:
    """Each compares a share of the files, and all resume from the same step."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[1] / "support" / "checkpoint_processes.py"
    environment = os.environ | {"PYTHONPATH": str(script.parents[2]), "XLA_FLAGS": ""}
    commands = [[sys.executable, script, str(port), str(number), tmp_path] for number in range(2)]
    processes = [subprocess.Popen(each, env=environment, stdout=subprocess.PIPE, text=True) for each in commands]
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        found = json.loads(said.splitlines()[-1])
        assert found["place"] == {"input": {"examples": 1}, "window": []}
        assert found["own"] == [[[1.0] * 4] * 4], "half of the rows of step 1"
        (line,) = found["told"]
        assert line.endswith("is not what was written); resuming from step 1")


def test_where_none_is_whole_the_newest_is_named(tmp_path: Path) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    spoil(tmp_path / "checkpoints" / "1" / "rest")
    spoil(tmp_path / "checkpoints" / "2" / "rest")
    with pytest.raises(InputError, match=r"checkpoints/2: cannot be restored \(.*or delete it$"):
        restored(tmp_path)


def test_parameters_of_other_networks_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, state(1))
    other = RagParams({"layer_0": {"kernel": jnp.zeros((5, 2))}}, {"bias": jnp.zeros(4)})
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(InputError, match=r"checkpoints/1: cannot be restored \(.*config it was made with"):
        checkpoints.restore_params(other)
    checkpoints.close()


WRITES = """
import resource, signal, sys
from pathlib import Path
import jax.numpy as jnp
from rag_jax.errors import InputError
from rag_jax.pipeline.checkpoints import Checkpoints
from rag_jax.types import RagParams

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = Checkpoints(Path(sys.argv[1]))
import tests_state as test
checkpoints.save(test.state(1), test.place(1))
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
try:
    checkpoints.save(test.state(2), test.place(2))
    checkpoints.close()
except InputError as error:
    print(error)
"""


@pytest.mark.extended
def test_a_full_disk_is_told_and_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    here = Path(__file__).parent
    paths = {"PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here.parent / "support"), str(here)])}
    script = WRITES.replace("tests_state", Path(__file__).stem)
    ran = subprocess.run(
        [sys.executable, "-c", script, tmp_path], env=os.environ | paths, capture_output=True, text=True, check=False
    )
    assert ran.stdout.startswith(f"{tmp_path}/checkpoints: a checkpoint cannot be written ("), ran.stderr
    assert_same(restored(tmp_path), state(1))


def test_parameters_are_stored_as_before_passage_towers_were_trained(tmp_path: Path) -> None:
    """Other versions' checkpoints have no entry for it, neither in the parameters nor in their moments."""
    saved(tmp_path, state(1))
    folder = (tmp_path / "checkpoints" / "1").absolute()
    with ocp.StandardCheckpointer() as reader:
        stored, rest = reader.restore(folder / "params"), reader.restore(folder / "rest")
    assert sorted(stored) == sorted(rest["opt_state"]["mu"]) == ["generator", "question_tower"]
    assert "refreshed" not in rest


def test_the_index_of_a_run_that_trains_its_passage_tower_comes_back(tmp_path: Path) -> None:
    index = RefreshedIndex(Int8Vectors(jnp.ones((6, 4), jnp.int8), jnp.ones(6)), jnp.arange(6, dtype=jnp.int32))
    both = params(2.0)._replace(passage_tower={"word": jnp.full((3, 2), 5.0)})
    trained = state(4)._replace(params=both, opt_state={"mu": both}, refreshed=index)
    saved(tmp_path, trained)
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.restore(jax.eval_shape(lambda: trained))
    assert found is not None
    assert_same(found[0], trained)
    assert_same(checkpoints.restore_params(both), both)
    checkpoints.close()
    assert_same(refreshed_at(tmp_path, 4, "int8"), index)
    next((tmp_path / "checkpoints" / "4" / "rest").rglob("d/*")).write_bytes(b"")
    with pytest.raises(InputError, match=r"checkpoints/4: its refreshed index cannot be restored \(.* is not what was"):
        refreshed_at(tmp_path, 4, "int8")
