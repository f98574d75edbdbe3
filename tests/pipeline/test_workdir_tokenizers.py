"""The tokenizers that a workdir's parameters belong to: others are refused, and none is learnt anew."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from rag_jax import cli
from rag_jax.config.config import Config
from rag_jax.config.files import load_config, save_config
from rag_jax.data.tokenizers import fingerprint, train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.pipeline import workdir_tokenizers
from rag_jax.pipeline.assembly import load_bi_encoder
from rag_jax.rag import RAG
from rag_jax.training.run import fit, train_and_evaluate

TOKENIZER = "tokenizer.json"


@pytest.fixture
def workdir(trained, tmp_path: Path) -> Path:
    """A copy of the trained workdir, with the tower that it names."""
    config = load_config(trained[2] / "config.json")
    shutil.copytree(trained[2], tmp_path / "run")
    shutil.copytree(config.retriever.tower, tmp_path / "tower")
    moved = dataclasses.replace(config.retriever, tower=str(tmp_path / "tower"))
    save_config(dataclasses.replace(config, retriever=moved), tmp_path / "run" / "config.json")
    return tmp_path / "run"


def other_words(path: Path) -> None:
    """A tokenizer of the same size that was learnt from other texts."""
    train_generator_tokenizer(["violet orange crimson turquoise"] * 9, 360).tokenizer.save(str(path))


def swapped(path: Path) -> None:
    """The same words, two of them with each other's numbers."""
    told = json.loads(path.read_text())
    words = told["model"]["vocab"]
    words["red"], words["blue"] = words["blue"], words["red"]
    path.write_text(json.dumps(told))


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_leaves_the_fingerprints_of_what_it_reads_with(trained) -> None:
    rag, _, workdir = trained
    told = json.loads((workdir / "fingerprints.json").read_text())
    assert told["generator"] == fingerprint(rag.components.generator_tokenizer.tokenizer)
    assert told["question_tower"] == fingerprint(rag.components.bi_encoder.tokenizer)


def missing(workdir: Path) -> None:
    (workdir / TOKENIZER).unlink()


def all_missing(workdir: Path) -> None:
    missing(workdir)
    (workdir / "fingerprints.json").unlink()


def changed(workdir: Path) -> None:
    other_words(workdir / TOKENIZER)


def unproven(workdir: Path) -> None:
    (workdir / "fingerprints.json").unlink()


def of_the_tower(workdir: Path) -> None:
    swapped(workdir.parent / "tower" / TOKENIZER)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (missing, "tokenizer.json: missing, and the parameters there need it; copy it back"),
        (all_missing, "tokenizer.json: missing, and the parameters there need it; copy it back"),
        (changed, "tokenizer.json: not the one that the parameters there were trained with; copy it back"),
        (unproven, "fingerprints.json: no such file; copy it back"),
        (of_the_tower, "restore the tokenizer that"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_tokenizer_that_is_missing_or_another_is_refused(workdir: Path, capsys, spoil, what: str) -> None:
    """By whoever opens the workdir, and nothing is written."""
    spoil(workdir)
    before = contents(workdir)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["answer", "what colour is Norburg", "--workdir", str(workdir)])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert what in said
    assert said.count("\n") == 1
    with pytest.raises(InputError, match=re.escape(what)):  # it is at its end: only evaluated
        train_and_evaluate(load_config(workdir / "config.json"), workdir)
    assert contents(workdir) == before


def test_the_question_tower_s_tokenizer_is_compared_too(trained, workdir: Path) -> None:
    """Where the passages have a tower of their own, no index does."""
    rag = trained[0]
    of_the_tower(workdir)
    towers = load_bi_encoder(load_config(workdir / "config.json"))
    with pytest.raises(
        InputError, match=r"run: was trained with another tokenizer of the question tower; restore the tokenizer"
    ):
        workdir_tokenizers.check(towers, rag.components.generator_tokenizer, workdir)
    workdir_tokenizers.check(rag.components.bi_encoder, rag.components.generator_tokenizer, workdir)


def test_an_index_is_not_tokenised_for_a_workdir_by_another_tokenizer(workdir: Path, tmp_path, capsys) -> None:
    changed(workdir)
    config = load_config(workdir / "config.json")
    command = ["index", config.data.passages, "--out", tmp_path / "index", "--tower", tmp_path / "tower"]
    with pytest.raises(SystemExit):
        cli.main([*map(str, command), "--max-length", "16", "--generator", str(workdir)])
    assert "not the one that the parameters there were trained with" in capsys.readouterr().err


def test_a_run_does_not_start_from_parameters_of_another_vocabulary(towns: Config, workdir: Path, tmp_path) -> None:
    (tmp_path / "new").mkdir()
    other_words(tmp_path / "new" / TOKENIZER)
    data = dataclasses.replace(towns.data, long_questions="cut")  # which they are in other words
    generator = dataclasses.replace(towns.generator, max_target=16)  # so many tokens have the answers in other words
    started = dataclasses.replace(towns, data=data, generator=generator, start_from=workdir, steps=1)
    with pytest.raises(InputError, match="run: was trained with another tokenizer of the generator; "):
        train_and_evaluate(started, tmp_path / "new")
    assert not (tmp_path / "new" / "config.json").exists()


@pytest.mark.slow
def test_a_run_that_starts_from_another_reads_with_its_tokenizer(towns: Config, workdir: Path, tmp_path: Path) -> None:
    """Not with one that is learnt from texts of its own."""
    other = tmp_path / "train.jsonl"
    other.write_text('{"id": "q", "question": "violet", "answers": ["red"]}\n')
    config = dataclasses.replace(towns, data=dataclasses.replace(towns.data, train=other), start_from=workdir)
    rag = fit(dataclasses.replace(config, steps=1, batch_size=1), tmp_path / "new")
    there = RAG.from_workdir(workdir).components.generator_tokenizer.tokenizer
    assert fingerprint(rag.components.generator_tokenizer.tokenizer) == fingerprint(there)
