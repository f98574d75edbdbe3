"""Settings of runs that train the passage tower, and what they load onto the devices."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from rag_jax import hub
from rag_jax.config.config import Config, Data, Distillation, Retriever
from rag_jax.errors import InputError
from rag_jax.hub.checkpoints import Side
from rag_jax.index.store import without_vectors
from rag_jax.models.bert import BertConfig
from rag_jax.pipeline import refreshing
from rag_jax.pipeline.assembly import load_bi_encoder
from rag_jax.training import checks
from stores import MORE, PASSAGES, encoder

USUAL = Config(Data(index=Path("index")), Retriever("tower", train_passages=True, refresh_every=10))


def changed(config: Config = USUAL, **fields) -> Config:
    return dataclasses.replace(config, retriever=dataclasses.replace(config.retriever, **fields))


@pytest.mark.parametrize(
    "config",
    [
        USUAL,
        changed(refresh_at_once=True),
        changed(refresh_every=None, candidates=20),
        changed(refresh_at_once=True, refresh_every=USUAL.steps, candidates=20),
        changed(prior_docs=15, candidates=20),
        dataclasses.replace(changed(distillation=Distillation("pdist")), model="fid"),
    ],
)
def test_what_corrects_the_index_is_accepted(config: Config) -> None:
    checks.check_numbers(config)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (changed(train_passages=False), r"retriever\.refresh_every is 10, but the passage tower is not trained; give "),
        (
            changed(train_passages=False, refresh_every=None, candidates=9),
            r"retriever\.candidates is 9, but the passage",
        ),
        (
            dataclasses.replace(USUAL, data=Data()),
            "closed-book run has no passages; leave it out, or give data.passages",
        ),
        (
            changed(mode="frozen"),
            "but the question tower is not trained with them; leave it out, or give the mode trai",
        ),
        (changed(mode="gold"), "but the question tower is not trained with them"),
        (dataclasses.replace(USUAL, model="fid"), "but the question tower is not trained with them"),
        (
            changed(engine="faiss"),
            "but the engine faiss does not search inside the step; give the engine device",
        ),
        (changed(candidates=5), "candidates is 5, of which the 5 best are kept; give more candidates, or None"),
        (changed(candidates=12, prior_docs=12), "candidates is 12, of which the 12 best are kept"),
        (
            changed(refresh_every=None),
            "but nothing corrects the index for it; give retriever.refresh_every or candidat",
        ),
        (
            changed(refresh_every=None, candidates=9, refresh_at_once=True),
            "is set without retriever.refresh_every; give",
        ),
        (
            changed(refresh_at_once=True, refresh_every=USUAL.steps),
            rf"refresh_every is {USUAL.steps}, and none of the {USUAL.steps} steps refreshes the index at once; give ",
        ),
        (changed(refresh_every=0), r"retriever\.refresh_every is 0; give 1 or more"),
    ],
)
def test_what_corrects_nothing_is_refused(config: Config, told: str) -> None:
    with pytest.raises(InputError, match=told):
        checks.check_numbers(config)


def test_passages_are_read_as_the_index_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshing, "AT_ONCE", 7)
    passages, tower = [*PASSAGES, *MORE], encoder()
    ids, lengths = refreshing.tower_tokens(without_vectors(passages), tower)
    for row, length, expected in zip(ids.whole, lengths.whole, tower.tokens(passages).ids, strict=True):
        assert row[:length].tolist() == expected
        assert not np.any(row[length:])


def test_each_saved_tower_reads_as_its_checkpoint_did(towns: Config, tmp_path: Path) -> None:
    tower = hub.load_tower(towns.retriever.tower)
    lengths: dict[Side, int] = {"question": 8, "passage": 16}
    for side, length in lengths.items():
        fed = tower.input_format._replace(max_length=length)
        hub.save(tmp_path / side, dataclasses.replace(tower, side=side, input_format=fed))
    retriever = Retriever(str(tmp_path / "question"), passage_tower=str(tmp_path / "passage"), max_question=8)
    found = load_bi_encoder(Config(Data(), retriever))
    for side, checkpoint in refreshing.checkpoints_of(found, found.params).items():
        hub.save(tmp_path / f"{side}-again", checkpoint)
        again, first = hub.load_tower(tmp_path / f"{side}-again"), hub.load_tower(tmp_path / side)
        assert again.input_format == first.input_format
        assert again.tokenizer_settings == first.tokenizer_settings


def test_towers_that_cannot_be_saved_are_refused_before_training(towns: Config) -> None:
    found = load_bi_encoder(Config(Data(), Retriever(towns.retriever.tower, max_question=8, max_passage=8)))
    refreshing.check_towers(found)
    assert isinstance(found.config, BertConfig)
    projects = dataclasses.replace(found, config=dataclasses.replace(found.config, projection=8))
    with pytest.raises(InputError, match="a tower that projects and does not pool as DPR has no layout there"):
        refreshing.check_towers(projects)
