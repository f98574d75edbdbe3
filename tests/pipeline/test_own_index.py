"""The index that a run builds in its workdir replaces none but one of a run."""

import dataclasses
from pathlib import Path

import pytest

from index_commands import SMALL
from rag_jax.cli import main
from rag_jax.config.config import Config
from rag_jax.corpus.passage import Passage
from rag_jax.errors import InputError
from rag_jax.index import building, manifest, updates
from rag_jax.index.encoder import TextEncoder
from rag_jax.pipeline import own_index
from rag_jax.pipeline.assembly import load_bi_encoder

PASSAGES = [Passage("a", "Norburg", "Norburg is red ."), Passage("b", "Sudhof", "Sudhof is blue .")]


@pytest.fixture
def encoder(towns: Config) -> TextEncoder:
    return load_bi_encoder(towns).required_passage_encoder


def by_towers(encoder: TextEncoder, workdir: Path) -> TextEncoder:
    """The encoder as a run names it that has saved its towers."""
    return dataclasses.replace(encoder, source=str(workdir / "towers" / "passage"))


def test_that_of_a_run_may_be_replaced_wherever_the_workdir_is_now(encoder: TextEncoder, tmp_path: Path) -> None:
    own_index.check(tmp_path / "none")
    built = tmp_path / "run" / "index"
    building.build(built, PASSAGES, by_towers(encoder, tmp_path / "run"), None)
    own_index.check(built)
    built.parent.rename(tmp_path / "moved")
    own_index.check(tmp_path / "moved" / "index")


def test_that_of_another_tower_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    building.build(tmp_path / "index", PASSAGES, encoder, None)
    with pytest.raises(InputError, match=r"index: an index by .*, and the run writes its own there; move it away"):
        own_index.check(tmp_path / "index")


def test_one_that_was_changed_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    named = by_towers(encoder, tmp_path)
    building.build(tmp_path / "index", PASSAGES, named, None)
    updates.add(tmp_path / "index", [Passage("c", "Westal", "Westal is red .")], named)
    with pytest.raises(InputError, match="index: built or changed by rag-jax index, and the run writes its own there"):
        own_index.check(tmp_path / "index")


def test_one_that_was_built_by_command_is_refused(towns: Config, tmp_path: Path, capsys) -> None:
    towers = tmp_path / "towers"
    towers.symlink_to(towns.retriever.tower)
    command = ("index", towns.data.passages, "--out", tmp_path / "index", "--tower", towers, *SMALL)
    main([str(each) for each in command])
    assert Path(manifest.read(tmp_path / "index").tower["source"]).name == "towers"
    with pytest.raises(InputError, match="index: built or changed by rag-jax index, and the run writes its own there"):
        own_index.check(tmp_path / "index")


def test_a_link_and_another_folder_are_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    building.build(tmp_path / "there", PASSAGES, by_towers(encoder, tmp_path), None)
    (tmp_path / "index").symlink_to(tmp_path / "there")
    with pytest.raises(InputError, match="index: a link, and the run writes its own index there"):
        own_index.check(tmp_path / "index")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"mine: not a knowledge store, and holds notes\.txt"):
        own_index.check(tmp_path / "mine")
