"""One-bit flips at 300 random places of a store, and of a checkpoint: each noticed in one line, or harmless."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bit_flips import outcomes
from rag_jax.core.training import TrainState
from rag_jax.index import ownership
from rag_jax.pipeline.checkpoints import Checkpoints
from stores import build_all_parts, is_checked, is_used

COUNT = 300
pytestmark = pytest.mark.faults


def test_flips_of_a_store_are_noticed_by_the_check_and_end_no_process(tmp_path: Path) -> None:
    expected = build_all_parts(tmp_path / "store")
    checked = outcomes(tmp_path / "store", COUNT, lambda: is_checked(tmp_path / "store", expected))
    used = outcomes(tmp_path / "store", COUNT, lambda: is_used(tmp_path / "store"), seed=1)
    print(f"store, checked: {checked}; used: {used}")
    assert {place.partition(",")[0] for place in checked.harmless} <= {ownership.MARKER}


def test_flips_of_a_checkpoint_are_noticed_or_harmless(tmp_path: Path) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    params, mu, nu = ({"kernel": jax.random.normal(key, (64, 32)), "bias": jnp.ones(32)} for key in keys)
    none = jnp.zeros((), jnp.int32)
    state = TrainState(jnp.int32(3), params, {"mu": mu, "nu": nu}, jax.random.key(1), none, none)
    place = {"input": {"examples": 12}, "window": [{"loss": 0.5}]}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, place)
    checkpoints.close()

    def is_restored() -> bool:
        checkpoints = Checkpoints(tmp_path)
        try:
            found = checkpoints.restore(jax.eval_shape(lambda: state))
        finally:
            checkpoints.close()
        return found is not None and found[1] == place and jax.tree.all(jax.tree.map(_same, found[0], state))

    seen = outcomes(tmp_path, COUNT, is_restored)
    print(f"checkpoint: {seen}")
    assert len(seen.noticed) > 4 * len(seen.harmless)


def _same(one: jax.Array, other: jax.Array) -> bool:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.array_equal(one, other)
