"""A run that is asked to stop: by SIGTERM, as schedulers announce that they take the machine away, or by Ctrl-C."""

import signal
from pathlib import Path
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from rag_jax.errors import warn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PreemptionHandler:
    """As a context: a signal that asks to stop is heard at the end of a step. A second one is obeyed at once.

    Several processes agree on the step: JAX's coordinator tells all of them of the first SIGTERM.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before = {}

    def __enter__(self) -> "PreemptionHandler":
        if jax.process_count() == 1:  # otherwise JAX listens to SIGTERM itself
            self._before = {each: signal.signal(each, self._hear) for each in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def after(self, step: int) -> bool:
        """Whether to stop behind this step; on several processes the same for all of them."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    def stopped(self, step: int, workdir: Path) -> SystemExit:
        """The end of a run that has saved where it was; the exit code is a shell's for the signal."""
        name = signal.Signals(self.signal or signal.SIGTERM).name
        warn(f"{name}: stopped behind step {step}, which is saved in {workdir}; run the same command to go on")
        return SystemExit(128 + (self.signal or signal.SIGTERM))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.signal = number
        for each, handler in self._before.items():
            signal.signal(each, handler)
