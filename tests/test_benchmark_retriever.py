"""`rag-jax benchmark retriever`: both sides are one model, GradCache is the whole batch, bad options are one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import retriever, retriever_memory
from benchmarks.retriever_cases import Options, fixed, layout, load, real, written
from rag_jax.config.config import Config
from rag_jax.contrastive.layout import Layout, Size
from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import InputError

SMALL = ("--batch-size", "4", "--max-question", "8", "--max-passage", "16", "--scan")
SIXTEEN: dict[str, Any] = {"max_question": 16, "max_passage": 16}  # tokens


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """The processes compile as quickly as the tests."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.mark.slow
def test_all_sides_have_the_same_losses(towns: Config, tmp_path: Path, capsys) -> None:
    pytest.importorskip("torch", reason="the opponent")
    path = tmp_path / "results.json"
    tower = ("--tower", towns.retriever.tower)
    retriever.main([*tower, *SMALL, "--parts", "step", "--steps", "2", "--json", str(path)])
    step = json.loads(path.read_text())["step"]
    sides = step["sides"]
    assert list(sides) == [retriever.OURS, *retriever.LAYOUTS]
    for side in sides.values():
        np.testing.assert_allclose(side["losses"], sides[retriever.OURS]["losses"], rtol=1e-5)
        assert len(side["seconds"]) == 1  # the first is not timed
        assert side["peak"] > 1e8
    assert step["apart"] < 1e-5
    fastest = min(sides[name]["seconds"][0] for name in retriever.LAYOUTS)
    assert step["speedup"] == pytest.approx(fastest / sides[retriever.OURS]["seconds"][0])
    assert "losses at most apart" in capsys.readouterr().out


@pytest.mark.slow
def test_a_batch_in_chunks_has_the_loss_of_the_whole_and_plans_less_memory(towns: Config, tmp_path, capsys) -> None:
    path = tmp_path / "results.json"
    sizes = ("--large-batch", "64", "--chunk", "4", "--tower", towns.retriever.tower)
    retriever.main([*SMALL, *sizes, "--parts", "grad-cache", "--json", str(path)])
    cases = json.loads(path.read_text())["grad_cache"]
    assert [(each["batch_size"], each["chunk"]) for each in cases] == [(4, None), (64, 4), (64, None)]
    _, chunks, whole = cases
    assert chunks["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    assert chunks["planned"] < whole["planned"] / 4
    assert "64 in chunks of 4" in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_planned_and_not_taken(towns: Config, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(retriever_memory, "available", lambda: 0)
    known = Options(tower=towns.retriever.tower, batch_size=2, max_question=4, max_passage=8, scan=True)
    config = known.config(2)
    told = retriever_memory.steps(written(config, load(config), 1, tmp_path / "inputs"))
    assert list(told) == ["planned"]
    table = retriever_memory.shown([{"batch_size": 2, "chunk": None, **told}])
    assert list(table.columns[1].cells) == ["does not fit"]


def test_real_batches_hold_gold_passages_and_missing_negatives_are_empty(towns: Config, tmp_path: Path) -> None:
    asked = [json.loads(line) for line in Path(str(towns.data.train)).read_text().splitlines()[:4]]
    other = asked[0]["positive_ids"][0]
    asked[1]["negative_ids"] = [other]
    path = tmp_path / "asked.jsonl"
    write_jsonl(path, asked)
    known = Options(tower=towns.retriever.tower, passages=towns.data.passages, questions=path, **SIXTEEN)
    config = known.config(4)
    loaded = load(config)
    (batch,) = real(config, loaded, 1)
    tokenizer = loaded.question.tokenizer
    questions = [tokenizer.decode(row.tolist()) for row in batch["questions"]]
    passages = [tokenizer.decode(row.tolist()) for row in batch["passages"]]
    for number, question in enumerate(questions):
        (town,) = next(each["positive_ids"] for each in asked if each["question"] == question)
        assert passages[number].split()[0] == town
    (place,) = (i for i, question in enumerate(questions) if question == asked[1]["question"])
    empty = len(tokenizer.encode("").ids)
    assert passages[4 + place].split()[0] == other
    assert batch["passage_lengths"][4:].tolist().count(empty) == 3


def test_fixed_lengths_need_no_padding(towns: Config) -> None:
    known = Options(tower=towns.retriever.tower, max_question=8, max_passage=16)
    config = known.config(4)
    batches = fixed(config, load(config), 2)
    assert layout(config, batches) == Layout(Size(8, 8), (Size(16, 16),) * 4, 8, 16, 1)
    assert batches[0]["passages"].shape == (8, 16)
    assert all(np.all(each["passage_lengths"] == 16) and np.all(each["questions"] > 0) for each in batches)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--steps", "1"], "steps is 1; give 2 or more, the first one is not timed"),
        (["--questions", "asked.jsonl"], "passages and questions: one is missing; give both, or none"),
        (["--negatives", "mined.jsonl"], "negatives are given without questions"),
        (["--batch-size", "0"], "batch_size is 0; give 1 or more"),
        (["--parts", "grad-cache", "--large-batch", "500"], "contrastive.length_groups of a multiple of 32"),
        (["--tower", "no_such_folder/tower"], "no_such_folder/tower"),
        (["--attention", "slow"], "rag-jax benchmark retriever --help lists all options"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: list[str], told: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        retriever.main(arguments)
    assert stopped.value.code == 2
    complained = capsys.readouterr().err
    assert told in complained
    assert complained.count("\n") <= 2


def test_fewer_questions_than_a_batch_are_refused(towns: Config) -> None:
    files = {"passages": towns.data.passages, "questions": towns.data.train}
    config = Options(tower=towns.retriever.tower, hard_negatives=0, **files, **SIXTEEN).config(4_096)
    with pytest.raises(InputError, match="questions, less than a batch of 4,096; make it smaller"):
        real(config, load(config), 1)
