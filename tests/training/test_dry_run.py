"""What a dry run plans with is what a run has, and the command tells it without reading data."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import launch
from rag_jax.config.config import Config, Lora, Mesh
from rag_jax.errors import InputError
from rag_jax.pipeline.assembly import open_components, prepare, read_corpus
from rag_jax.training import dry_run


def test_it_plans_with_the_shapes_of_a_run(towns: Config, tmp_path: Path) -> None:
    components = open_components(prepare(towns, tmp_path, read_corpus(towns)), tmp_path)
    state, known, _ = dry_run.arguments(towns, *dry_run.sizes(towns), len(components.store))

    def told(tree) -> list:
        return [(path, leaf.shape, leaf.dtype) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]

    assert told(state.params) == told(components.initial_params)
    assert told(known.passage_vectors) == told(components.knowledge.passage_vectors)


def test_it_plans_moments_for_what_is_trained_alone(towns: Config) -> None:
    adapted = dataclasses.replace(towns.generator, lora=Lora(4, targets=("up/kernel",)))
    config = dataclasses.replace(
        towns,
        generator=adapted,
        retriever=dataclasses.replace(towns.retriever, mode="frozen"),
        optimizer=dataclasses.replace(towns.optimizer, kind="adamw"),
    )
    state, _, _ = dry_run.arguments(config, *dry_run.sizes(config), passages=100)
    held = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.shape]
    assert sorted(held) == sorted(2 * 2 * [(32, 4), (4, 64)]), "two moments of A and B in each of two layers"
    wrong = dataclasses.replace(config, generator=dataclasses.replace(adapted, lora=Lora(33, targets=("up",))))
    with pytest.raises(InputError, match=r"generator\.lora\.rank is 33, .* is 32 x 64; give 32 or less"):
        dry_run.arguments(wrong, *dry_run.sizes(wrong), passages=100)


def test_a_mesh_splits_what_it_plans_with(towns: Config) -> None:
    split = dataclasses.replace(towns, mesh=Mesh(fsdp=2))
    state, known, batch = dry_run.arguments(split, *dry_run.sizes(split), passages=1_001)
    kernel = state.params.generator["decoder_layers_0"]["ffn"]["up"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (16, 64)
    assert known.passage_vectors.shape[0] >= 1_001
    assert (
        known.passage_vectors.sharding.shard_shape(known.passage_vectors.shape)[0] * 2 == known.passage_vectors.shape[0]
    )
    assert batch.question.ids.sharding.shard_shape(batch.question.ids.shape)[0] * 2 == split.batch_size


@pytest.mark.extended
def test_it_plans_the_index_of_a_passage_tower_that_is_trained(towns: Config) -> None:
    retriever = dataclasses.replace(towns.retriever, train_passages=True, refresh_every=4, precision="int8")
    config = dataclasses.replace(towns, retriever=retriever, mesh=Mesh(fsdp=2))
    state, known, _ = dry_run.arguments(config, *dry_run.sizes(config), passages=1_001)
    rows = known.passage_tokens.lengths.shape[0]
    assert (known.passage_vectors.shape[0], known.tower_tokens.ids.shape) == (0, (rows, towns.retriever.max_passage))
    assert [leaf.shape for leaf in jax.tree.leaves(state.refreshed)] == [(rows, 32), (rows,), (rows,)]
    for leaf in jax.tree.leaves(state.refreshed):
        assert leaf.sharding.shard_shape(leaf.shape)[0] * 2 == rows
    assert jax.tree.structure(state.params.passage_tower) == jax.tree.structure(state.params.question_tower)


def test_it_plans_for_the_index_that_is_there(trained, towns: Config, tmp_path: Path) -> None:
    rag, _, workdir = trained
    passages, told = dry_run.known_passages(towns, workdir)
    assert passages == len(rag.components.store)
    assert told == f"{passages} ({workdir / 'index'})"
    assert dry_run.known_passages(towns, tmp_path)[0] == dry_run.WIKIPEDIA


def dry(config: Config, folder: Path, *more: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "train.py", launch.write(config, folder), "--workdir", folder / "run", "--dry-run"]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    return subprocess.run(
        [*map(str, command), *map(str, more)],
        cwd=launch.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.extended
def test_the_command_tells_shapes_memory_and_sharding_and_leaves_nothing(towns: Config, tmp_path: Path) -> None:
    absent = dataclasses.replace(towns.data, passages=Path("nowhere.jsonl"), train=Path("nowhere.jsonl"))
    ran = dry(dataclasses.replace(towns, data=absent), tmp_path, "--mesh.fsdp", 2, "--mesh.tensor", 2)
    assert ran.returncode == 0, ran.stderr
    for told in (
        "questions B",
        "K = 2 of 21,015,324, as Wikipedia has",
        "1 x 2 x 2 (data, fsdp, tensor)",
        "moments",
        "activations",
    ):
        assert told in ran.stdout
    assert "the step compiles" in ran.stdout
    assert "4 virtual devices" in ran.stdout
    assert "in all" in ran.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.extended
def test_what_cannot_be_run_is_one_line(towns: Config, tmp_path: Path) -> None:
    ran = dry(towns, tmp_path, "--mesh.data", 3)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: batch_size 16 does not divide into 1 parts")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"passages_per_prompt": 0}, r"generator\.passages_per_prompt is 0; give 1 or more"),
        ({"architecture": "llama"}, "generator: its network cannot fuse passages, as model fid does; give "),
    ],
)
def test_passages_that_cannot_be_read_together_are_not_planned(towns: Config, changes: dict, told: str) -> None:
    generator = dataclasses.replace(towns.generator, **changes)
    with pytest.raises(InputError, match=told):
        dry_run.checked_sizes(dataclasses.replace(towns, model="fid", generator=generator))


def test_vectors_have_the_width_of_the_config(towns: Config) -> None:
    narrow = dataclasses.replace(towns, retriever=dataclasses.replace(towns.retriever, vector_width=8))
    _, known, _ = dry_run.arguments(narrow, *dry_run.sizes(narrow), passages=100)
    assert known.passage_vectors.shape[1] == 8
    wide = dataclasses.replace(towns, retriever=dataclasses.replace(towns.retriever, vector_width=33))
    with pytest.raises(InputError, match="vector_width is 33, the tower's vectors have 32 components"):
        dry_run.sizes(wide)


def test_an_engine_of_the_host_may_search_on_the_devices(towns: Config) -> None:
    held = {}
    for engine in ("device", "hybrid", "bm25"):
        config = dataclasses.replace(towns, retriever=dataclasses.replace(towns.retriever, engine=engine))
        held[engine] = dry_run.searched_apart(config, dry_run.sizes(config)[0], 1_000)
    assert held["device"] == held["bm25"] == 0
    assert held["hybrid"] >= 1_000 * 32 * 4
