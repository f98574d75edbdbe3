"""Training states and bare parameters on disk: what was saved comes back, and what is damaged is named."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rag_jax.core.training import TrainState
from rag_jax.errors import InputError
from rag_jax.run.checkpoints import Checkpoints
from rag_jax.types import RagParams


def params(fill: float = 1.0) -> RagParams:
    return RagParams({"word": jnp.full((3, 2), fill)}, {"bias": jnp.full(4, -fill)})


def state(step: int = 0, fill: float = 1.0) -> TrainState:
    moments = {"mu": params(10 * fill), "count": jnp.asarray(step, jnp.int32)}
    return TrainState(jnp.asarray(step, jnp.int32), params(fill), moments, jax.random.key(7 + step))


def assert_same(one, other) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    readable = (jax.tree.map(_numbers, each) for each in (one, other))
    jax.tree.map(np.testing.assert_array_equal, *readable)


def _numbers(leaf: jax.Array) -> jax.Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def saved(workdir: Path, *states: TrainState) -> Path:
    checkpoints = Checkpoints(workdir)
    for each in states:
        checkpoints.save(each)
    checkpoints.close()
    return workdir


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, *(state(step, 0.5 * step) for step in (1, 2, 3)), state(3, 9.0))  # a step is saved once
    checkpoints = Checkpoints(tmp_path)
    assert_same(checkpoints.restore(state), state(3, 1.5))
    assert_same(checkpoints.restore_params(params()), params(1.5))
    checkpoints.close()
    assert sorted(folder.name for folder in checkpoints.folder.iterdir()) == ["2", "3"]


def test_bare_parameters_are_where_a_training_begins(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_params(params(3.0))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert_same(checkpoints.restore_params(params()), params(3.0))
    assert_same(checkpoints.restore(state), state()._replace(params=params(3.0)))
    checkpoints.save(state(1, 4.0))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert_same(checkpoints.restore(state), state(1, 4.0))
    checkpoints.close()


def test_a_workdir_without_checkpoints_has_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore(state) is None
    assert checkpoints.restore_params(params()) is None
    checkpoints.close()


def assert_refused(workdir: Path, step: int, restore) -> None:
    checkpoints = Checkpoints(workdir)
    with pytest.raises(InputError) as said:
        restore(checkpoints)
    checkpoints.close()
    assert str(said.value).startswith(f"{workdir}/checkpoints/{step}: cannot be restored (")
    assert str(said.value).endswith("; delete that folder to go on from the checkpoint before it")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("item", ["params", "rest"])
def test_a_damaged_item_is_named_and_the_checkpoint_before_serves(tmp_path: Path, item: str) -> None:
    saved(tmp_path, state(1, 1.0), state(2, 2.0))
    for path in (tmp_path / "checkpoints" / "2" / item).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert_refused(tmp_path, 2, lambda checkpoints: checkpoints.restore(state))
    if item == "params":
        assert_refused(tmp_path, 2, lambda checkpoints: checkpoints.restore_params(params()))
    else:
        checkpoints = Checkpoints(tmp_path)
        assert_same(checkpoints.restore_params(params()), params(2.0))  # an answer needs no more
        checkpoints.close()


def test_parameters_of_other_networks_are_refused(tmp_path: Path) -> None:
    saved(tmp_path, state(1))
    other = RagParams({"layer_0": {"kernel": jnp.zeros((5, 2))}}, {"bias": jnp.zeros(4)})
    assert_refused(tmp_path, 1, lambda checkpoints: checkpoints.restore_params(other))
