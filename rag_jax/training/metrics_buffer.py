"""The metrics of the steps since the last line of `metrics.jsonl`, on their way from the device.

A step's are fetched once the next one is under way, so that the device never waits for the host. What is not written
yet is saved with a checkpoint: a run that goes on in the middle of a window writes the same line.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from rag_jax.core.training import Metrics
from rag_jax.training.input_stream import HostBatch


class LastStep(NamedTuple):
    """The last step whose metrics have arrived."""

    step: int
    host_batch: HostBatch
    skipped_in_a_row: int


class MetricsBuffer:
    """Metrics by step, oldest first."""

    def __init__(self, held: list[dict[str, float | None]] | None = None):
        self._held = list(held or [])
        self._coming: tuple[int, HostBatch, Metrics] | None = None
        self.last: LastStep | None = None

    def add(self, step: int, host_batch: HostBatch, metrics: Metrics) -> None:
        """Of the step that was started last; those of the step before are fetched."""
        self.fetch()
        self._coming = step, host_batch, metrics

    def fetch(self) -> None:
        """Wait for the last step."""
        if self._coming is not None:
            (step, host_batch, metrics), self._coming = self._coming, None
            told = _plain(jax.device_get(metrics))
            self._held.append(told)
            self.last = LastStep(step, host_batch, int(told["skipped_in_a_row"] or 0))

    def skips(self) -> bool:
        """Whether the last step changed nothing, its loss, gradient or update not being finite."""
        self.fetch()
        return self.last is not None and self.last.skipped_in_a_row > 0

    def state(self) -> list[dict[str, float | None]]:
        """All of it, as JSON."""
        self.fetch()
        return list(self._held)

    def close(self) -> dict[str, float]:
        """The means over the steps that have a figure, and the counts of the last; the next window begins."""
        self.fetch()
        held, self._held = self._held, []
        means: dict[str, float] = {}
        for name in held[0]:
            known = [value for each in held if (value := each[name]) is not None]
            if known:
                means[name] = known[-1] if name == "skipped" else float(np.mean(known))
        del means["skipped_in_a_row"]
        return means


def _plain(metrics: Metrics) -> dict[str, float | None]:
    """By name, as JSON has it: what is not finite is None."""
    told: dict[str, Any] = metrics._asdict()
    told |= told.pop("collapse")._asdict()
    return {name: float(value) if np.isfinite(value) else None for name, value in told.items()}
