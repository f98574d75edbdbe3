"""Runs whose question tower learns from the reader, as the config says."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.config.config import Config, Distillation
from rag_jax.training.run import fit

pytestmark = pytest.mark.extended  # one more training each; every day `trained` stands for them

STEPS = 20


def distilled(towns: Config, model: str, taught: Distillation, **changes) -> Config:
    retriever = replace(towns.retriever, distillation=taught, **changes)
    return replace(towns, model=model, retriever=retriever, steps=STEPS, log_every=5, save_every=STEPS)


@pytest.mark.parametrize(
    ("model", "taught"),
    [("token", Distillation("pdist", teacher_temperature=0.1)), ("fid", Distillation("adist", weight=2.0))],
    ids=["pdist", "adist"],
)
def test_a_run_lowers_its_loss_and_moves_the_question_tower(
    towns: Config, tmp_path: Path, model: str, taught: Distillation
) -> None:
    config, workdir = distilled(towns, model, taught), tmp_path / "run"
    rag = fit(config, workdir)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(line["skipped"] == 0 for line in lines)
    before, after = rag.components.initial_params.question_tower, rag.params.question_tower
    assert any(map(np.any, jax.tree.leaves(jax.tree.map(lambda one, other: one != other, before, after))))
