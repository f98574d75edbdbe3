"""The metrics of several steps as one line: means, the last count, and what is saved in between."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from rag_jax.core.collapse import Collapse
from rag_jax.core.training import Metrics
from rag_jax.training.input_stream import HostBatch
from rag_jax.training.metrics_buffer import MetricsBuffer


def metrics(loss: float, recall: float = np.nan, skipped: int = 0, in_a_row: int = 0) -> Any:
    one = np.float32(1)
    collapse = Collapse(*(one for _ in Collapse._fields))
    return Metrics(np.float32(loss), one, np.float32(recall), one, collapse, np.int32(skipped), np.int32(in_a_row))


def drawn() -> Iterator[HostBatch]:
    while True:
        yield HostBatch(np.arange(2), None, {})  # pyright: ignore[reportArgumentType]


def filled(window: MetricsBuffer, first: int, *told: Any) -> MetricsBuffer:
    for step, each, batch in zip(range(first, first + len(told)), told, drawn(), strict=False):
        window.add(step, batch, each)
    return window


def test_a_line_holds_means_over_what_is_known_and_the_last_count() -> None:
    told = filled(
        MetricsBuffer(), 1, metrics(1.0), metrics(np.nan, 0.5, skipped=1, in_a_row=1), metrics(3.0, 1.0, 1)
    ).close()
    assert told["loss"] == pytest.approx(2.0)
    assert told["recall"] == pytest.approx(0.75)
    assert told["skipped"] == 1
    assert told["distinct"] == 1
    assert "skipped_in_a_row" not in told


def test_a_figure_that_nothing_has_is_left_out() -> None:
    assert "recall" not in filled(MetricsBuffer(), 1, metrics(1.0)).close()


def test_the_next_line_begins_anew() -> None:
    window = filled(MetricsBuffer(), 1, metrics(1.0))
    window.close()
    assert filled(window, 2, metrics(5.0)).close()["loss"] == 5.0


def test_what_is_saved_makes_the_same_line() -> None:
    whole = filled(MetricsBuffer(), 1, metrics(1.0, 0.1), metrics(2.0), metrics(4.0, 0.2)).close()
    saved = filled(MetricsBuffer(), 1, metrics(1.0, 0.1), metrics(2.0)).state()
    assert filled(MetricsBuffer(saved), 3, metrics(4.0, 0.2)).close() == whole


def test_the_last_step_that_arrived_is_known() -> None:
    window = filled(MetricsBuffer(), 7, metrics(np.nan, skipped=4, in_a_row=2))
    assert window.last is None
    filled(window, 8, metrics(1.0, skipped=4))
    assert window.last is not None
    assert (window.last.step, window.last.skipped_in_a_row) == (7, 2)
    window.close()
    assert (window.last.step, window.last.skipped_in_a_row) == (8, 0)
