"""A run with LoRA: it learns, resumes bit for bit, answers, and goes out whole or as an adapter of its base."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

import launch
import world
from rag_jax import cli, hub
from rag_jax.config.config import Config, Lora, Optimizer
from rag_jax.config.files import load_config, save_config
from rag_jax.core import lora, trainable
from rag_jax.errors import InputError
from rag_jax.pipeline import finetuning
from rag_jax.pipeline.assembly import load_bi_encoder, load_generator, prepare, read_corpus
from rag_jax.pipeline.convert import convert, convert_adapter
from rag_jax.pipeline.trained import restore
from rag_jax.rag import RAG
from rag_jax.training.run import fit
from rag_jax.training.start import start_params
from rag_jax.types import RagParams

pytestmark = pytest.mark.extended  # one more training each; every day `trained` stands for them

ASKED = [f"what colour is {town}" for town in ("Norburg", "Sudhof", "Westal")]
STEPS, HALF = 30, 15


class Run(NamedTuple):
    config: Config
    rag: RAG
    folder: Path  # of all of it

    @property
    def workdir(self) -> Path:
        return self.folder / "run"

    @property
    def stored(self) -> RagParams:
        """The newest checkpoint's parameters, with their adapters."""
        return restore(self.workdir, self.rag.components)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Adapters of both networks, trained on a random base for some steps."""
    folder = tmp_path_factory.mktemp("lora")
    config = world.write(folder)
    wide = dataclasses.replace(config, generator=dataclasses.replace(config.generator, init_std=0.2))
    base = prepare(wide, folder / "none", read_corpus(wide)).generator
    hub.save(folder / "base", hub.GeneratorCheckpoint(base.config, base.params, base.tokenizer.tokenizer, {}))
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, index=folder / "index"),
        retriever=dataclasses.replace(config.retriever, lora=Lora(2, targets=("attention/", "up"))),
        generator=dataclasses.replace(
            config.generator, checkpoint=str(folder / "base"), lora=Lora(4, targets=("kernel",))
        ),
        optimizer=Optimizer(learning_rate=2e-2, tower_learning_rate=1e-3, warmup=5, clip=1.0),
        steps=STEPS,
        log_every=5,
        save_every=HALF,
    )
    return Run(config, fit(config, folder / "run"), folder)


def assert_same(one: RagParams, other: RagParams) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def lines(workdir: Path) -> Sequence[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_its_base_stays_as_it_was_to_the_bit(run: Run) -> None:
    losses = [line["loss"] for line in lines(run.workdir)]
    assert losses[-1] < 0.6 * losses[0]
    base = run.rag.components.initial_params
    is_trained = finetuning.mask(run.config, run.stored)
    trained, frozen = trainable.partition(run.stored, lambda _: is_trained)
    before = dict(zip(trainable.names(base), jax.tree.leaves(base), strict=True))
    for name, leaf in zip(trainable.names(frozen), jax.tree.leaves(frozen), strict=True):
        np.testing.assert_array_equal(leaf, before[name], err_msg=name)
    names = trainable.names(trained)
    assert sum("lora_" in name for name in names) == 2 * (5 + 16)
    assert len(names) == sum("lora_" in name for name in names)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(trained)), "every B has left zero"


def test_the_model_is_the_base_with_its_adapters_multiplied_out(run: Run) -> None:
    alphas = run.config.retriever.lora.alpha, run.config.generator.lora.alpha
    expected = RagParams(*map(lora.merge, run.stored, alphas))
    assert trainable.names(run.rag.params) == trainable.names(run.rag.components.initial_params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), run.rag.params, expected)


def test_its_workdir_answers_as_it_does(run: Run) -> None:
    again = RAG.from_workdir(run.workdir)
    assert_same(again.params, run.rag.params)
    for one, other in zip(again.answer(ASKED), run.rag.answer(ASKED), strict=True):
        assert (one.text, one.log_prob) == (other.text, other.log_prob)
    assert_same(fit(run.config, run.workdir).params, run.rag.params)  # a finished run


def test_an_interrupted_run_ends_as_one_that_was_not(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(STEPS))
    resumed = fit(run.config, tmp_path / "run")
    assert_same(resumed.params, run.rag.params)
    assert_same(restore(tmp_path / "run", resumed.components), run.stored)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (run.workdir / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_killed_command_goes_on_and_its_workdir_serves_every_command(run: Run, tmp_path: Path) -> None:
    given = launch.write(dataclasses.replace(run.config, save_every=5, steps=300), tmp_path)
    launch.ended(launch.start(given, "--workdir", tmp_path / "whole"))
    killed = launch.start(given, "--workdir", tmp_path / "run")
    while not list((tmp_path / "run" / "checkpoints").glob("[1-9]*")):
        time.sleep(0.05)
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "run" / "results.json").exists()
    launch.ended(launch.start(given, "--workdir", tmp_path / "run"))
    whole, again = (restore(tmp_path / name, run.rag.components) for name in ("whole", "run"))
    assert_same(again, whole)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    assert losses[-1] < 0.5 * losses[0]
    index = "--index", run.folder / "index"
    sources = {"one": ("--workdir", tmp_path / "run"), "two": ("--checkpoint", tmp_path / "rag", *index)}
    commands = (
        ("convert", tmp_path / "run", tmp_path / "rag"),
        ("convert", tmp_path / "run", tmp_path / "adapter", "--adapter", "generator"),
        *(("answer", *ASKED, *source, "--output", tmp_path / f"{name}.jsonl") for name, source in sources.items()),
    )
    for command in commands:
        subprocess.run([sys.executable, "-m", "rag_jax", *map(str, command)], check=True, cwd=launch.ROOT)
    written = ((tmp_path / f"{name}.jsonl").read_text().splitlines() for name in sources)
    one, two = ([line for line in map(json.loads, each) if "answer" in line] for each in written)
    assert len(one) == len(ASKED)
    assert [each["answer"] for each in one] == [each["answer"] for each in two]
    np.testing.assert_allclose([each["log_prob"] for each in one], [each["log_prob"] for each in two], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lora": Lora(8, targets=("kernel",))}, r"generator\.lora\.rank was 4, is 8"),
        ({"lora": Lora()}, r"generator\.lora\.rank was 4, is None; .*generator\.lora\.targets was"),
        ({"train": ("norm",)}, r"generator\.train was None, is \('norm',\)"),
    ],
)
def test_another_rank_is_another_run(run: Run, change: dict, told: str) -> None:
    config = dataclasses.replace(run.config, generator=dataclasses.replace(run.config.generator, **change))
    with pytest.raises(InputError, match=rf"belongs to a run with another config \({told}.*; set it back, or choose"):
        fit(config, run.workdir)


def test_it_becomes_a_checkpoint_with_merged_weights(run: Run, tmp_path: Path) -> None:
    names = convert(str(run.workdir), tmp_path / "rag")
    assert not [each for each in names if "lora" in each.here]
    assert_same(RAG.from_pretrained(tmp_path / "rag").params, run.rag.params)


@pytest.mark.parametrize("network", ["question_tower", "generator"])
def test_its_adapters_go_out_alone_and_come_in_onto_their_base(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture, network: str
) -> None:
    cli.main(["convert", str(run.workdir), str(tmp_path / "adapter"), "--adapter", network])
    printed = capsys.readouterr().out
    is_tower = network == "question_tower"
    assert f": a LoRA adapter in peft's layout, {2 * (5 if is_tower else 16)} tensors.\n" in printed
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    base = run.config.retriever.tower if is_tower else run.config.generator.checkpoint
    assert written["base_model_name_or_path"] == base
    assert written["task_type"] == ("FEATURE_EXTRACTION" if is_tower else "SEQ_2_SEQ_LM")
    given = {"adapter": str(tmp_path / "adapter"), "lora": Lora()}
    config = dataclasses.replace(
        run.config,
        retriever=dataclasses.replace(run.config.retriever, **(given if is_tower else {})),
        generator=dataclasses.replace(run.config.generator, **({} if is_tower else given)),
    )
    loaded = load_bi_encoder(config) if is_tower else load_generator(config)
    ours = lora.merge(getattr(run.stored, network), 16.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), loaded.params, ours)
    if not is_tower:
        sources = run.config.retriever.tower, str(base)
        rag = RAG.from_networks(*sources, adapter=tmp_path / "adapter")
        assert_same(rag.params._replace(question_tower={}), RagParams({}, loaded.params))
    if is_tower:
        passages = loaded.required_passage_encoder.params
        assert_same(passages, run.rag.components.bi_encoder.params)  # without the adapter


@pytest.mark.parametrize("adapts", [True, False], ids=["by LoRA", "in full"])
def test_a_run_that_starts_from_it_starts_from_the_merged_weights(run: Run, tmp_path: Path, adapts: bool) -> None:
    changed = {"lora": Lora(3) if adapts else Lora()}
    config = dataclasses.replace(
        run.config, start_from=run.workdir, generator=dataclasses.replace(run.config.generator, **changed)
    )
    components = dataclasses.replace(run.rag.components, config=config)
    assert_same(start_params(components, begun=False), run.rag.params)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"start_from": Path("before")}, "belong to weights that no checkpoint holds: the run started from before"),
        (
            {"train": ("norm",)},
            r"its generator was trained beside its adapters too, generator\.train; convert it without",
        ),
        ({"lora": Lora()}, "its generator has no adapters; convert it without --adapter"),
    ],
)
def test_what_is_more_than_adapters_of_a_checkpoint_is_not_taken_for_it(
    run: Run, tmp_path: Path, change: dict, told: str
) -> None:
    shutil.copytree(run.workdir, tmp_path / "run")
    config = load_config(run.workdir / "config.json")
    changed = change if "start_from" in change else {"generator": dataclasses.replace(config.generator, **change)}
    save_config(dataclasses.replace(config, **changed), tmp_path / "run" / "config.json")
    with pytest.raises(InputError, match=f"run: .*{told}"):
        convert_adapter(tmp_path / "run", tmp_path / "adapter", "generator")
    assert not (tmp_path / "adapter").exists()
