"""Training states on disk, through orbax: saved whole or not at all, and the newest one that is whole found again.

Each checkpoint has three items: the parameters, which are all that an answer needs; the rest of the training state; and
what the host must know to go on, as JSON.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from rag_jax.core.training import TrainState
from rag_jax.errors import InputError, warn
from rag_jax.types import RagParams

HostState = dict[str, Any]
"""Where the host stood, as JSON: the input's position, metrics not yet written, and what the run depends on."""


class Checkpoints:
    """The `checkpoints/` of a workdir; the last two are kept. Of several processes each writes what it holds."""

    def __init__(self, workdir: Path):
        self.folder = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: TrainState, place: HostState) -> None:
        """Write a state under its step's number; returns before the disk is done.

        Raises `InputError` where this one or the one before it could not be written: those before are whole.
        """
        if int(state.step) not in self._manager.all_steps():
            rest = ocp.args.StandardSave(_rest(state))
            params = ocp.args.StandardSave(state.params)
            self._save(int(state.step), params=params, rest=rest, place=ocp.args.JsonSave(place))

    def save_params(self, params: RagParams) -> None:
        """Write parameters that no training here led to, as step 0."""
        self._save(0, params=ocp.args.StandardSave(params))

    def restore(
        self, shapes: TrainState, shardings: TrainState | None = None, tell: Callable[[str], None] = warn
    ) -> tuple[TrainState, HostState] | None:
        """The newest state that can be read, as spread as `shardings` say; None where there are parameters at most.

        Newer ones that are damaged are put aside, and `tell` hears of them. Raises `InputError` where none is whole.
        """
        steps = [step for step in self._manager.all_steps() if (self.folder / str(step) / "rest").exists()]
        return self._newest(steps, lambda step: self._restore_state(step, shapes, shardings), tell, aside=True)

    def restore_params(self, like: RagParams, tell: Callable[[str], None] = warn) -> RagParams | None:
        """The newest parameters that can be read, shaped as `like`; None where there are none. Raises as `restore`."""
        return self._newest(self._manager.all_steps(), lambda step: self._restore_params(step, like), tell)

    def params_at(self, step: int, like: RagParams) -> RagParams | None:
        """The parameters after just so many steps, shaped as `like`; None where they are not there or not whole."""
        try:
            return self._restore_params(step, like)
        except Exception:  # of as many kinds as in `_newest`, where a training that goes on tells of it
            return None

    def wait(self) -> None:
        """Until what is being written is on the disk. Raises as `save`."""
        with self._written():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for what is being written. Raises as `save`."""
        self.wait()
        self._manager.close()

    def _save(self, step: int, **items: Any) -> None:
        with self._written():
            self._manager.save(step, args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk reaches us through tensorstore and orbax, as many kinds
            remedy = "make room, then run the same command again: it goes on from the last checkpoint that is whole"
            raise InputError(f"{self.folder}: a checkpoint cannot be written ({_reason(error)}); {remedy}") from error

    def _newest(
        self, steps: Sequence[int], restore: Callable[[int], Any], tell: Callable[[str], None], aside: bool = False
    ) -> Any:
        """What `restore` makes of the newest step it can; damaged ones after it are put `aside` for training."""
        failed: list[tuple[Path, str]] = []
        for step in sorted(steps, reverse=True):
            try:
                found = restore(step)
            except Exception as error:  # orbax and tensorstore raise many kinds for a damaged folder
                failed.append((self.folder / str(step), _reason(error)))
                continue
            for folder, reason in failed:
                tell(f"{folder}: cannot be restored ({reason}); going on from step {step}")
            if failed and aside:
                self._put_aside([folder for folder, _ in failed])
            return found
        if failed:
            folder, reason = failed[0]
            raise InputError(f"{folder}: cannot be restored ({reason}); give the config it was made with, or delete it")
        return None

    def _put_aside(self, folders: list[Path]) -> None:
        """Give damaged checkpoints names that are no steps: their numbers are free, and nothing is lost."""
        if jax.process_index() == 0:
            for folder in folders:
                folder.rename(folder.with_name(f"{folder.name}.damaged-{time.time_ns()}"))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are put aside")
        self._manager.reload()

    def _restore_state(
        self, step: int, shapes: TrainState, shardings: TrainState | None
    ) -> tuple[TrainState, HostState]:
        params = _wanted(shapes.params, None if shardings is None else shardings.params)
        rest = _wanted(jax.eval_shape(_rest, shapes), None if shardings is None else _without_params(shardings))
        stored = self._restore(step, params=params, rest=rest, place=ocp.args.JsonRestore())
        return _state(_finite(stored["params"]), stored["rest"]), stored["place"]

    def _restore_params(self, step: int, like: RagParams) -> RagParams:
        return _finite(self._restore(step, params=_wanted(jax.eval_shape(lambda: like), None))["params"])

    def _restore(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**items))


def saved_host_state(workdir: Path) -> HostState | None:
    """Where the run in a workdir stood at its newest checkpoint that says so; None where none does.

    Each process reads it for itself: orbax's manager would make the folder, and wait for the other processes.
    """
    saved = (each for each in (workdir / "checkpoints").glob("*") if each.name.isdigit())
    for folder in sorted(saved, key=lambda each: int(each.name), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            return json.loads((folder / "place" / "metadata").read_text(encoding="utf-8"))
    return None


def _wanted(shapes: PyTree, shardings: PyTree | None) -> ocp.args.StandardRestore:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    places = jax.tree.map(lambda _: here, shapes) if shardings is None else shardings

    def leaf(like: Any, place: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=place)

    return ocp.args.StandardRestore(jax.tree.map(leaf, shapes, places))


def _rest(state: TrainState) -> dict[str, PyTree]:
    """All of a state but its parameters, with its key as the numbers that can be stored."""
    return {**_without_params(state), "key": jax.random.key_data(state.key)}


def _without_params(state: TrainState) -> dict[str, PyTree]:
    return {name: each for name, each in state._asdict().items() if name != "params"}


def _state(params: RagParams, rest: dict[str, PyTree]) -> TrainState:
    return TrainState(**{**rest, "params": params, "key": jax.random.wrap_key_data(rest["key"])})


def _finite(params: RagParams) -> RagParams:
    """Parameters that are numbers; others are as good as damaged."""
    if not jax.jit(lambda tree: jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)])))(params):
        raise ValueError("its parameters hold NaN or infinity")
    return params


def _reason(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]
