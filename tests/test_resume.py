"""A run is resumed with what it was begun with, by content; what does not matter to it may change, and is told."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer

import launch
import world
from rag_jax import hub
from rag_jax.config.config import Config, Watch
from rag_jax.corpus import read_passages
from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.index import building, updates
from rag_jax.index.engines.store_engines import add_bm25
from rag_jax.index.passage_tokenizer import PassageTokenizer
from rag_jax.index.store import add_tokens, open_store
from rag_jax.rag import RAG
from rag_jax.training import loop
from rag_jax.training.run import fit, train_and_evaluate
from rag_jax.training.workdir import LOCK
from suites import first, only


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, RAG, Path]:
    """A run of eight steps with checkpoints of the fourth and the last, all of it below one folder."""
    folder = tmp_path_factory.mktemp("resume")
    config = world.write(folder)
    data = dataclasses.replace(config.data, index=folder / "index")
    config = dataclasses.replace(config, data=data, steps=8, log_every=3, save_every=4)
    return config, fit(config, folder / "run"), folder


@pytest.fixture
def half(whole: tuple[Config, RAG, Path], tmp_path: Path) -> tuple[Config, Path]:
    """The same run, moved, as it was when it had done the fourth step: its config, and the folder of all of it."""
    config, _, folder = whole
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=lambda place, names: ["8"] if Path(place).name == "checkpoints" else [])
    data = dataclasses.replace(
        config.data,
        passages=moved / "passages.jsonl",
        train=moved / "train.jsonl",
        evaluation=moved / "test.jsonl",
        index=moved / "index",
    )
    retriever = dataclasses.replace(config.retriever, tower=str(moved / "tower"))
    return dataclasses.replace(config, data=data, retriever=retriever), moved


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def corpus(folder: Path, change=lambda passage: passage) -> list[Passage]:
    return [change(passage) for passage in read_passages(folder / "passages.jsonl")]


def rebuild(rag: RAG, folder: Path, passages: list[Passage], scale: float = 1.0) -> None:
    """The index built again, of these passages, with vectors so many times as long."""

    def scaled(params, tokens):
        return scale * tower(params, tokens)

    shutil.rmtree(folder / "index")
    encoder, tower = (
        rag.components.bi_encoder.required_passage_encoder,
        rag.components.bi_encoder.required_passage_encoder.tower,
    )
    building.build(
        folder / "index", passages, dataclasses.replace(encoder, tower=scaled), rag.components.passage_tokenizer
    )


@pytest.mark.extended
def test_what_does_not_matter_may_change_and_the_ending_is_the_same(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path], capsys: pytest.CaptureFixture
) -> None:
    _, rag, folder = whole
    changed, moved = half
    rebuild(rag, moved, corpus(moved))
    add_bm25(open_store(moved / "index", None, None))
    words = train_generator_tokenizer([passage.text for passage in corpus(moved)], 300)
    add_tokens(moved / "index", PassageTokenizer(words, 16))  # another generator's tokens
    os.utime(moved / "train.jsonl")
    vocabulary = (moved / "run" / "tokenizer.json").read_bytes()
    (moved / "run" / "tokenizer.json").unlink()  # learnt again, to the same
    changed = dataclasses.replace(changed, eval_every=4, watch=Watch(tensorboard=True))
    resumed = fit(changed, moved / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, rag.params)
    assert (moved / "run" / "tokenizer.json").read_bytes() == vocabulary
    lines = [json.loads(line) for line in (moved / "run" / "metrics.jsonl").read_text().splitlines()]
    as_before = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if "evaluation" not in line] == as_before
    said = capsys.readouterr().out
    assert f"data.train: {folder / 'train.jsonl'} before, {moved / 'train.jsonl'} now\n" in said
    assert "eval_every: None before, 4 now\n" in said
    assert "watch.tensorboard: False before, True now\n" in said


def other_answers(rag: RAG, folder: Path) -> None:
    text = (folder / "train.jsonl").read_text()
    (folder / "train.jsonl").write_text(text.replace('"red"', '"RED"'))
    assert len((folder / "train.jsonl").read_text()) == len(text)


def other_gold(rag: RAG, folder: Path) -> None:
    rows = [row for _, row in read_jsonl(folder / "train.jsonl")]
    rows[0]["positive_ids"], rows[1]["positive_ids"] = rows[1]["positive_ids"], rows[0]["positive_ids"]
    write_jsonl(folder / "train.jsonl", rows)


def other_passages(rag: RAG, folder: Path) -> None:
    changed = corpus(folder, lambda passage: passage._replace(text=passage.text.replace("red", "RED")))
    write_jsonl(folder / "passages.jsonl", (passage._asdict() for passage in changed))
    rebuild(rag, folder, changed)


def other_vectors(rag: RAG, folder: Path) -> None:
    rebuild(rag, folder, corpus(folder), scale=2.0)


def removed_passage(rag: RAG, folder: Path) -> None:
    updates.remove(folder / "index", [corpus(folder)[-1].id])
    write_jsonl(folder / "passages.jsonl", (passage._asdict() for passage in corpus(folder)[:-1]))


def other_words(rag: RAG, folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "run" / "tokenizer.json"))
    tokenizer.add_tokens(["Norburg"])
    tokenizer.save(str(folder / "run" / "tokenizer.json"))


def lost_words(rag: RAG, folder: Path) -> None:
    """They would be learnt anew, and of other questions."""
    (folder / "run" / "tokenizer.json").unlink()
    other_answers(rag, folder)


CHANGES = {
    "training questions": (other_answers, r"training questions \(.*train\.jsonl\)"),
    "gold passages": (other_gold, r"training questions \(.*train\.jsonl\)"),
    "passages": (other_passages, r"passages \(.*index\)"),
    "vectors": (other_vectors, r"passage vectors \(.*index\)"),
    "removed passages": (removed_passage, r"passages \(.*index\)"),
    "vocabulary": (other_words, r"generator's tokenizer"),
    "lost vocabulary": (lost_words, r"training questions \(.*train\.jsonl\), generator's tokenizer"),
}


@pytest.mark.parametrize("what", first(1, ["passages", "vocabulary"]))
def test_a_finished_run_is_evaluated_with_what_it_was_trained_with(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path], what: str
) -> None:
    config, moved = half
    shutil.copytree(whole[2] / "run" / "checkpoints" / "8", moved / "run" / "checkpoints" / "8")
    change, told = CHANGES[what]
    change(whole[1], moved)
    told = f"run: trained with other {told}; give those of then"
    with pytest.raises(InputError, match=told if what == "passages" else r"tokenizer\.json: not the one that "):
        train_and_evaluate(config, moved / "run")


def test_a_finished_run_is_evaluated_with_the_networks_it_was_trained_with(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path]
) -> None:
    config, moved = half
    shutil.copytree(whole[2] / "run" / "checkpoints" / "8", moved / "run" / "checkpoints" / "8")
    tower = hub.load_tower(moved / "tower")
    hub.save(moved / "other", dataclasses.replace(tower, params=jax.tree.map(lambda leaf: 2 * leaf, tower.params)))
    same = dataclasses.replace(config.retriever, passage_tower=config.retriever.tower)
    fit(dataclasses.replace(config, retriever=same), moved / "run")
    other = dataclasses.replace(same, tower=str(moved / "other"))
    with pytest.raises(
        InputError, match=r"run: trained with other pretrained networks \(.*other\); give those of then"
    ):
        fit(dataclasses.replace(config, retriever=other), moved / "run")


@pytest.mark.parametrize("what", only(["training questions", "vectors", "removed passages"], CHANGES))
def test_what_it_was_trained_on_must_be_the_same(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path], what: str
) -> None:
    config, moved = half
    change, told = CHANGES[what]
    change(whole[1], moved)
    before = tree(moved)
    remedy = "give those of then, or begin another --workdir, which may start_from this one"
    with pytest.raises(InputError, match=f"run: trained with other {told}; {remedy}$"):
        fit(config, moved / "run")
    assert tree(moved) == before


@pytest.mark.slow
def test_the_run_that_it_started_from_must_be_the_same_or_gone(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path]
) -> None:
    config, moved = half
    started = dataclasses.replace(config, start_from=moved / "run", steps=2)
    fit(started, moved / "second")
    shutil.copytree(whole[2] / "run" / "checkpoints" / "8", moved / "run" / "checkpoints" / "8")  # it was trained on
    longer = dataclasses.replace(started, steps=3)
    with pytest.raises(InputError, match=r"second: trained with other parameters to start from \(.*run\); give those"):
        fit(longer, moved / "second")
    shutil.rmtree(moved / "run" / "checkpoints")
    fit(longer, moved / "second")


@pytest.mark.slow
def test_more_steps_go_on_by_their_own_schedule(half: tuple[Config, Path], capsys: pytest.CaptureFixture) -> None:
    config, moved = half
    longer = dataclasses.replace(config, steps=16, log_every=1)
    fit(longer, moved / "run")
    said = capsys.readouterr().out
    assert "steps: 8 before, 16 now; the learning rate decays towards the new end from here on" in said
    assert "log_every: 3 before, 1 now\n" in said
    rates = {}
    for line in (moved / "run" / "metrics.jsonl").read_text().splitlines():
        rates[json.loads(line)["step"]] = json.loads(line)["learning_rate"]
    peak, warmup = config.optimizer.learning_rate, config.optimizer.warmup
    assert list(rates) == [3, *range(5, 17)]
    for step, told in rates.items():  # of the step's beginning
        expected = min((step - 1) / warmup, (longer.steps - (step - 1)) / (longer.steps - warmup))
        assert told == pytest.approx(peak * expected, rel=1e-5)


@pytest.mark.extended
def test_a_broken_checkpoint_is_named_and_the_one_before_serves(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path], capsys: pytest.CaptureFixture
) -> None:
    config, moved = half
    newest = moved / "run" / "checkpoints" / "8"
    shutil.copytree(whole[2] / "run" / "checkpoints" / "8", newest)
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert RAG.from_workdir(moved / "run").answer(["what colour is Norburg"])
    assert "checkpoints/8: cannot be restored (" in capsys.readouterr().err
    again = fit(config, moved / "run")
    assert "; resuming from step 4" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, again.params, whole[1].params)


def test_fewer_steps_are_another_run(half: tuple[Config, Path]) -> None:
    config, moved = half
    before = tree(moved)
    with pytest.raises(InputError, match=r"another config \(steps was 8, is 6\); set it back, or choose another --wo"):
        fit(dataclasses.replace(config, steps=6), moved / "run")
    assert tree(moved) == before


@pytest.mark.parametrize("name", ["config.json", "results.json", "metrics.jsonl", "checkpoints/7/model.bin"])
def test_a_folder_of_somebody_elses_is_left_alone(towns: Config, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"model_type": "bart"}')
    before = tree(tmp_path)
    with pytest.raises(InputError, match="choose another --workdir, or move it away"):
        train_and_evaluate(towns, tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.extended
def test_while_one_run_trains_no_other_does(
    whole: tuple[Config, RAG, Path], half: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, moved = half
    chance, real, refused = random.Random(0), loop.step_inputs, []

    def besieged(*arguments, **options):
        for batch in real(*arguments, **options):
            if chance.random() < 0.5:
                with pytest.raises(InputError, match=f"run: process {os.getpid()} on .* trains in it; wait until"):
                    fit(config, moved / "run")
                refused.append(batch)
            yield batch

    monkeypatch.setattr(loop, "step_inputs", besieged)
    fit(config, moved / "run")
    assert refused
    assert (moved / "run" / "metrics.jsonl").read_bytes() == (whole[2] / "run" / "metrics.jsonl").read_bytes()
    assert not (moved / "run" / LOCK).exists()


@pytest.mark.slow
def test_fifty_interleavings_of_two_runs_end_as_one(whole: tuple[Config, RAG, Path], tmp_path: Path) -> None:
    """Two commands are started on one workdir at random moments, and one of them is killed in half of the trials."""
    config, rag, folder = whole
    given, chance, refused = launch.write(dataclasses.replace(config, save_every=2), tmp_path), random.Random(0), 0
    for trial in range(50):
        workdir = tmp_path / str(trial)
        one = launch.start(given, "--workdir", workdir)
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(chance.uniform(0, 15))
        two = launch.start(given, "--workdir", workdir)
        if chance.random() < 0.5:
            try:
                one.wait(chance.uniform(0, 8))
            except subprocess.TimeoutExpired:
                one.kill()
        for each in (one, two):
            said = each.communicate(timeout=900)[1]
            assert each.returncode in (0, 2, -9), said
            if each.returncode == 2:
                refused += 1
                assert "trains in it; wait until it is done, or choose another --workdir" in said
        launch.ended(launch.start(given, "--workdir", workdir))
        assert (workdir / "metrics.jsonl").read_bytes() == (folder / "run" / "metrics.jsonl").read_bytes()
        jax.tree.map(np.testing.assert_array_equal, RAG.from_workdir(workdir).params, rag.params)
        shutil.rmtree(workdir)
    assert refused > 5
