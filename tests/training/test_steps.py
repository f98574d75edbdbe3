"""The loop over steps that is asked to stop: when it does, and what it leaves, with a step that does nothing."""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
import pytest

from rag_jax.config.config import Config
from rag_jax.training.metric_logger import seconds_trained
from rag_jax.training.metrics_buffer import MetricsBuffer
from rag_jax.training.step_timer import StepTimer
from rag_jax.training.steps import Task, run_steps


class State(NamedTuple):
    """The number of steps is all that changes."""

    step: int


class Metrics(NamedTuple):
    """What a step says of itself."""

    loss: float = 1.0
    skipped: int = 0
    skipped_in_a_row: int = 0


class Batch(NamedTuple):
    """No questions."""

    examples: np.ndarray = np.zeros(0, np.int32)


class Saved:
    """The steps of which a checkpoint was saved."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.is_closed = False

    def save(self, state: State, host_state: Any) -> None:
        del host_state
        self.steps.append(state.step)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def config(towns: Config) -> Config:
    return dataclasses.replace(towns, steps=5, log_every=2, save_every=100)


def run(config: Config, workdir: Path, monkeypatch: pytest.MonkeyPatch, begin: int = 0, stop_in: int = 0) -> Saved:
    """Run steps of a second each, with SIGTERM in one of them."""
    now, saved = [100.0], Saved()

    def step(state: State) -> tuple[State, Metrics]:
        now[0] += 1.0
        if state.step + 1 == stop_in:
            os.kill(os.getpid(), signal.SIGTERM)
        return State(state.step + 1), Metrics()

    def stream(current: Any) -> Iterator[tuple[tuple[()], Batch]]:
        del current
        while True:
            yield (), Batch()

    task = Task(
        step, stream, [], optax.constant_schedule(0.1), lambda *_: (1.0, 1.0), lambda state: {}, lambda batch: None
    )
    with monkeypatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: now[0])
        run_steps(config, workdir, saved, task, State(begin), MetricsBuffer(), StepTimer())
    return saved


def timings(workdir: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (workdir / "timings.jsonl").read_text().splitlines()]
    return [(line["step"], line["seconds"]) for line in lines]


def test_a_run_that_is_not_stopped_counts_every_second_once(config, tmp_path: Path, monkeypatch) -> None:
    saved = run(config, tmp_path, monkeypatch)
    assert (saved.steps, saved.is_closed) == ([5], True)
    assert timings(tmp_path) == [(2, 2.0), (4, 2.0), (5, 1.0)]


@pytest.mark.parametrize("stop_in", [1, 2, 3, 5])
def test_a_signal_in_any_step_stops_the_run_behind_its_checkpoint_and_no_second_is_lost(
    config, tmp_path: Path, monkeypatch, capsys, stop_in: int
) -> None:
    """In the last step too: the evaluation that follows may take longer than a scheduler waits."""
    steps, saves = [], Saved.save
    monkeypatch.setattr(Saved, "save", lambda own, state, host: (steps.append(state.step), saves(own, state, host)))
    with pytest.raises(SystemExit) as stopped:
        run(config, tmp_path, monkeypatch, stop_in=stop_in)
    assert (stopped.value.code, steps) == (143, [stop_in])
    told = f"warning: SIGTERM: stopped after step {stop_in}, saved in {tmp_path}; rerun the same command to resume"
    assert told in capsys.readouterr().err
    assert seconds_trained(tmp_path) == stop_in, "with those since the last line"
    run(config, tmp_path, monkeypatch, begin=stop_in)
    assert seconds_trained(tmp_path) == config.steps
    assert [step for step, _ in timings(tmp_path)] == sorted({2, 4, 5, stop_in})
