"""Training states on disk, through orbax: saved whole or not at all, and the newest one found again.

Each checkpoint has two items: the parameters, which are all that an answer needs, and the rest of the training state.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from rag_jax.core.training import TrainState
from rag_jax.errors import InputError
from rag_jax.types import RagParams


class Checkpoints:
    """The `checkpoints/` of a workdir; the last two are kept."""

    def __init__(self, workdir: Path):
        self.folder = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: TrainState) -> None:
        """Write a state under its step's number; returns before the disk is done."""
        if int(state.step) not in self._manager.all_steps():
            rest = ocp.args.StandardSave(_rest(state))
            self._save(int(state.step), params=ocp.args.StandardSave(state.params), rest=rest)

    def save_params(self, params: RagParams) -> None:
        """Write parameters that no training here led to, as step 0."""
        self._save(0, params=ocp.args.StandardSave(params))

    def restore(self, first: Callable[[], TrainState]) -> TrainState | None:
        """The newest state, shaped as `first()` would be (it is traced, not run); None where there is none.

        Raises `InputError` for a checkpoint that is damaged or of other shapes.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.eval_shape(first)
        if not (self.folder / str(step) / "rest").exists():  # parameters that came from elsewhere: training begins
            params = self._restore(step, params=shapes.params)["params"]
            return first()._replace(params=params)
        stored = self._restore(step, params=shapes.params, rest=jax.eval_shape(lambda: _rest(first())))
        rest = stored["rest"]
        return TrainState(rest["step"], stored["params"], rest["opt_state"], jax.random.wrap_key_data(rest["key"]))

    def restore_params(self, like: RagParams) -> RagParams | None:
        """The parameters of the newest checkpoint, shaped as `like`; None where there is none. Raises as `restore`."""
        step = self._manager.latest_step()
        return None if step is None else self._restore(step, params=jax.eval_shape(lambda: like))["params"]

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _save(self, step: int, **items: Any) -> None:
        self._manager.save(step, args=ocp.args.Composite(**items))

    def _restore(self, step: int, **shapes: PyTree) -> Any:
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def wanted(like: PyTree) -> Any:
            leaves = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like)
            return ocp.args.StandardRestore(leaves)

        try:
            items = {name: wanted(like) for name, like in shapes.items()}
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore raise many kinds for a damaged folder
            folder, reason = self.folder / str(step), str(error).strip().partition("\n")[0]
            remedy = "delete that folder to go on from the checkpoint before it"
            raise InputError(f"{folder}: cannot be restored ({reason[:200]}); {remedy}") from error


def _rest(state: TrainState) -> dict[str, PyTree]:
    """All of a state but its parameters, with its key as the numbers that can be stored."""
    return {"step": state.step, "opt_state": state.opt_state, "key": jax.random.key_data(state.key)}
