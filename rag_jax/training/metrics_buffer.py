"""The metrics of the steps since the last line of `metrics.jsonl`.

Metrics are fetched after the next step has been dispatched, so that the device never waits for the host. A checkpoint
includes the buffer: a run that resumes within a window writes the same line.
"""

from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Int


class StreamedBatch(Protocol):
    """A batch of a stream."""

    @property
    def examples(self) -> Int[np.ndarray, " B"]: ...


class LastStep(NamedTuple):
    """The last step whose metrics have been fetched."""

    step: int
    host_batch: StreamedBatch
    skipped_in_a_row: int


class MetricsBuffer:
    """Metrics by step, oldest first."""

    def __init__(self, held: list[dict[str, float | None]] | None = None):
        self._values = list(held or [])
        self._pending: tuple[int, StreamedBatch, Any] | None = None
        self.last: LastStep | None = None

    def add(self, step: int, host_batch: StreamedBatch, metrics: Any) -> None:
        """Add the metrics of the step just dispatched, a `NamedTuple`, and fetch those of the step before."""
        self.fetch()
        self._pending = step, host_batch, metrics

    def fetch(self) -> None:
        """Wait for the last step and store its metrics."""
        if self._pending is not None:
            (step, host_batch, metrics), self._pending = self._pending, None
            values = _plain(jax.device_get(metrics))
            self._values.append(values)
            self.last = LastStep(step, host_batch, int(values["skipped_in_a_row"] or 0))

    def skips(self) -> bool:
        """Whether the last step was skipped: its loss, gradient or update was not finite."""
        self.fetch()
        return self.last is not None and self.last.skipped_in_a_row > 0

    def state(self) -> list[dict[str, float | None]]:
        """All metrics, JSON-serialisable."""
        self.fetch()
        return list(self._values)

    def close(self) -> dict[str, float]:
        """The mean of each metric over the steps that have it, and the last `skipped` count; starts the next window."""
        self.fetch()
        held, self._values = self._values, []
        means: dict[str, float] = {}
        for name in held[0]:
            known = [value for each in held if (value := each[name]) is not None]
            if known:
                means[name] = known[-1] if name == "skipped" else float(np.mean(known))
        del means["skipped_in_a_row"]
        return means


def _plain(metrics: Any) -> dict[str, float | None]:
    """Metrics by name, those of a group beside the others; non-finite values become None, as JSON has none."""
    values: dict[str, Any] = {name: each for name, each in metrics._asdict().items() if each is not None}
    for name, group in [each for each in values.items() if isinstance(each[1], tuple)]:
        del values[name]
        values |= group._asdict()
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}
