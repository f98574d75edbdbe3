"""The examples of docs/extending.md run, and show what they claim."""

import runpy
from pathlib import Path

import pytest

from examples import labelled_neighbours
from rag_jax.config.config import Config
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.errors import InputError
from rag_jax.pipeline.assembly import load_bi_encoder
from suites import first
from world import COLOURS, TOWNS

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


def test_each_labelled_text_lists_its_nearest_others(towns: Config, tmp_path: Path) -> None:
    rows = [{"id": f"t{n}", "text": f"is {town} {COLOURS[n]}", "label": COLOURS[n]} for n, town in enumerate(TOWNS[:6])]
    write_jsonl(tmp_path / "labelled.jsonl", rows)
    found = labelled_neighbours.main(str(tmp_path / "labelled.jsonl"), str(tmp_path), towns)
    vectors = load_bi_encoder(towns).required_passage_encoder([row["text"] for row in rows])
    for n, own in enumerate(vectors):
        others = sorted({*range(6)} - {n}, key=lambda other: -own @ vectors[other])
        assert found[n].tolist() == others[:2]
    passages, asked = (list(read_jsonl(tmp_path / name)) for name in ("passages.jsonl", "train.jsonl"))
    assert [row for _, row in passages] == [{"id": r["id"], "title": r["label"], "text": r["text"]} for r in rows]
    listed = [{**row, "passage_ids": [f"t{other}" for other in near]} for row, near in zip(rows, found, strict=True)]
    assert [row for _, row in asked] == listed
    write_jsonl(tmp_path / "few.jsonl", rows[:2])
    with pytest.raises(InputError, match=r"few\.jsonl: 2 texts, of which each is to read 2 others$"):
        labelled_neighbours.main(str(tmp_path / "few.jsonl"), str(tmp_path / "few"), towns)


@pytest.mark.extended
def test_the_own_metric_counts_over_a_trained_model(trained, towns: Config) -> None:
    results = main("metric", trained[2], towns.data.evaluation)
    assert results["exact_match"] > 0.5


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < (100 if path.name == "toy.py" else 80)
