"""`rag-jax train` on the config of instruction tuning: trained, scored, saved, resumed, loaded, and what it refuses."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import chat_models
import instruction_runs
import pretrained
from oracle import torch
from rag_jax import cli, hub
from rag_jax.config.config import Compute, Config, Lora
from rag_jax.config.files import load_config, load_config_of
from rag_jax.config.instruction import InstructionConfig
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.errors import InputError
from rag_jax.instruction import run
from rag_jax.instruction.run import train_and_evaluate
from rag_jax.rag import RAG
from rag_jax.training.preemption import PreemptionHandler


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> InstructionConfig:
    return instruction_runs.config(tmp_path_factory.mktemp("instruction"))


@pytest.fixture(scope="module")
def finished(config: InstructionConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    workdir = tmp_path_factory.mktemp("finished") / "run"
    results = train_and_evaluate(dataclasses.replace(config, steps=30), workdir)
    assert results is not None
    return workdir, results


def params(workdir: Path):
    return hub.load_generator(workdir / "generator").params


def same(one, other) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), one, other)))


def losses(workdir: Path) -> list[float]:
    return [row["loss"] for _, row in read_jsonl(workdir / "metrics.jsonl") if "loss" in row]


def test_held_out_responses_become_likelier(finished: tuple[Path, dict]) -> None:
    workdir, results = finished
    assert losses(workdir)[-1] < losses(workdir)[0] - 1
    assert results["nll"] < results["nll_before"] - 1
    assert results["perplexity"] == pytest.approx(np.exp(results["nll"]))
    assert json.loads((workdir / "results.json").read_text()) == results
    assert (results["conversations"], results["steps"]) == (5, 30)


def test_the_likelihood_is_that_of_transformers_in_the_saved_folder(
    config: InstructionConfig, finished: tuple[Path, dict]
) -> None:
    """The mean of the losses that transformers computes with labels of -100 outside the responses."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    workdir, results = finished
    theirs = AutoModelForCausalLM.from_pretrained(workdir / "generator").eval()
    tokenizer = AutoTokenizer.from_pretrained(workdir / "generator")
    total, count = 0.0, 0
    for _, row in read_jsonl(config.data.evaluation):
        asked = [{"role": "user", "content": f"{row['instruction']}\n\n{row['input'].strip()}"}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = [*prompt, *tokenizer(row["output"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        labels = [-100] * len(prompt) + ids[len(prompt) :]
        with torch.no_grad():
            loss = theirs(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
        total, count = total + loss * (len(ids) - len(prompt)), count + len(ids) - len(prompt)
    assert count == results["response_tokens"]
    assert total / count == pytest.approx(results["nll"], rel=1e-4)


def test_adapters_are_saved_beside_for_their_base(config: InstructionConfig, finished: tuple[Path, dict]) -> None:
    workdir, _ = finished
    adapted = dataclasses.replace(config.generator, adapter=str(workdir / "adapter"))
    loaded = run.load(dataclasses.replace(config, generator=adapted)).generator.params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), loaded, params(workdir))


@pytest.mark.extended
def test_a_rag_model_answers_by_the_saved_generator(towns: Config, finished: tuple[Path, dict]) -> None:
    rag = RAG.from_networks(towns.retriever.tower, finished[0] / "generator").with_passages(pretrained.PASSAGES)
    assert np.isfinite(rag.answer("what colour", num_docs=1, max_length=4).log_prob)


def test_a_finished_run_is_scored_again_without_training(
    config: InstructionConfig, finished: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, results = finished
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    monkeypatch.setattr(run, "train", None)
    data = dataclasses.replace(config.data, train=())  # its training files are not needed any more
    assert train_and_evaluate(dataclasses.replace(config, data=data, steps=30), copy) == results


def test_a_finished_run_of_another_network_is_refused(
    config: InstructionConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    other = hub.load_generator(config.generator.checkpoint)
    hub.save(
        tmp_path / "other", dataclasses.replace(other, params=jax.tree.map(lambda each: each + 0.01, other.params))
    )
    generator = dataclasses.replace(config.generator, checkpoint=str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"trained with other pretrained networks .*other\); give those of then"):
        train_and_evaluate(dataclasses.replace(config, generator=generator, steps=30), finished[0])


@pytest.mark.extended
def test_an_interrupted_run_goes_on_to_the_same_parameters(
    config: InstructionConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    train_and_evaluate(config, whole)
    with monkeypatch.context() as patched:
        patched.setattr(PreemptionHandler, "after", lambda self, step: step == 3)
        with pytest.raises(SystemExit):
            train_and_evaluate(config, half)
    assert not (half / "generator").exists()
    train_and_evaluate(config, half)
    assert same(params(whole), params(half))
    assert (whole / "metrics.jsonl").read_bytes() == (half / "metrics.jsonl").read_bytes()


def test_other_conversations_or_weights_are_no_resumption(config: InstructionConfig, finished, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (first, _), second = config.data.train
    changed = dataclasses.replace(config.data, train=((first, 2.0), second))
    with pytest.raises(InputError, match="trained with other training questions"):
        train_and_evaluate(dataclasses.replace(config, data=changed, steps=31), copy)


@pytest.mark.extended
@pytest.mark.parametrize(
    "changes",
    [
        {"compute": Compute(scan=True, remat="dots", accumulate=2), "length_groups": 1},
        {"generator": {"lora": Lora(), "train": ("norm", "layers_1/")}},
        {"generator": {"lora": Lora(), "system_prompt": "be helpful"}, "eval_every": 2},
    ],
    ids=["accumulate", "part", "all"],
)
def test_every_way_of_training(config: InstructionConfig, tmp_path: Path, changes: dict) -> None:
    generator = dataclasses.replace(config.generator, **changes.pop("generator", {}))
    train_and_evaluate(dataclasses.replace(config, generator=generator, **changes), tmp_path / "run")
    assert np.isfinite(losses(tmp_path / "run")).all()
    before, after = flat(hub.load_generator(config.generator.checkpoint).params), flat(params(tmp_path / "run"))
    plan = run.finetuning(dataclasses.replace(config, generator=generator))
    adapted = {name for name in before if plan.has_adapters and re.search(r"(query|value)/kernel$", name)}
    trained = adapted | {name for name in before if plan.trains(name)}
    assert {name for name in before if not np.array_equal(before[name], after[name])} == trained
    assert (tmp_path / "run" / "adapter").exists() == plan.has_adapters


def flat(tree) -> dict[str, np.ndarray]:
    from rag_jax.core.trainable import path_name

    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.extended
def test_it_starts_from_another_run(config: InstructionConfig, finished: tuple[Path, dict], tmp_path: Path) -> None:
    later = dataclasses.replace(config, start_from=finished[0])
    results = train_and_evaluate(later, tmp_path / "run")
    assert results is not None
    assert results["nll_before"] == pytest.approx(finished[1]["nll"], rel=1e-4)
    assert not (tmp_path / "run" / "adapter").exists(), "no checkpoint holds the weights that it belongs to"


@pytest.mark.extended
def test_a_run_that_started_from_another_is_not_resumed_without_it(
    config: InstructionConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    later = dataclasses.replace(config, start_from=finished[0], steps=1)
    train_and_evaluate(later, tmp_path / "run")
    for steps in (1, 2):
        with pytest.raises(InputError, match="trained with other parameters to start from; give those of then"):
            train_and_evaluate(dataclasses.replace(later, start_from=None, steps=steps), tmp_path / "run")


@pytest.mark.extended
def test_it_does_not_start_from_a_run_without_a_checkpoint(
    config: InstructionConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    shutil.copy(finished[0] / "config.json", begun)
    with pytest.raises(InputError, match="begun: no checkpoint there; train it first, or leave start_from out"):
        train_and_evaluate(dataclasses.replace(config, start_from=begun), tmp_path / "run")


def written(config: InstructionConfig, folder: Path) -> Path:
    path = folder / "instruct.py"
    path.write_text(
        "from pathlib import Path, PosixPath\nfrom rag_jax.config.config import AdamW, Compute, Lora, Mesh, Watch\n"
        f"from rag_jax.config.instruction import *\nconfig = {config!r}\n"
    )
    return path


@pytest.mark.extended
def test_the_command_prints_the_likelihood_and_the_next_command(
    config: InstructionConfig, tmp_path: Path, capsys
) -> None:
    workdir, (file, _) = tmp_path / "run", config.data.train[0]
    arguments = ["--steps", "2", "--data.train", str(file), "1", "--optimizer.learning-rate", "1e-3"]
    cli.main(["train", str(written(config, tmp_path)), "--workdir", str(workdir), *arguments])
    printed = capsys.readouterr().out
    assert "12 instructions" in printed
    assert "100% of each batch" in printed
    assert "negative log-likelihood" in printed
    assert f"--generator.checkpoint {workdir / 'generator'} --generator.chat" in printed
    saved = load_config_of(InstructionConfig, workdir / "config.json")
    assert (saved.steps, saved.data.train) == (2, ((file, 1.0),))
    with pytest.raises(InputError, match=r"of a generator without a retriever; name its folder: .*/generator"):
        load_config(workdir / "config.json")


CHAT = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "train.jsonl: holds no questions"),
        ([{"text": "nothing"}], "train.jsonl:1: in none of the formats"),
        ([CHAT, {"messages": [{"role": "tool", "content": "x"}]}], "train.jsonl:2: message 1: role is 'tool'"),
        ([{"instruction": "say", "output": " "}], 'train.jsonl:1: "output" is empty'),
        ([{"instruction": "say " * 90, "output": "a"}], "1 of 1 conversations have more than 96 tokens (the first at"),
        ([{"question": "who " * 60, "answers": ["a"]}], "retriever.max_question is 48"),
    ],
    ids=["empty", "unknown", "role", "response", "long", "question"],
)
def test_files_that_cannot_be_learnt_are_refused_before_anything_is_written(
    config: InstructionConfig, tmp_path: Path, capsys, rows: list[dict], told: str
) -> None:
    write_jsonl(tmp_path / "train.jsonl", rows)
    check_refused(config, tmp_path, capsys, told, "--data.train", str(tmp_path / "train.jsonl"), "1")


def check_refused(config: InstructionConfig, folder: Path, capsys, told: str, *arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", str(written(config, folder)), "--workdir", str(folder / "run"), *arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert told in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()


def test_generators_that_cannot_be_tuned_are_refused(config: InstructionConfig, tmp_path: Path, capsys) -> None:
    pretrained.save_networks(tmp_path)
    refused = "reads by an encoder, and instruction tuning needs a decoder-only model"
    check_refused(config, tmp_path, capsys, refused, "--generator.checkpoint", str(tmp_path / "bart"))
    chat_models.write(tmp_path / "base", template=None)
    refused = "the tokenizer has no chat template"
    check_refused(config, tmp_path, capsys, refused, "--generator.checkpoint", str(tmp_path / "base"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data.train", "x.jsonl", "0"), "data.train: the weight of x.jsonl is 0.0; give more than 0"),
        (("--data.train", "x.jsonl", "-1"), "give more than 0"),
        (("--batch-size", "3"), "batch_size 3 is no multiple of 2"),
        (("--retriever.tower", "x"), "retriever.tower is x, and there is no index of its vectors"),
        (("--generator.passages-per-prompt", "2"), "retriever.num_docs 1; retrieve as many or more"),
        (("--generator.train", "nowhere", "--generator.lora.rank", "None"), "'nowhere' matches no parameter"),
        (("--generator.max-length", "1000"), "has positions for 512 tokens, generator.max_length is 1000"),
        (("--retriever.irrelevant", "2"), "retriever.irrelevant is 2.0; give 0 to 1"),
        (("--data.evaluation", "None"), "data.evaluation is not given"),
        (("--dry-run",), "--dry-run plans RAG models"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_configs_that_cannot_run_are_refused(
    config: InstructionConfig, tmp_path: Path, capsys, arguments, told
) -> None:
    check_refused(config, tmp_path, capsys, told, *arguments)


def test_a_folder_that_somebody_changed_is_not_replaced(config: InstructionConfig, finished, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (copy / "generator" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: not written by a run, or changed since"):
        train_and_evaluate(dataclasses.replace(config, steps=31), copy)
