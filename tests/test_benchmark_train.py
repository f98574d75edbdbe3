"""`rag-jax benchmark train`: both sides are one model, and what it cannot use it names."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import train
from benchmarks.train_cases import Shapes, fixed, real
from rag_jax.data.jsonl import write_jsonl


@pytest.mark.extended
def test_both_sides_have_the_same_losses_and_all_figures_are_told(tmp_path: Path, capsys) -> None:
    pytest.importorskip("torch", reason="the opponent")
    path = tmp_path / "told.json"
    train.main(["--size", "tiny", "--models", "token", "--steps", "2", "--json", str(path)])
    (told,) = json.loads(path.read_text())["results"]
    assert told["apart"] < 1e-5
    np.testing.assert_allclose(told["ours"]["losses"], told["theirs"]["losses"], rtol=1e-5)
    assert len(told["ours"]["seconds"]) == 1  # the first is not timed
    assert told["speedup"] == pytest.approx(told["theirs"]["seconds"][0] / told["ours"]["seconds"][0])
    assert all(told[side]["peak"] > 1e8 for side in ("ours", "theirs"))
    assert "losses at most apart" in capsys.readouterr().out


def test_fixed_shapes_are_full_and_real_ones_are_padded_to_what_the_reference_pads_to(towns, tmp_path: Path) -> None:
    (batch,) = fixed(Shapes(), 8, 1)
    assert batch["contexts"].shape == (20, 128)
    assert np.all(batch["context_lengths"] == 128)
    data, tower = towns.data, towns.retriever.tower
    (batch,) = real(data.passages, data.train, tower, Shapes(questions=2, docs=3, passage=16, prompt=8), 8, 1)
    assert batch["contexts"].shape == (6, 300)
    for row, length in enumerate(batch["context_lengths"]):
        passage, prompt = batch["passage_lengths"][row], batch["prompt_lengths"][row // 3]
        assert length == passage + prompt
        joined = [*batch["passages"][row, :passage], *batch["prompt"][row // 3, :prompt]]
        assert batch["contexts"][row, :length].tolist() == joined


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", "1"], "steps is 1; give 2 or more, the first one is not timed"),
        (["--questions", "asked.jsonl"], "passages and questions: one is missing; give both, or none"),
        (["--passages", "none.tsv", "--questions", "none.jsonl"], "no such file"),
        (["--size", "huge"], "rag-jax benchmark train --help lists all options"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: list[str], told: str, capsys, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "asked.jsonl", [{"question": "what", "answers": ["this"]}])
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2
    complained = capsys.readouterr().err
    assert told in complained
    assert complained.count("\n") <= 2
