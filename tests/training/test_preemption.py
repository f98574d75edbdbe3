"""A run that is asked to stop saves what it has, says so, and goes on as if it had not been asked."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.config.config import Config
from rag_jax.data.stream import example_stream
from rag_jax.errors import InputError
from rag_jax.rag import RAG
from rag_jax.training import loop, run
from rag_jax.training.preemption import PreemptionHandler
from rag_jax.training.run import fit


def test_a_signal_is_heard_behind_the_step() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionHandler() as stopping:
        assert not stopping.after(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.after(2)
        assert signal.getsignal(signal.SIGTERM) is before  # a second one is not held back
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.extended
def test_a_stopped_run_goes_on(towns: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    config, stopped = dataclasses.replace(towns, steps=8, log_every=3), tmp_path / "stopped"
    whole = fit(config, tmp_path / "whole")
    real, asked = loop.step_inputs, iter([(signal.SIGTERM, 4), (signal.SIGINT, 3)])

    def asking(*arguments, **options):
        which, when = next(asked)
        for number, batch in enumerate(real(*arguments, **options), start=1):
            if number == when:
                os.kill(os.getpid(), which)
            yield batch

    monkeypatch.setattr(loop, "step_inputs", asking)
    for code, step, name in ((143, 4, "SIGTERM"), (130, 7, "SIGINT")):
        with pytest.raises(SystemExit) as caught:
            fit(config, stopped)
        assert caught.value.code == code
        told = capsys.readouterr().err
        assert f"{name}: stopped after step {step}, saved in {stopped}; rerun the same command to resume" in told
        assert (stopped / "checkpoints" / str(step)).is_dir()
    monkeypatch.setattr(loop, "step_inputs", real)
    jax.tree.map(np.testing.assert_array_equal, fit(config, stopped).params, whole.params)
    assert (stopped / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("learning_rate", "last", "kept"),
    [
        pytest.param(1e38, 3, [], marks=pytest.mark.extended),  # no update is small enough to be made
        (1e15, 4, ["1"]),  # the first takes the parameters so far that no later step is finite
    ],
)
def test_a_run_that_gets_nowhere_names_the_questions_that_it_stopped_at(
    towns: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learning_rate: float, last: int, kept: list[str]
) -> None:
    wild = dataclasses.replace(towns.optimizer, kind="adamw", learning_rate=learning_rate, warmup=0, clip=1e9)
    config = dataclasses.replace(towns, optimizer=wild, max_bad_steps=3, save_every=1)
    seen = []
    real = run.train
    monkeypatch.setattr(run, "train", lambda *given: (seen.append(given[2]), real(*given))[1])
    with pytest.raises(InputError, match=f"step {last}: no finite loss, gradient or update for 3 steps") as caught:
        fit(config, tmp_path)
    assert "\n" not in str(caught.value)
    told = json.loads((tmp_path / "not_finite.json").read_text())
    numbers = example_stream(seen[0], towns.batch_size, towns.seed)
    at_last = [next(numbers) for _ in range(last)][-1]
    assert told == {"step": last, "questions": [seen[0].questions.ids[i] for i in at_last]}
    assert all(repr(each) in str(caught.value) for each in told["questions"])
    assert [each.name for each in (tmp_path / "checkpoints").iterdir() if each.name.isdigit()] == kept
    if kept:
        params = RAG.from_workdir(tmp_path).params
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
