"""Checkpoints of the training state, written by orbax. Restoring skips damaged ones.

Each checkpoint has three items: the parameters, which suffice for inference; the rest of the training state; and the
host state, as JSON. The checksums of their files are written before orbax renames the checkpoint into place, so that
no complete checkpoint is without them, and are compared before anything is restored.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from rag_jax.core.refresh import RefreshedIndex, new_index
from rag_jax.core.training import TrainState
from rag_jax.data import checksums, strict_json
from rag_jax.data.json_object import JsonObject
from rag_jax.data.validation import validate_value
from rag_jax.errors import InputError, warn
from rag_jax.index.placement import CONVERT, Precision
from rag_jax.parallel import devices
from rag_jax.pipeline import quiet_writers
from rag_jax.types import RagParams

Tree = TypeVar("Tree")  # of parameters
HostState = dict[str, Any]
"""The host's state as JSON: the position in the input, metrics not yet written, and what the run depends on."""
ORBAX_RECORD = "_CHECKPOINT_METADATA"  # when a checkpoint was written, which orbax completes after the checksums


class Checkpoints:
    """The `checkpoints/` folder of a workdir, with the last two. Each process writes its own shards."""

    def __init__(self, workdir: Path):
        quiet_writers.install()
        self.folder = (workdir / "checkpoints").absolute()
        self._saving = 0  # the step that is being written
        finalization = ocp.AsyncOptions(post_finalization_callback=self._write_checksums)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, async_options=finalization)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: TrainState, host_state: HostState) -> None:
        """Write a state under the number of its step, asynchronously.

        Raises `InputError` where this checkpoint or the one before cannot be written. Earlier ones are complete.
        """
        if int(state.step) not in self._manager.all_steps():
            rest = ocp.args.StandardSave(_stored(_rest(state)))
            params = ocp.args.StandardSave(_stored(state.params))
            self._save(int(state.step), params=params, rest=rest, place=ocp.args.JsonSave(host_state))

    def save_params(self, params: PyTree) -> None:
        """Write parameters from elsewhere as step 0."""
        self._save(0, params=ocp.args.StandardSave(_stored(params)))

    def restore(
        self, shapes: TrainState, shardings: TrainState | None = None, report: Callable[[str], None] = warn
    ) -> tuple[TrainState, HostState] | None:
        """The newest complete state, with the given shardings; None without one.

        Newer damaged checkpoints are renamed and reported; one without checksums, which older versions wrote, is
        restored and reported. Raises `InputError` where all are damaged.
        """
        steps = [step for step in self._manager.all_steps() if (self.folder / str(step) / "rest").exists()]
        return self._newest(
            steps, lambda step: self._restore_state(step, shapes, shardings), report, rename_damaged=True
        )

    def restore_params(self, like: Tree, report: Callable[[str], None] = warn) -> Tree | None:
        """The newest complete parameters, shaped as `like`; None without any. Raises as `restore`."""
        found = self.newest_params(like, report)
        return None if found is None else found[1]

    def newest_params(self, like: Tree, report: Callable[[str], None] = warn) -> tuple[int, Tree] | None:
        """The same, with their step."""
        return self._newest(self._manager.all_steps(), lambda step: (step, self._restore_params(step, like)), report)

    def params_at(self, step: int, like: Tree) -> Tree | None:
        """The parameters of a step, shaped as `like`; None where they are missing or damaged."""
        try:
            return self._restore_params(step, like)
        except Exception:  # of many types, as in `_newest`; resuming reports the damage
            return None

    def wait(self) -> None:
        """Wait until all checkpoints are written. Raises as `save`."""
        with self._written():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait until all checkpoints are written, and close. Raises as `save`."""
        self.wait()
        self._manager.close()

    def _save(self, step: int, **items: Any) -> None:
        with self._written():
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(step, args=ocp.args.Composite(**items))

    def _write_checksums(self) -> None:
        """Called by orbax in the first process, when the shards of all are written, before the renaming."""
        unfinished = self.folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        folder = max(unfinished, key=lambda each: each.stat().st_mtime, default=self.folder / str(self._saving))
        checksums.write(folder, lambda name: name == ORBAX_RECORD)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore and orbax raise many types for a full disk
            remedy = "free some space, then rerun the same command to resume from the last complete checkpoint"
            raise InputError(f"{self.folder}: a checkpoint cannot be written ({_reason(error)}); {remedy}") from error

    def _newest(
        self,
        steps: Sequence[int],
        restore: Callable[[int], Any],
        report: Callable[[str], None],
        rename_damaged: bool = False,
    ) -> Any:
        """`restore` of the newest step that is not damaged; later ones are renamed if `rename_damaged`."""
        failed: list[tuple[Path, str]] = []
        for step in sorted(steps, reverse=True):
            try:
                restored = restore(step)
            except Exception as error:  # orbax and tensorstore raise many types for a damaged folder
                failed.append((self.folder / str(step), _reason(error)))
                continue
            for folder, reason in failed:
                report(f"{folder}: cannot be restored ({reason}); resuming from step {step}")
            if not (self.folder / str(step) / checksums.FILE).exists():
                report(f"{self.folder / str(step)}: restored unchecked, an older version wrote it without checksums")
            if failed and rename_damaged:
                self._rename_damaged([folder for folder, _ in failed])
            return restored
        if failed:
            folder, reason = failed[0]
            raise InputError(f"{folder}: cannot be restored ({reason}); give the config it was made with, or delete it")
        return None

    def _rename_damaged(self, folders: list[Path]) -> None:
        """Rename damaged checkpoints, which frees their step numbers and deletes nothing."""
        if jax.process_index() == 0:
            for folder in folders:
                folder.rename(folder.with_name(f"{folder.name}.damaged-{time.time_ns()}"))
        devices.wait_for_all("damaged checkpoints renamed")
        self._manager.reload()

    def _restore_state(
        self, step: int, shapes: TrainState, shardings: TrainState | None
    ) -> tuple[TrainState, HostState]:
        like = jax.eval_shape(_rest, shapes)
        params = _restore_args(shapes.params, None if shardings is None else shardings.params)
        rest = _restore_args(like, None if shardings is None else _without_params(shardings))
        stored = self._restore(step, params=params, rest=rest, place=ocp.args.JsonRestore())
        params = _finite(_typed(shapes.params, stored["params"]))
        return _state(params, _typed(like, stored["rest"])), _host_state(stored["place"])

    def _restore_params(self, step: int, like: Tree) -> Tree:
        params = self._restore(step, params=_restore_args(jax.eval_shape(lambda: like), None))["params"]
        return _finite(_typed(like, params))

    def _restore(self, step: int, **items: Any) -> Any:
        _verify(self.folder / str(step), items)
        return self._manager.restore(step, args=ocp.args.Composite(**items))


def is_finished(workdir: Path, steps: int) -> bool:
    """Whether a run has the checkpoint of its last step."""
    return (workdir / "checkpoints" / str(steps)).is_dir()


def finished_params(workdir: Path, steps: int, like: Tree) -> Tree | None:
    """The trained parameters of a finished run, shaped as `like`; None if steps remain, or where they are damaged."""
    if not is_finished(workdir, steps):
        return None
    checkpoints = Checkpoints(workdir)
    found = checkpoints.params_at(steps, like)
    checkpoints.close()
    return found


def saved_host_state(workdir: Path) -> HostState | None:
    """The host state of the newest checkpoint that has one; None without any.

    Read without orbax's manager, which would create the folder and wait for the other processes.
    """
    saved = (each for each in (workdir / "checkpoints").glob("*") if each.name.isdigit())
    for folder in sorted(saved, key=lambda each: int(each.name), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            if _first_damaged(folder, ["place"]) is None:
                return _host_state(strict_json.loads((folder / "place" / "metadata").read_bytes()))
    return None


def refreshed_at(workdir: Path, step: int, precision: Precision) -> RefreshedIndex:
    """The refreshed index of a checkpoint, on the host, with the rows that padded it on the devices of then.

    Read without the rest of the state. Raises `InputError` where it is missing or damaged.
    """
    folder = (workdir / "checkpoints" / str(step)).absolute()
    vectors = jax.eval_shape(CONVERT[precision], jax.ShapeDtypeStruct((1, 1), jnp.float32))
    like = {"refreshed": jax.eval_shape(new_index, vectors)}  # its structure
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
    try:
        _verify(folder, ["rest"])
        with ocp.PyTreeCheckpointer() as reader:
            only = ocp.args.PyTreeRestore(like, restore_args=on_host, partial_restore=True)
            return reader.restore(folder / "rest", args=only)["refreshed"]
    except Exception as error:  # of many types, as in `Checkpoints`
        if not folder.exists():
            raise replaced(workdir, step) from error
        problem = f"its refreshed index cannot be restored ({_reason(error)})"
        raise InputError(f"{folder}: {problem}; resume the run, which goes back to one that can") from error


def replaced(workdir: Path, step: int) -> InputError:
    """The error of a checkpoint that a run which goes on has deleted since it was chosen."""
    return InputError(f"{workdir}: the checkpoint of step {step} has been replaced while it was read; ask again")


def _host_state(stored: Any) -> HostState:
    """The host state of a checkpoint. Raises `InputError`, a `ValueError`, for what no run writes."""
    found = JsonObject("place", validate_value(dict[str, Any], stored, "the host state"))
    found.read("input", dict[str, Any] | None)
    found.read("window", tuple[dict[str, float | None], ...])
    watchdog = found.read("watchdog", dict[str, Any], None)
    if watchdog is not None:
        watchdog = JsonObject("place: watchdog", watchdog)
        watchdog.read("best", dict[str, float])
        watchdog.read("warned", bool)
    found.read("made_of", dict[str, str], None)
    return dict(found)


def _verify(folder: Path, items: Collection[str]) -> None:
    """Raise `ValueError`, in all processes, where items of a checkpoint are not what was written.

    The processes share the files.
    """
    odd = _first_damaged(folder, items, jax.process_index(), jax.process_count())
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.asarray(odd is not None)).any():
        odd = odd or "a file that another process reads"
    if odd is not None:
        raise ValueError(f"{odd} is not what was written")


def _first_damaged(folder: Path, items: Collection[str], share: int = 0, of: int = 1) -> str | None:
    """The first file of these items that is not what was written, in one of several shares; None without checksums."""
    expected = checksums.read(folder)
    if expected is None:
        return None
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = sorted(name for name in {*expected, *found} if name.partition("/")[0] in items)
    return checksums.first_damaged(folder, expected, names[share::of])


def _restore_args(shapes: PyTree, shardings: PyTree | None) -> ocp.args.StandardRestore:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: here, shapes) if shardings is None else shardings

    def leaf(like: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=sharding)

    return ocp.args.StandardRestore(_stored(jax.tree.map(leaf, shapes, shardings)))


def _stored(tree: PyTree) -> Any:
    """A tree as checkpoints hold it: `RagParams` have no passage tower where it is not trained, as it always was.

    orbax stores named tuples and dicts alike, but None as an entry of its own.
    """

    def fields(node: Any) -> Any:
        if not _is_rag_params(node):
            return node
        return {name: each for name, each in node._asdict().items() if name != "passage_tower" or each is not None}

    return jax.tree.map(fields, tree, is_leaf=_is_rag_params)


def _typed(like: PyTree, stored: PyTree) -> Any:
    """The inverse of `_stored`."""

    def typed(node: Any, each: Any) -> Any:
        return RagParams(**each) if _is_rag_params(node) else each

    return jax.tree.map(typed, like, stored, is_leaf=_is_rag_params)


def _is_rag_params(node: Any) -> bool:
    return isinstance(node, RagParams)


def _rest(state: TrainState) -> dict[str, PyTree]:
    """The state without parameters, with the random key as an array."""
    return {**_without_params(state), "key": jax.random.key_data(state.key)}


def _without_params(state: TrainState) -> dict[str, PyTree]:
    """The other fields; the refreshed index only where there is one, as above."""
    absent = ("params",) if state.refreshed is not None else ("params", "refreshed")
    return {name: each for name, each in state._asdict().items() if name not in absent}


def _state(params: PyTree, rest: dict[str, PyTree]) -> TrainState:
    return TrainState(**{**rest, "params": params, "key": jax.random.wrap_key_data(rest["key"])})


def _finite(params: Tree) -> Tree:
    """The parameters. Raises `ValueError` for NaN or infinity."""
    if not jax.jit(lambda tree: jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)])))(params):
        raise ValueError("its parameters hold NaN or infinity")
    return params


def _reason(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]
