"""Runs that train both towers: what they learn, how they are resumed, and which index answers afterwards."""

import dataclasses
import json
import shutil
from pathlib import Path

import datasets
import jax
import numpy as np
import orbax.checkpoint as ocp
import pyarrow as pa
import pytest

import world
from rag_jax import cli, hub
from rag_jax.config.config import Config, Mesh
from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.evaluation import evaluate
from rag_jax.evaluation.baselines import with_pretrained_tower
from rag_jax.index.store import open_store
from rag_jax.pipeline.trained import load_components, restore_params
from rag_jax.rag import RAG
from rag_jax.training.run import fit, train_and_evaluate, untrained

pytestmark = pytest.mark.extended  # one more training each; every day `trained` stands for them

STEPS, EVERY = 8, 4
LEFT_OUT = shutil.ignore_patterns(str(STEPS), "refreshed_index", "results.json")


def refreshing(config: Config, **fields) -> Config:
    retriever = dataclasses.replace(config.retriever, train_passages=True, refresh_every=EVERY)
    return dataclasses.replace(config, retriever=retriever, **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict, Path]:
    """A short run over an index outside its workdir, its results, and the folder of all of it."""
    folder = tmp_path_factory.mktemp("refresh")
    config = world.write(folder)
    data = dataclasses.replace(config.data, index=folder / "shared_index")
    config = refreshing(config, data=data, steps=STEPS, log_every=4, save_every=4, eval_every=4)
    _, results = train_and_evaluate(config, folder / "run")
    return config, results, folder


@pytest.fixture
def begun(whole: tuple[Config, dict, Path], tmp_path: Path) -> Path:
    """That run, before its second checkpoint."""
    shutil.copytree(whole[2] / "run", tmp_path / "run", ignore=LEFT_OUT)
    return tmp_path / "run"


def lines(workdir: Path) -> list[dict]:
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in read if "evaluation" not in line]


def checkpoint(workdir: Path) -> list[dict]:
    """The parameters and everything else of the last checkpoint, the index included, as stored."""
    with ocp.StandardCheckpointer() as reader:
        folder = workdir.absolute() / "checkpoints" / str(STEPS)
        return [reader.restore(folder / name) for name in ("params", "rest")]


def vectors(folder: Path) -> np.ndarray:
    return open_store(folder, None, None).passage_vectors.whole


def test_staleness_is_told(whole: tuple[Config, dict, Path]) -> None:
    last = lines(whole[2] / "run")[-1]  # the mean over steps 5 to 8, in which the rows of each are of the last round
    assert (last["staleness_oldest"], last["staleness_mean"]) == (EVERY - 1, (EVERY - 1) / 2)


def test_the_index_that_it_started_from_stays_as_it_is(whole: tuple[Config, dict, Path]) -> None:
    config = whole[0]
    assert config.data.index is not None
    store = open_store(config.data.index, None, None)
    assert store.manifest is not None
    assert [change["change"] for change in store.manifest.changes] == ["build", "tokenise"][: store.manifest.version]


def test_answers_come_from_the_index_of_the_trained_tower(whole: tuple[Config, dict, Path]) -> None:
    _, _, folder = whole
    rag = RAG.from_workdir(folder / "run")
    store, encoder = rag.components.store, rag.components.bi_encoder.required_passage_encoder
    assert store.folder == folder / "run" / "refreshed_index"
    jax.tree.map(np.testing.assert_array_equal, encoder.params, rag.params.passage_tower)
    np.testing.assert_array_equal(store.passage_vectors.whole, encoder.encode_passages(list(store.passages)))
    assert not np.allclose(vectors(folder / "shared_index"), store.passage_vectors.whole, atol=1e-3)
    assert rag.answer("what colour is Norburg").passages


def test_both_trained_towers_are_saved_and_the_index_names_them(
    whole: tuple[Config, dict, Path], tmp_path: Path, capsys
) -> None:
    _, _, folder = whole
    rag, towers = RAG.from_workdir(folder / "run"), folder / "run" / "towers"
    for side, params in (("question", rag.params.question_tower), ("passage", rag.params.passage_tower)):
        jax.tree.map(np.testing.assert_array_equal, hub.load_tower(towers / side).params, params)
    index = tmp_path / "index"
    shutil.copytree(folder / "run" / "refreshed_index", index)
    (tmp_path / "more.jsonl").write_text('{"id": "new", "title": "Zedburg", "text": "Zedburg is mauve ."}\n')
    cli.main(["index", str(tmp_path / "more.jsonl"), "--out", str(index), "--change", "add"])
    store, encoder = open_store(index, None, None), rag.components.bi_encoder.required_passage_encoder
    np.testing.assert_allclose(
        store.passage_vectors.whole[-1:], encoder.encode_passages([store.passages[-1]]), rtol=1e-5
    )
    capsys.readouterr()
    assert store.manifest is not None
    assert store.manifest.question_fingerprint is not None  # which the search compares
    cli.main(["search", "what colour is Norburg", "--index", str(index)])
    first = capsys.readouterr().out.split("\n\n")[0]
    assert rag.search("what colour is Norburg")[0].title in first


def test_an_index_that_does_not_know_its_passage_tower_is_refused(
    whole: tuple[Config, dict, Path], tmp_path: Path
) -> None:
    config = whole[0]
    assert config.data.index is not None
    store = open_store(config.data.index, None, None)
    columns = {name: [getattr(passage, name) for passage in store.passages] for name in ("id", "title", "text")}
    made = pa.table({**columns, "embeddings": pa.array(store.passage_vectors.whole.tolist(), pa.list_(pa.float32()))})
    datasets.Dataset(made).save_to_disk(str(tmp_path / "index"))
    data = dataclasses.replace(config.data, passages=None, index=tmp_path / "index")
    with pytest.raises(InputError, match=r"index: does not say which passage tower encoded it, as .*: rag-jax index$"):
        train_and_evaluate(dataclasses.replace(config, data=data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_towers_that_are_gone_are_written_again(whole: tuple[Config, dict, Path], tmp_path: Path) -> None:
    config, _, folder = whole
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("towers"))
    fit(config, tmp_path / "run")
    written = hub.load_tower(tmp_path / "run" / "towers" / "passage")
    jax.tree.map(np.testing.assert_array_equal, written.params, hub.load_tower(folder / "run/towers/passage").params)


def test_towers_that_somebody_changed_are_not_replaced(whole: tuple[Config, dict, Path], tmp_path: Path) -> None:
    config, _, folder = whole
    shutil.copytree(folder / "run", tmp_path / "run", ignore=LEFT_OUT)
    (tmp_path / "run" / "towers" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"towers/notes\.txt: not written by a run"):
        fit(config, tmp_path / "run")


def test_an_interrupted_run_ends_as_one_that_was_not(whole: tuple[Config, dict, Path], begun: Path) -> None:
    config, _, folder = whole
    fit(config, begun)
    jax.tree.map(np.testing.assert_array_equal, checkpoint(begun), checkpoint(folder / "run"))
    assert lines(begun) == lines(folder / "run")
    np.testing.assert_array_equal(vectors(begun / "refreshed_index"), vectors(folder / "run" / "refreshed_index"))


def test_a_run_that_has_not_ended_answers_with_the_vectors_of_its_checkpoint(
    whole: tuple[Config, dict, Path], begun: Path, capsys
) -> None:
    config, _, folder = whole
    rag = RAG.from_workdir(begun)
    told = "run: goes on, or was interrupted; searched are the vectors of step 4, the oldest encoded 4 steps earlier;"
    assert told in capsys.readouterr().err
    store, encoder = rag.components.store, rag.components.bi_encoder.required_passage_encoder
    with ocp.StandardCheckpointer() as reader:
        index = reader.restore((begun / "checkpoints" / "4" / "rest").absolute())["refreshed"]
    np.testing.assert_array_equal(store.passage_vectors.whole, index["vectors"][: store.size])
    jax.tree.map(np.testing.assert_array_equal, encoder.params, rag.params.passage_tower)

    assert config.data.evaluation is not None
    judged = evaluate.scores(rag, read_questions(config.data.evaluation))
    logged = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    in_training = next(line for line in logged if line["step"] == 4 and "evaluation" in line)["evaluation"]
    assert {name: judged[name] for name in in_training} == pytest.approx(in_training, rel=1e-5)


def test_no_passages_but_those_of_the_run_stand_beside_its_vectors(
    whole: tuple[Config, dict, Path], begun: Path, tmp_path: Path
) -> None:
    config = whole[0]
    assert config.data.index is not None
    shutil.copytree(config.data.index, tmp_path / "index")
    saved = json.loads((begun / "config.json").read_text())
    saved["data"]["index"] = str(tmp_path / "index")
    (begun / "config.json").write_text(json.dumps(saved))
    assert len(RAG.from_workdir(begun).components.store) > 0
    first = open_store(tmp_path / "index", None, None).passages[0]
    (tmp_path / "changed.jsonl").write_text(json.dumps(first._replace(text="Nothing of it .")._asdict()) + "\n")
    cli.main(["index", str(tmp_path / "changed.jsonl"), "--out", str(tmp_path / "index"), "--change", "replace"])
    with pytest.raises(InputError, match=r"index: other passages than when .*run was trained; put that index back"):
        RAG.from_workdir(begun)


def test_an_older_index_of_a_run_that_goes_on_is_not_searched_by_its_newer_tower(
    whole: tuple[Config, dict, Path], tmp_path: Path
) -> None:
    config, _, folder = whole
    longer = tmp_path / "run"
    shutil.copytree(folder / "run", longer, ignore=shutil.ignore_patterns("results.json"))
    shutil.move(longer / "refreshed_index", tmp_path / "kept")
    fit(dataclasses.replace(config, steps=STEPS + 4, eval_every=None), longer)
    shutil.rmtree(longer / "refreshed_index")
    shutil.move(tmp_path / "kept", longer / "refreshed_index")
    assert RAG.from_workdir(longer).components.store.folder is None
    with pytest.raises(InputError, match="refreshed_index: built by a tower with fingerprint"):
        RAG.from_workdir(longer, longer / "refreshed_index")


def test_a_checkpoint_that_was_replaced_while_it_was_read_is_not_mixed_with_the_next(
    whole: tuple[Config, dict, Path], begun: Path
) -> None:
    _, _, folder = whole
    components = load_components(begun)
    shutil.copytree(folder / "run" / "checkpoints" / "8", begun / "checkpoints" / "8")
    params = restore_params(begun, components)
    encoder = components.bi_encoder.required_passage_encoder
    jax.tree.map(np.testing.assert_array_equal, encoder.params, params.passage_tower)
    shutil.rmtree(begun / "checkpoints" / "4")
    with pytest.raises(InputError, match="the checkpoint of step 4 has been replaced while it was read; ask again"):
        restore_params(begun, components)


def test_an_index_that_was_not_written_is_written_by_the_same_command(
    whole: tuple[Config, dict, Path], tmp_path: Path
) -> None:
    config, results, folder = whole
    shutil.copytree(folder / "run", tmp_path / "run", ignore=shutil.ignore_patterns("refreshed_index"))
    _, again = train_and_evaluate(config, tmp_path / "run")
    assert again == results


def test_two_devices_have_the_losses_of_one(whole: tuple[Config, dict, Path], tmp_path: Path) -> None:
    config, _, folder = whole
    fit(dataclasses.replace(config, mesh=Mesh(fsdp=2), eval_every=None), tmp_path / "run")
    for found, expected in zip(lines(tmp_path / "run"), lines(folder / "run"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["staleness_mean"] == expected["staleness_mean"]


def test_a_run_that_starts_from_it_has_its_towers_and_fresh_vectors(
    whole: tuple[Config, dict, Path], tmp_path: Path
) -> None:
    config, _, folder = whole
    started = dataclasses.replace(config, start_from=folder / "run", steps=1, eval_every=None)
    still = dataclasses.replace(started.optimizer, tower_learning_rate=0.0)
    fit(dataclasses.replace(started, optimizer=still), tmp_path / "run")
    found = vectors(tmp_path / "run" / "refreshed_index")
    np.testing.assert_allclose(found, vectors(folder / "run" / "refreshed_index"), rtol=1e-5, atol=1e-5)
    with ocp.StandardCheckpointer() as reader:
        index = reader.restore((tmp_path / "run" / "checkpoints" / "1" / "rest").absolute())["refreshed"]
    np.testing.assert_allclose(index["vectors"][: len(found)], found, rtol=1e-4, atol=1e-4)
    frozen = dataclasses.replace(started.retriever, train_passages=False, refresh_every=None)
    with pytest.raises(InputError, match=r"run: its passage tower is trained; give retriever\.train_passages here too"):
        fit(dataclasses.replace(started, retriever=frozen), tmp_path / "other")


def test_one_tower_is_not_put_back_without_the_other(whole: tuple[Config, dict, Path], tmp_path: Path) -> None:
    """The question tower as it was before does not belong to the index of the trained passage tower."""
    config, _, folder = whole
    with pytest.raises(
        InputError, match="of the trained passage tower, and does not fit the question tower before training"
    ):
        with_pretrained_tower(RAG.from_workdir(folder / "run"))
    with pytest.raises(InputError, match="is trained, and the index here is not its own; load that workdir instead"):
        untrained(dataclasses.replace(config, start_from=folder / "run"), tmp_path / "run")


@pytest.mark.slow
def test_a_passage_tower_that_learns_finds_what_a_frozen_one_hides(towns: Config, tmp_path: Path) -> None:
    """With a question tower whose LayerNorms alone are trained, and by the same number of steps."""
    retriever = dataclasses.replace(towns.retriever, train=("norm",))
    frozen = dataclasses.replace(towns, retriever=retriever, steps=120)
    _, without = train_and_evaluate(frozen, tmp_path / "frozen")
    _, trained = train_and_evaluate(refreshing(frozen), tmp_path / "trained")
    assert trained["recall@1_before"] == without["recall@1_before"]
    assert trained["recall@1"] > without["recall@1"] + 0.2
