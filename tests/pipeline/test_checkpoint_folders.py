"""The towers of a workdir are replaced only if a run wrote them."""

import dataclasses
from pathlib import Path

import jax
import pytest

import bi_encoders
from rag_jax import hub
from rag_jax.config.config import Config
from rag_jax.contrastive import towers
from rag_jax.contrastive.towers import Towers
from rag_jax.errors import InputError
from rag_jax.pipeline import checkpoint_folders


@pytest.fixture
def loaded(towns: Config, tmp_path: Path) -> Towers:
    return towers.load(bi_encoders.config(towns, tmp_path))


def test_two_towers_are_two_folders_and_are_written_again(loaded: Towers, tmp_path: Path) -> None:
    assert checkpoint_folders.write_towers(tmp_path, loaded.checkpoints(loaded.params)) == [
        tmp_path / "towers/question",
        tmp_path / "towers/passage",
    ]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, loaded.params)
    checkpoint_folders.write_towers(tmp_path, loaded.checkpoints(doubled))
    found = hub.load_tower(tmp_path / "towers/passage")
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail("not written"), found.params, doubled.passage_tower)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["negatives.jsonl", "towers"]


def test_a_shared_tower_is_one_folder(loaded: Towers, tmp_path: Path) -> None:
    shared = loaded._replace(shares=True)
    assert checkpoint_folders.write_towers(tmp_path, shared.checkpoints(shared.params)) == [tmp_path / "towers"]
    assert hub.load_tower(tmp_path / "towers").config == loaded.question.checkpoint.config


def test_each_folder_says_how_questions_and_passages_are_read(loaded: Towers, tmp_path: Path) -> None:
    fed = loaded.question.checkpoint.input_format._replace(question="query: {question}")
    question = dataclasses.replace(loaded.question.checkpoint, input_format=fed)
    checkpoint_folders.write_towers(
        tmp_path, loaded._replace(question=loaded.question._replace(checkpoint=question)).checkpoints(loaded.params)
    )
    for name in ("question", "passage"):
        found = hub.load_tower(tmp_path / "towers" / name).input_format
        assert (found.passage, found.question) == ("{title}. {text}", "query: {question}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "question/config.json").write_text("{}"), "question/config.json: not written by a"),
        (lambda folder: (folder / "notes.txt").write_text("mine"), "notes.txt: not written by a run, or changed"),
        (lambda folder: (folder / "rag-jax.towers").unlink(), "towers: not written by a run"),
        (lambda folder: (folder / "rag-jax.towers").write_text("?"), "rag-jax.towers: damaged"),
    ],
)
def test_what_somebody_else_wrote_stays(loaded: Towers, tmp_path: Path, change, told: str) -> None:
    checkpoint_folders.write_towers(tmp_path, loaded.checkpoints(loaded.params))
    change(tmp_path / "towers")
    before = {path: path.read_bytes() for path in (tmp_path / "towers").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=told):
        checkpoint_folders.write_towers(tmp_path, loaded.checkpoints(loaded.params))
    assert before == {path: path.read_bytes() for path in (tmp_path / "towers").rglob("*") if path.is_file()}


def test_a_changed_byte_of_a_tower_is_noticed_where_it_is_loaded(loaded: Towers, tmp_path: Path) -> None:
    towers = tmp_path / "towers"
    checkpoint_folders.write_towers(tmp_path, loaded.checkpoints(loaded.params))
    weights = towers / "question" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        InputError, match=r"question/model\.safetensors: missing, or changed since a run wrote it; copy"
    ):
        hub.load_tower(towers / "question")
    hub.load_tower(towers / "passage")
    (towers / "rag-jax.towers").unlink()
    hub.load_tower(towers / "question")
