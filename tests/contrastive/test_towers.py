"""Two towers that do not belong together are refused before they are trained."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import bi_encoders
from rag_jax.config.config import Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive import towers
from rag_jax.errors import InputError


@pytest.fixture
def two(towns: Config, tmp_path: Path) -> ContrastiveConfig:
    """Towers of which that of the passages scales its vectors."""
    passages = tmp_path / "passages"
    shutil.copytree(towns.retriever.tower, passages)
    described = json.loads((passages / "config.json").read_text())
    (passages / "config.json").write_text(json.dumps(described | {"vector_norm": 2.0}))
    config = bi_encoders.config(towns, tmp_path)
    return dataclasses.replace(
        config, retriever=dataclasses.replace(config.retriever, passage_tower=str(passages), vector_norm=None)
    )


def test_vectors_that_are_cut_need_one_norm(two: ContrastiveConfig) -> None:
    towers.load(two)
    cut = dataclasses.replace(two, contrastive=dataclasses.replace(two.contrastive, widths=(8,)))
    with pytest.raises(InputError, match=r"passages: scales its vectors to 2\.0, the questions' tower to .*: contrast"):
        towers.load(cut)
    same = dataclasses.replace(cut, retriever=dataclasses.replace(cut.retriever, vector_norm=3.0))
    assert towers.load(same).passage.checkpoint.config.vector_norm == 3.0
