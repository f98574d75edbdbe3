"""Training from the command line's side: it learns, it continues, and what it cannot use it names in one line."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import world
from rag_jax import cli
from rag_jax.commands.train import train
from rag_jax.config.config import Config, Data, Generator, Optimizer, Retriever
from rag_jax.config.files import load_config
from rag_jax.data.jsonl import write_jsonl
from rag_jax.errors import InputError
from rag_jax.pipeline.assembly import prepare, read_corpus
from rag_jax.rag import RAG
from rag_jax.training import loop
from rag_jax.training.run import fit, train_and_evaluate
from rag_jax.training.start import start_params

ROOT = Path(__file__).parents[1]


def test_it_answers_about_towns_it_never_saw(trained) -> None:
    _, results, _ = trained
    assert results["exact_match"] >= 0.9
    assert results["recall@1"] > results["recall@1_before"]


def test_an_empty_workdir_is_not_the_folder_that_one_is_in(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "own", "--workdir", ""])
    assert stopped.value.code == 2
    assert "argument --workdir: is empty; name a file or a folder" in capsys.readouterr().err


@pytest.mark.extended
@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_without_passages_it_can_only_guess(trained, towns: Config, tmp_path: Path, steps: int) -> None:
    closed = dataclasses.replace(towns, data=dataclasses.replace(towns.data, passages=None), steps=steps)
    shutil.copy(trained[2] / "tokenizer.json", tmp_path / "tokenizer.json")
    _, results = train_and_evaluate(closed, tmp_path)
    assert results["exact_match"] <= 0.5
    assert results["index"] == "none (closed book)"


@pytest.mark.extended
def test_rag_sequence_goes_on_from_what_rag_token_has_learnt(trained, towns: Config, tmp_path: Path) -> None:
    changed = dataclasses.replace(towns, model="sequence", start_from=trained[2], steps=10)
    assert_answers(*train_and_evaluate(changed, tmp_path))


def test_a_run_does_not_start_from_one_over_the_vectors_of_another_tower(
    trained, towns: Config, tmp_path: Path
) -> None:
    """Of the same shapes and tokens, so that only the weights tell."""
    shutil.copytree(towns.retriever.tower, tmp_path / "tower")
    world.change_tower(tmp_path / "tower")
    retriever = dataclasses.replace(towns.retriever, tower=str(tmp_path / "tower"))
    told = (
        r"was trained with the vectors of another passage tower; give retriever\.tower and retriever\.passage_tower as"
    )
    both = dataclasses.replace(retriever, train_passages=True, refresh_every=4)
    for other in (retriever, both):
        with pytest.raises(InputError, match=told):
            fit(dataclasses.replace(towns, retriever=other, start_from=trained[2]), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_may_start_from_one_over_wider_vectors_of_the_same_tower(trained, towns: Config, tmp_path: Path) -> None:
    narrow = dataclasses.replace(towns.retriever, vector_width=16, vector_norm=2.0, max_passage=8)
    config = dataclasses.replace(towns, retriever=narrow, start_from=trained[2])
    found = start_params(prepare(config, tmp_path / "run", read_corpus(config)), begun=False)
    assert found is not None
    jax.tree.map(np.testing.assert_array_equal, found.question_tower, trained[0].params.question_tower)


@pytest.mark.slow
def test_rag_sequence_learns_too(towns: Config, tmp_path: Path) -> None:
    assert_answers(*train_and_evaluate(dataclasses.replace(towns, model="sequence"), tmp_path))


def assert_answers(rag: RAG, results: dict) -> None:
    assert results["exact_match"] >= 0.9
    answer = rag.answer(["what colour is Norburg"])[0]
    assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1, abs=1e-5)


@pytest.mark.extended
def test_a_generator_learns_to_read_before_anything_is_retrieved(towns: Config, tmp_path: Path) -> None:
    gold = dataclasses.replace(towns, retriever=dataclasses.replace(towns.retriever, mode="gold", num_docs=1), steps=20)
    reader = fit(gold, tmp_path / "reader")
    jax.tree.map(
        np.testing.assert_array_equal, reader.params.question_tower, reader.components.initial_params.question_tower
    )
    rag = fit(dataclasses.replace(towns, start_from=tmp_path / "reader", steps=1), tmp_path / "run")
    started = jax.tree.leaves(rag.params.generator)[0] - jax.tree.leaves(reader.params.generator)[0]
    assert np.abs(started).max() < 0.05  # one step away from where the reader stopped


@pytest.mark.extended
def test_it_starts_from_two_towers_and_a_generator_as_the_paper_does(tmp_path: Path) -> None:
    import pretrained  # skipped without its oracle

    pretrained.save_networks(tmp_path)
    write_jsonl(tmp_path / "passages.jsonl", (passage._asdict() for passage in pretrained.PASSAGES))
    write_jsonl(tmp_path / "train.jsonl", ({"question": each, "answers": ["Moses"]} for each in pretrained.QUESTIONS))
    config = Config(
        Data(tmp_path / "passages.jsonl", tmp_path / "train.jsonl"),
        Retriever(str(tmp_path / "question"), str(tmp_path / "passages"), num_docs=2, max_question=32, max_passage=40),
        Generator(str(tmp_path / "bart"), max_passage=40, max_input=64, max_target=16),
        Optimizer(warmup=0, clip=1.0),
        steps=2,
        batch_size=2,
        buckets=((32, 32),),
    )
    rag = fit(config, tmp_path / "run")
    towers = rag.components.bi_encoder
    vectors = towers.required_passage_encoder.encode_passages(pretrained.PASSAGES)
    np.testing.assert_array_equal(rag.components.store.knowledge.passage_vectors, vectors)
    assert towers.required_passage_encoder.params is not towers.params
    moved = jax.tree.map(lambda new, old: float(np.abs(new - old).max()), rag.params, rag.components.initial_params)
    assert 0 < max(jax.tree.leaves(moved.question_tower)) < 1e-3 > max(jax.tree.leaves(moved.generator)) > 0
    asked = RAG.from_workdir(tmp_path / "run").log_likelihood(pretrained.QUESTIONS, ["Moses"] * 3)
    np.testing.assert_allclose(asked, rag.log_likelihood(pretrained.QUESTIONS, ["Moses"] * 3), rtol=1e-6)


def test_the_workdir_holds_all_that_a_run_leaves(trained, towns: Config) -> None:
    _, results, workdir = trained
    assert load_config(workdir / "config.json") == towns
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(10, 201, 10))
    told = {"loss", "learning_rate", "recall", "grad_norm", "input_tokens", "distinct", "kl", "skipped"}
    assert told <= lines[0].keys()
    timed = [json.loads(line) for line in (workdir / "timings.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timed] == [line["step"] for line in lines]
    assert {"seconds", "examples/s", "tokens/s", "model_flops/s", "memory"} <= timed[0].keys()
    shares = ("input", "step", "retrieval")
    assert all(0 < line[f"time/{name}"] < 1 for line in timed for name in shares)
    shared = {line["step"]: line["time/input"] + line["time/step"] for line in timed}
    assert max(shared.values()) <= 1
    del shared[towns.save_every + towns.log_every]  # it begins with a save, which may take longer than its steps
    assert min(shared.values()) > 0.5
    assert lines[-1]["loss"] < lines[0]["loss"] / 5
    assert json.loads((workdir / "results.json").read_text()) == results
    assert {"num_docs", "decoder", "index", "recall@1_bm25", "train_seconds"} <= results.keys()


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not_been(trained, towns: Config, tmp_path: Path, monkeypatch) -> None:
    whole, results, _ = trained
    real = loop.step_inputs

    def stopping(*arguments, **options):
        for number, batch in enumerate(real(*arguments, **options)):
            if number == 130:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(loop, "step_inputs", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_and_evaluate(towns, tmp_path)
    monkeypatch.setattr(loop, "step_inputs", real)
    continued, again = train_and_evaluate(towns, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, continued.params, whole.params)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (trained[2] / "metrics.jsonl").read_bytes()
    assert again["exact_match"] == results["exact_match"]


def test_a_finished_run_is_not_trained_again(trained, towns: Config) -> None:
    whole, results, workdir = trained
    again, same = train_and_evaluate(towns, workdir)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    assert same == results


@pytest.mark.extended
def test_the_step_is_compiled_once(towns: Config, tmp_path: Path, caplog) -> None:
    with jax.log_compiles(), caplog.at_level("WARNING"):
        fit(dataclasses.replace(towns, steps=8, log_every=1), tmp_path)
    compiled = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling jit(train_step)")
    ]
    assert len(compiled) == 1


def test_another_config_does_not_touch_a_workdir(trained, towns: Config) -> None:
    _, _, workdir = trained
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="another config"):
        train_and_evaluate(dataclasses.replace(towns, seed=1), workdir)
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


def spoil(towns: Config, folder: Path, **changed) -> Config:
    """The config with its data replaced by what `changed` names (a string: a file's text); the rest goes beside it."""
    if changed.pop("gold", False):
        changed["retriever"] = dataclasses.replace(towns.retriever, mode="gold")
    data = {key: value for key, value in changed.items() if hasattr(towns.data, key)}
    rest = {key: value for key, value in changed.items() if key not in data}
    for name, rows in data.items():
        if isinstance(rows, str):
            (folder / f"{name}.jsonl").write_text(rows)
            data[name] = folder / f"{name}.jsonl"
    return dataclasses.replace(towns, data=dataclasses.replace(towns.data, **data), **rest)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"passages": Path("nowhere.tsv")}, r"^nowhere\.tsv: no such file; "),
        ({"passages": ""}, r"passages\.jsonl: holds no passages; "),
        ({"passages": '{"id": "a", "text": "b"}\n{"id": '}, r"passages\.jsonl:2: malformed JSON.*; "),
        ({"train": '{"question": "what"}'}, r"train\.jsonl:1: no answers; "),
        ({"evaluation": Path("nowhere.jsonl")}, r"^nowhere\.jsonl: no such file; "),
        ({"start_from": Path("nowhere")}, r"^nowhere: no checkpoint there; "),
        ({"train": '{"question": "what", "answers": ["red"]}', "gold": True}, r"^question '1' names no gold passage"),
        ({"closed_book": Path("nowhere")}, r"^nowhere/results\.json: no such file; "),
        ({"batch_size": 0}, r"^batch_size is 0; "),
        ({"steps": 0}, r"^steps is 0; "),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_one_line(towns: Config, tmp_path: Path, changed: dict, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        train_and_evaluate(spoil(towns, tmp_path, **changed), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_answers_that_are_all_too_long_are_refused_before_anything_is_written(towns: Config, tmp_path: Path) -> None:
    short = dataclasses.replace(towns, generator=dataclasses.replace(towns.generator, max_target=1))
    with pytest.raises(InputError, match="no training answer has at most 1 tokens; raise generator"):
        train_and_evaluate(short, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_more_passages_than_there_are_is_refused(towns: Config, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "one.jsonl", [{"id": "a", "title": "Norburg", "text": "Norburg is painted red ."}])
    config = spoil(towns, tmp_path, passages=tmp_path / "one.jsonl")
    with pytest.raises(InputError, match=r"num_docs is 2, the index has 1 passages; give 1 to 1"):
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"staleness": -1}, r"^retriever\.staleness is -1 with the engine device; give 0"),
        ({"staleness": 1}, r"^retriever\.staleness is 1 with the engine device; give 0"),
    ],
)
def test_a_retriever_that_cannot_be_is_named(towns: Config, tmp_path: Path, changed: dict, told: str) -> None:
    config = dataclasses.replace(towns, retriever=dataclasses.replace(towns.retriever, **changed))
    with pytest.raises(InputError, match=told):
        train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name a CONFIG: the path of a .py file, or one of "),
        (["cities"], "name the folder of the run: --workdir DIR"),
        (["cities", "--workdir", "run", "--processes", "2"], "--processes and --process need --coordinator; give HOST"),
        (["cities", "--workdir", "run", "--process", "0"], "--processes and --process need --coordinator; give HOST"),
    ],
)
def test_what_a_command_lacks_is_named(arguments: list[str], told: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{re.escape(told)}"):
        train(arguments)
    assert not list(tmp_path.iterdir())


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_exits_with_2_and_one_line(tmp_path: Path) -> None:
    ran = command("train.py", "configs/cities.py", "--stepps", "3", "--workdir", tmp_path / "run")
    assert ran.returncode == 2
    assert ran.stderr == "error: unknown config key --stepps; the nearest is --steps\n"
    assert not (tmp_path / "run").exists()
