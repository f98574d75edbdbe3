"""Stop a run cleanly on SIGTERM, which schedulers send before preemption, or on Ctrl-C."""

import signal
from pathlib import Path
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from rag_jax.errors import warn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PreemptionHandler:
    """A context manager that defers the first signal to the end of a step. The second one acts at once.

    Several processes stop at the same step: JAX's coordinator broadcasts the first SIGTERM.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous_handlers = {}

    def __enter__(self) -> "PreemptionHandler":
        if jax.process_count() == 1:  # otherwise JAX handles SIGTERM itself
            self._previous_handlers = {each: signal.signal(each, self._receive) for each in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each, handler in self._previous_handlers.items():
            signal.signal(each, handler)

    def after(self, step: int) -> bool:
        """Whether to stop after this step; the same on all processes."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def stopped(self, step: int, workdir: Path) -> SystemExit:
        """The exit of a run that has saved its state, with the shell's exit code for the signal."""
        name = signal.Signals(self.signal or signal.SIGTERM).name
        warn(f"{name}: stopped after step {step}, saved in {workdir}; rerun the same command to resume")
        return SystemExit(128 + (self.signal or signal.SIGTERM))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        for each, handler in self._previous_handlers.items():
            signal.signal(each, handler)
