"""Training states on disk, through orbax: saved whole or not at all, and the newest one found again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from rag_jax.core.training import TrainState
from rag_jax.errors import InputError


class Checkpoints:
    """The `checkpoints/` of a workdir; the last two are kept."""

    def __init__(self, workdir: Path):
        self.folder = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: TrainState) -> None:
        """Write a state under its step's number; returns before the disk is done."""
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(_storable(state)))

    def restore(self, first: Callable[[], TrainState]) -> TrainState | None:
        """The newest state, shaped as `first()` would be (it is traced, not run); None where there is none.

        Raises `InputError` for a checkpoint that is damaged or of other shapes.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.eval_shape(lambda: _storable(first()))
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
        try:
            stored: Any = self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged folder
            folder, reason = self.folder / str(step), str(error).strip().partition("\n")[0]
            remedy = "delete that folder to go on from the checkpoint before it"
            raise InputError(f"{folder}: cannot be restored ({reason[:200]}); {remedy}") from error
        return stored._replace(key=jax.random.wrap_key_data(stored.key))

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()


def _storable(state: TrainState) -> PyTree:
    return state._replace(key=jax.random.key_data(state.key))
