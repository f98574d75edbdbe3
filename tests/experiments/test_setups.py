"""Configs and folders that an experiment would measure wrongly: refused in one line, before anything is trained."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="figures need the demo extra")

from rag_jax.config.config import Config, Distillation, Lora
from rag_jax.config.files import save_config
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.errors import InputError
from rag_jax.experiments import ablation, distillation, hot_swap, options, refresh, staleness
from rag_jax.experiments.plan import Plan
from rag_jax.experiments.runs import Run, check_runs
from rag_jax.index import building
from rag_jax.index.engines import store_engines
from rag_jax.index.store import open_store
from rag_jax.models import registry
from stores import PASSAGES, encoder

DECODER = registry.GENERATORS["llama"]
IMPORTS = "from pathlib import Path, PosixPath\nfrom rag_jax.config.config import *\n"


def written(folder: Path, config: Config, name: str = "config.py", **retriever: Any) -> str:
    """A config file, with fields of its retriever changed."""
    changed = dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, **retriever))
    (folder / name).write_text(f"{IMPORTS}config = {changed!r}\n")
    return str(folder / name)


def refused(message: str):
    """A block that ends with a line of these words."""
    return pytest.raises(InputError, match=re.escape(message))


@pytest.fixture
def config(towns: Config) -> Config:
    return dataclasses.replace(towns, steps=8)


@pytest.mark.parametrize("steps", [4, 12])
def test_a_run_of_other_steps_is_neither_extended_nor_measured(config: Config, tmp_path: Path, steps: int) -> None:
    """Others may have started from it, or are compared with it."""
    workdir = tmp_path / "reader-0"
    workdir.mkdir()
    save_config(config, workdir / "config.json")
    check_runs([Run("reader", config, workdir)])
    longer = Run("reader", dataclasses.replace(config, steps=steps), workdir)
    told = f"a run of 8 steps, and the config has {steps}" if steps > 8 else f"(steps was 8, is {steps})"
    for run in (longer, Run("token", config, tmp_path / "token-0", before=(longer,))):
        with pytest.raises(InputError, match=rf"^{workdir}.*{re.escape(told)}; .*choose another --workdir$"):
            check_runs([run])


def test_what_a_config_says_of_refreshes_is_not_that_of_a_frozen_index(config: Config, tmp_path: Path) -> None:
    own = written(tmp_path, config, train_passages=True, refresh_every=2, refresh_at_once=True, candidates=6)
    given = options.Refresh(own, workdir=tmp_path / "new", seeds=1, every=4, from_scratch=False)
    fields = ("train_passages", "refresh_every", "refresh_at_once", "candidates")
    arms = [[getattr(run.config.retriever, name) for name in fields] for run in refresh.plan(given).runs]
    assert arms == [[False, None, False, None], [True, 4, False, None], [True, 4, True, None]]


def test_towers_from_scratch_start_from_no_other_run(config: Config, tmp_path: Path) -> None:
    plain, started = (
        written(tmp_path, each, name)
        for name, each in (
            ("plain.py", config),
            ("started.py", dataclasses.replace(config, start_from=tmp_path / "run")),
        )
    )
    adapted = written(tmp_path, config, "adapted.py", adapter="adapter")
    scratch = options.Refresh(plain, workdir=tmp_path / "new", every=4)
    told = "the towers start from random weights, and the config names {}; --no-from-scratch"
    named = f"start_from {tmp_path / 'run'}"
    for given, what in (
        (dataclasses.replace(scratch, config=started), named),
        (dataclasses.replace(scratch, reader=started), named),
        (dataclasses.replace(scratch, config=adapted), "retriever.adapter adapter"),
    ):
        with refused(told.format(what)):
            refresh.plan(given)
    assert refresh.plan(dataclasses.replace(scratch, config=started, from_scratch=False)).runs


def test_random_towers_are_checked_before_anything_is_written(config: Config, tmp_path: Path) -> None:
    def plan(name: str, changed: Config, **retriever: Any) -> Plan:
        return refresh.plan(
            options.Refresh(written(tmp_path, changed, name, **retriever), workdir=tmp_path / "new", every=4)
        )

    compute = dataclasses.replace(config.compute, accumulate=2, prefill_chunk=8)
    assert plan("accumulated.py", dataclasses.replace(config, compute=compute)).runs, "both are of the generator alone"
    with refused("retriever.vector_width is 8, and random towers learn whole vectors; leave it out, or --no-from-"):
        plan("cut.py", config, vector_width=8)
    with refused("batch_size is 1 without hard negatives"):
        plan("single.py", dataclasses.replace(config, batch_size=1))
    index = dataclasses.replace(config.data, passages=None, index=tmp_path / "index")
    with refused("random towers are trained on data.passages, which the config lacks; --no-from-scratch"):
        plan("index.py", dataclasses.replace(config, data=index))
    assert not (tmp_path / "new").exists()


def test_what_a_config_says_of_distillation_holds_for_all_objectives(config: Config, tmp_path: Path) -> None:
    own = written(tmp_path, config, distillation=Distillation("pdist", 0.5, teacher_temperature=0.1, weight=2.0))
    objectives = "emdr2", "lsr"
    made = distillation.plan(options.Distillation(own, workdir=tmp_path / "new", seeds=1, objectives=objectives)).runs
    found = [run.config.retriever.distillation for run in made]
    taught = [Distillation("emdr2", 0.5, weight=2.0), Distillation("lsr", 0.5, teacher_temperature=0.1, weight=2.0)]
    assert found == [Distillation(), Distillation(), *taught]


def test_what_a_config_says_of_training_is_not_that_of_a_frozen_retriever(config: Config, tmp_path: Path) -> None:
    own = written(tmp_path, config, lora=Lora(rank=2), prior_docs=9)
    made = ablation.plan(options.Ablation(own, workdir=tmp_path / "new", seeds=1)).runs
    check_runs(made)
    ranks = {run.name: run.config.retriever.lora.rank for run in made if "token" in run.name}
    assert ranks == {"token-bm25-0": None, "token-frozen-0": None, "token-trained-0": 2}


def test_a_tower_that_would_not_learn_is_not_called_trained(config: Config, tmp_path: Path) -> None:
    own = written(tmp_path, config, num_docs=1)
    with refused("the retriever of token is to be trained, and its loss does not depend on what the question tower"):
        ablation.plan(options.Ablation(own, workdir=tmp_path / "new", seeds=1))
    assert not (tmp_path / "new").exists()


def test_attention_is_distilled_from_no_decoder_only_generator(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder_only = dataclasses.replace(config, generator=dataclasses.replace(config.generator, checkpoint="smol"))
    monkeypatch.setattr(distillation.hub, "generator_family", lambda source: DECODER)
    given = options.Distillation(written(tmp_path, decoder_only), workdir=tmp_path / "new", seeds=1)
    with refused(
        "--objectives adist trains Fusion-in-Decoder, and a llama has no encoder; name the others: --objectives"
    ):
        distillation.plan(given)
    generator = dataclasses.replace(config.generator, architecture="llama")
    scratch = written(tmp_path, dataclasses.replace(config, generator=generator), "scratch.py")
    with refused("and a llama has no encoder"):
        distillation.plan(options.Distillation(scratch, workdir=tmp_path / "new", seeds=1))


def test_an_ablation_of_bm25_needs_a_config_that_searches_vectors(config: Config, tmp_path: Path) -> None:
    lexical = written(tmp_path, config, engine="bm25", mode="frozen")
    with refused(f"{lexical}: its engine is bm25; name a config whose passages are found by vectors"):
        ablation.plan(options.Ablation(lexical, workdir=tmp_path / "new"))
    assert ablation.plan(options.Ablation(written(tmp_path, config), workdir=tmp_path / "new")).runs


def test_staleness_is_measured_by_an_exact_search(config: Config, tmp_path: Path) -> None:
    """The index is the user's own: nothing is added to it."""
    index = tmp_path / "index"
    building.build(index, PASSAGES, encoder(), None)
    over = dataclasses.replace(config, data=dataclasses.replace(config.data, index=index))
    given = options.Staleness(written(tmp_path, over), workdir=tmp_path / "new")
    told = f"{index}: has no exact index of FAISS; build one with rag-jax index --out {index} --faiss Flat"
    for factory in (None, "HNSW8", "Flat"):
        if factory is not None:
            store = open_store(index, None, None)
            store_engines.add_faiss(store, factory, store_engines.passage_queries(store))
        if factory != "Flat":
            with refused(told):
                staleness.plan(given)
    assert staleness.plan(given).runs


def test_the_second_version_of_the_world_is_read_to_its_end_before_the_training(config: Config, tmp_path: Path) -> None:
    passages, questions = (
        [row for _, row in read_jsonl(path)] for path in (config.data.passages, config.data.evaluation)
    )
    for row in questions:
        row["answers"] = ["yellow"]
    write_jsonl(tmp_path / "passages.jsonl", passages)
    write_jsonl(tmp_path / "questions.jsonl", questions)
    write_jsonl(tmp_path / "unanswered.jsonl", [*questions, {"id": "last", "question": "why", "positive_ids": ["x"]}])
    (tmp_path / "broken.jsonl").write_text((tmp_path / "passages.jsonl").read_text() + "no JSON\n")
    usual = options.HotSwap(
        written(tmp_path, config),
        workdir=tmp_path / "new",
        other_passages=tmp_path / "passages.jsonl",
        other_questions=tmp_path / "questions.jsonl",
    )
    assert hot_swap.plan(usual).runs
    both = written(tmp_path, config, "both.py", train_passages=True, refresh_every=4)
    for changes, told in (
        ({"config": both}, "retriever.train_passages: trains the passage tower, and each run would need an index of"),
        ({"other_passages": tmp_path / "broken.jsonl"}, f"{tmp_path / 'broken.jsonl'}:{len(passages) + 1}: malformed"),
        (
            {"other_questions": tmp_path / "unanswered.jsonl"},
            f'{tmp_path / "unanswered.jsonl"}: question "last" has no answers to measure by; leave it out',
        ),
    ):
        with refused(told):
            hot_swap.plan(dataclasses.replace(usual, **changes))
    assert not (tmp_path / "new").exists()
