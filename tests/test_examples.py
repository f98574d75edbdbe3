"""The examples of docs/extending.md run, and show what they claim."""

import runpy
from pathlib import Path

import pytest

from rag_jax.config.config import Config
from suites import first

EXAMPLES = Path(__file__).parents[1] / "examples"


def main(name: str, *arguments: object):
    return runpy.run_module(f"examples.own_{name}")["main"](*arguments)


@pytest.mark.parametrize("name", first(1, ["objective", "optimizer", "tower", "generator", "null_document", "labels"]))
def test_what_is_composed_of_own_functions_learns(name: str) -> None:
    assert main(name) < 1.5, "from 5 nats a token"


@pytest.mark.extended
def test_the_own_decoder_chooses_better_than_chance() -> None:
    assert main("decoder") > 0.02


@pytest.mark.extended
def test_the_own_engine_finds_more_where_it_looks_further() -> None:
    assert main("search_engine")["recall@10"] > 0.5


def test_the_own_reader_reads_what_is_sound() -> None:
    assert [passage.id for passage in main("corpus_reader")] == ["17", "17#2", "19", "19#2"]


@pytest.mark.extended
def test_the_own_metric_counts_over_a_trained_model(trained, towns: Config) -> None:
    results = main("metric", trained[2], towns.data.evaluation)
    assert results["exact_match"] > 0.5


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < (100 if path.name == "toy.py" else 80)
