"""`rag-jax train` on the config of a bi-encoder: trained, scored, saved, resumed, and used by a RAG model."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import bi_encoders
import world
from bi_encoders import params, same
from rag_jax import cli
from rag_jax.commands.query_vectors import question_encoder
from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.config.files import load_config, load_config_of
from rag_jax.contrastive import run
from rag_jax.contrastive.run import train_and_evaluate
from rag_jax.data.jsonl import read_jsonl, write_jsonl
from rag_jax.errors import InputError
from rag_jax.index.store import open_store
from rag_jax.pipeline.assembly import load_bi_encoder
from rag_jax.training.preemption import PreemptionHandler


@pytest.fixture(scope="module")
def config(towns: Config, tmp_path_factory: pytest.TempPathFactory) -> ContrastiveConfig:
    return bi_encoders.config(towns, tmp_path_factory.mktemp("contrastive"))


@pytest.fixture(scope="module")
def finished(config: ContrastiveConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    return bi_encoders.finished(config, tmp_path_factory.mktemp("finished") / "run")


def test_it_learns_to_find_the_town_that_is_asked_about(finished: tuple[Path, dict]) -> None:
    workdir, results = finished
    found = bi_encoders.losses(workdir)
    assert found[-1] < found[0] / 2
    assert results["recall@1"] > 0.9
    assert json.loads((workdir / "results.json").read_text()) == results
    assert {"recall@1_bm25", "mrr", "answer_recall@5", "train_seconds"} <= set(results)


def test_the_metrics_name_loss_accuracy_and_gradient(finished: tuple[Path, dict]) -> None:
    rows = [row for _, row in read_jsonl(finished[0] / "metrics.jsonl")]
    assert [row["step"] for row in rows] == list(range(2, 41, 2))
    assert all({"loss", "accuracy", "grad_norm", "skipped", "learning_rate"} <= set(row) for row in rows)
    assert all(0 <= row["accuracy"] <= 1 for row in rows)


def test_both_towers_are_saved_and_differ(config: ContrastiveConfig, finished: tuple[Path, dict]) -> None:
    workdir, _ = finished
    question, passage = (params(workdir / "towers" / name) for name in ("question", "passage"))
    start = params(Path(config.retriever.tower))
    assert not same(question, start)
    assert not same(passage, start)
    assert not same(question, passage)


def test_a_rag_model_opens_its_towers_and_its_index(towns: Config, finished: tuple[Path, dict]) -> None:
    workdir, _ = finished
    towers = workdir / "towers"
    retriever = dataclasses.replace(
        towns.retriever,
        tower=str(towers / "question"),
        passage_tower=str(towers / "passage"),
        vector_norm=None,
        passage_template=None,
    )
    bi_encoder = load_bi_encoder(dataclasses.replace(towns, retriever=retriever))
    store = open_store(workdir / "index", bi_encoder.passage_encoder, None)
    passages = list(store.passages)[:5]
    again = bi_encoder.required_passage_encoder.encode_passages(passages)
    np.testing.assert_allclose(again, store.passage_vectors[np.arange(5)], rtol=1e-5, atol=1e-6)


def test_its_index_knows_the_tower_that_reads_questions(finished: tuple[Path, dict], tmp_path: Path) -> None:
    """Another in its place is refused, wherever it lies."""
    store, moved = open_store(finished[0] / "index", None, None), tmp_path / "question"
    shutil.copytree(finished[0] / "towers" / "question", moved)
    found = store.manifest
    assert found is not None
    assert found.tower["question_source"] == str(finished[0] / "towers" / "question")
    here = dataclasses.replace(found, tower=found.tower | {"question_source": str(moved)})
    store = dataclasses.replace(store, manifest=here)
    vectors = question_encoder(store)(["what colour is Norburg"])
    world.change_tower(moved)
    told = rf"question: another tower than when .*{finished[0].name}/index was built; build the index again, or name"
    with pytest.raises(InputError, match=told):
        question_encoder(store)
    assert not np.allclose(question_encoder(store, str(moved))(["what colour is Norburg"]), vectors)


def test_a_finished_run_is_scored_again_without_training(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, results = finished
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    monkeypatch.setattr(run, "train", None)
    monkeypatch.setattr(run.building, "build", None)
    found = train_and_evaluate(dataclasses.replace(config, steps=40), copy)
    assert found is not None
    assert found.results == results


def test_a_finished_run_of_another_corpus_is_refused(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    assert config.data.passages is not None
    rows = [row for _, row in read_jsonl(config.data.passages)]
    write_jsonl(tmp_path / "passages.jsonl", [rows[0] | {"text": "something else"}, *rows[1:]])
    other = dataclasses.replace(config.data, passages=tmp_path / "passages.jsonl")
    workdir, before = finished[0], (finished[0] / "results.json").read_bytes()
    with pytest.raises(InputError, match=r"trained with other passages .*passages\.jsonl\); give those of then"):
        train_and_evaluate(dataclasses.replace(config, data=other, steps=40), workdir)
    assert (workdir / "results.json").read_bytes() == before


@pytest.mark.extended
def test_an_interrupted_run_goes_on_to_the_same_parameters(
    config: ContrastiveConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    train_and_evaluate(config, whole)
    with monkeypatch.context() as patched:
        patched.setattr(PreemptionHandler, "after", lambda self, step: step == 3)
        with pytest.raises(SystemExit):
            train_and_evaluate(config, half)
    assert not (half / "towers").exists()
    train_and_evaluate(config, half)
    for name in ("question", "passage"):
        assert same(params(whole / "towers" / name), params(half / "towers" / name))
    assert (whole / "metrics.jsonl").read_bytes() == (half / "metrics.jsonl").read_bytes()


@pytest.mark.extended
def test_a_run_may_be_made_longer(config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    before = params(copy / "towers" / "question")
    found = train_and_evaluate(dataclasses.replace(config, steps=42), copy)
    assert found is not None
    assert found.results["steps"] == 42
    assert not same(params(copy / "towers" / "question"), before)


@pytest.mark.extended
def test_an_index_that_was_changed_is_neither_scored_nor_replaced(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    cli.main(["index", "--out", str(copy / "index"), "--remove", "Norburg"])
    for steps, told in ((40, "holds other passages than the run was trained on"), (42, "built or changed by rag-jax")):
        with pytest.raises(InputError, match=rf"index: {told}.*; move it away"):
            train_and_evaluate(dataclasses.replace(config, steps=steps), copy)
    assert len(open_store(copy / "index", None, None)) == 255
    assert json.loads((copy / "results.json").read_text()) == finished[1]


@pytest.fixture(scope="module")
def plain(config: ContrastiveConfig, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run without further options."""
    workdir = tmp_path_factory.mktemp("plain") / "run"
    train_and_evaluate(config, workdir)
    return bi_encoders.losses(workdir)


@pytest.mark.extended
@pytest.mark.parametrize(
    "changes", [{"symmetric": True}, {"log_q": True}, {"widths": (8, 32)}, {"false_negatives": "answer"}], ids=str
)
def test_every_option_changes_the_loss(
    config: ContrastiveConfig, plain: list[float], tmp_path: Path, changes: dict
) -> None:
    changed = dataclasses.replace(config, contrastive=dataclasses.replace(config.contrastive, **changes))
    train_and_evaluate(changed, tmp_path / "run")
    assert np.isfinite(bi_encoders.losses(tmp_path / "run")).all()
    assert abs(bi_encoders.losses(tmp_path / "run")[0] - plain[0]) > 1e-3


@pytest.mark.extended
def test_chunks_change_nothing_but_memory(config: ContrastiveConfig, plain: list[float], tmp_path: Path) -> None:
    chunked = dataclasses.replace(config, contrastive=dataclasses.replace(config.contrastive, chunk=4))
    train_and_evaluate(chunked, tmp_path / "chunked")
    np.testing.assert_allclose(plain, bi_encoders.losses(tmp_path / "chunked"), rtol=1e-4)


def with_scores(config: ContrastiveConfig, path: Path, factor: float = 1.0) -> ContrastiveConfig:
    """The config with Margin-MSE, and a teacher that tells every negative apart from the gold passage by 20."""
    assert config.data.negatives is not None
    lines = [row for _, row in read_jsonl(config.data.negatives)]
    for line in lines:
        line["scores"], line["positive_score"] = [-10.0 * factor] * len(line["negative_ids"]), 10.0 * factor
    write_jsonl(path, lines)
    contrast = dataclasses.replace(config.contrastive, margin_mse=1.0)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, negatives=path), contrastive=contrast)


@pytest.mark.extended
def test_it_learns_the_margins_of_a_teacher(config: ContrastiveConfig, tmp_path: Path) -> None:
    scored = dataclasses.replace(with_scores(config, tmp_path / "negatives.jsonl"), steps=40)
    train_and_evaluate(scored, tmp_path / "run")
    course = bi_encoders.losses(tmp_path / "run")
    assert course[0] > 100, "margins of 0 against margins of 20"
    assert course[-1] < course[0] / 2


@pytest.mark.extended
def test_other_scores_are_no_resumption(config: ContrastiveConfig, tmp_path: Path) -> None:
    path = tmp_path / "negatives.jsonl"
    scored = dataclasses.replace(with_scores(config, path), steps=2)
    train_and_evaluate(scored, tmp_path / "run")
    changed = dataclasses.replace(with_scores(config, path, factor=2.0), steps=3)
    with pytest.raises(InputError, match="hard negatives"):
        train_and_evaluate(changed, tmp_path / "run")


@pytest.mark.extended
def test_the_command_prints_scores_and_the_next_command(config: ContrastiveConfig, tmp_path: Path, capsys) -> None:
    written = tmp_path / "dpr.py"
    written.write_text(
        "from pathlib import Path, PosixPath\n"
        "from rag_jax.config.config import Compute, Mesh, Watch\n"
        "from rag_jax.config.contrastive import *\n"
        f"config = {config!r}\n"
    )
    workdir = tmp_path / "run"
    cli.main(["train", str(written), "--workdir", str(workdir), "--steps", "2", "--optimizer.learning-rate", "1e-3"])
    printed = capsys.readouterr().out
    assert "this model" in printed
    assert "BM25" in printed
    assert f'search "YOUR QUESTION" --index {workdir / "index"} --tower {workdir / "towers/question"}' in printed
    saved = load_config_of(ContrastiveConfig, workdir / "config.json")
    assert (saved.steps, saved.optimizer.learning_rate) == (2, 1e-3)
    cli.main(
        [
            "search",
            "what colour is Norburg",
            "--index",
            str(workdir / "index"),
            "--tower",
            str(workdir / "towers/question"),
        ]
    )
    assert "Norburg" in capsys.readouterr().out


def test_it_is_no_model_that_answers(finished: tuple[Path, dict]) -> None:
    with pytest.raises(InputError, match=r"of a bi-encoder, which answers no questions; name its towers: .*/towers"):
        load_config(finished[0] / "config.json")


def changed_questions(config: ContrastiveConfig, folder: Path, change) -> ContrastiveConfig:
    assert config.data.train is not None
    rows = [change(row) for _, row in read_jsonl(config.data.train)]
    write_jsonl(folder / "questions.jsonl", rows)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train=folder / "questions.jsonl"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda row: {key: row[key] for key in row if key != "positive_ids"}, "names no gold passage of the corpus"),
        (lambda row: row | {"positive_ids": ["nowhere"]}, "none of the .* positive_ids .* is a passage of the index"),
    ],
)
def test_questions_that_cannot_be_trained_on_are_refused(
    config: ContrastiveConfig, tmp_path: Path, change, told: str
) -> None:
    changed = changed_questions(config, tmp_path, change)
    with pytest.raises(InputError, match=told):
        train_and_evaluate(changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_questions_of_one_passage_need_hard_negatives(config: ContrastiveConfig, tmp_path: Path) -> None:
    changed = changed_questions(config, tmp_path, lambda row: row | {"positive_ids": ["Norburg"]})
    data, loss = dataclasses.replace(changed.data, negatives=None), changed.contrastive
    alone = dataclasses.replace(changed, data=data, contrastive=dataclasses.replace(loss, hard_negatives=0))
    with pytest.raises(InputError, match="all training questions have the same gold passage, which leaves nothing to"):
        train_and_evaluate(alone, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_hard_negatives_must_be_given(config: ContrastiveConfig, tmp_path: Path) -> None:
    without = dataclasses.replace(config, data=dataclasses.replace(config.data, negatives=None))
    with pytest.raises(InputError, match=r"hard_negatives is 1, but no question has any; name a file of them"):
        train_and_evaluate(without, tmp_path / "run")


@pytest.mark.extended
def test_negatives_may_be_those_of_the_batch_alone(config: ContrastiveConfig, tmp_path: Path, capsys) -> None:
    in_batch = dataclasses.replace(
        config, contrastive=dataclasses.replace(config.contrastive, hard_negatives=0), steps=2
    )
    train_and_evaluate(in_batch, tmp_path / "named")
    assert f"data.negatives, {config.data.negatives}, is not read" in capsys.readouterr().err
    without = dataclasses.replace(in_batch, data=dataclasses.replace(config.data, negatives=None))
    train_and_evaluate(without, tmp_path / "run")
    assert "not read" not in capsys.readouterr().err


@pytest.mark.extended
def test_towers_that_somebody_changed_are_not_replaced(
    config: ContrastiveConfig, finished: tuple[Path, dict], tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    (copy / "towers" / "question" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: not written by a run, or changed since"):
        train_and_evaluate(dataclasses.replace(config, steps=42), copy)
    assert (copy / "towers" / "question" / "notes.txt").read_text() == "mine"
