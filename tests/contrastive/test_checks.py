"""Configs that cannot run are refused in a line."""

import dataclasses
from pathlib import Path

import pytest

import bi_encoders
from rag_jax.config.config import Compute, Config
from rag_jax.config.contrastive import ContrastiveConfig
from rag_jax.contrastive.checks import check, check_values, check_widths
from rag_jax.errors import InputError


@pytest.fixture
def config(towns: Config, tmp_path: Path) -> ContrastiveConfig:
    return bi_encoders.config(towns, tmp_path)


def changed(config: ContrastiveConfig, name: str, **values) -> ContrastiveConfig:
    if not name:
        return dataclasses.replace(config, **values)
    return dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), **values)})


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("contrastive", {"temperature": 0.0}, r"contrastive\.temperature is 0\.0; give more than 0"),
        ("contrastive", {"temperature": float("inf")}, r"contrastive\.temperature is inf; give more than 0"),
        ("contrastive", {"hard_negatives": -1}, r"contrastive\.hard_negatives is -1; give 0 or more"),
        ("contrastive", {"chunk": 0}, r"contrastive\.chunk is 0; give 1 or more"),
        ("contrastive", {"chunk": 5}, r"32 passages .* do not divide into 2 .* of a multiple of 5"),
        (
            "contrastive",
            {"length_groups": 5, "chunk": 1},
            r"32 passages .* do not divide into 5 contrastive\.length_groups",
        ),
        ("contrastive", {"widths": (0, 8)}, r"contrastive\.widths are \(0, 8\); give 1 or more"),
        ("contrastive", {"margin_mse": 1.5}, r"contrastive\.margin_mse is 1\.5; give 0 to 1"),
        (
            "contrastive",
            {"margin_mse": 0.5, "hard_negatives": 0},
            r"margin_mse is 0\.5, and contrastive\.hard_negatives is 0: .*; name one, or set it to 0",
        ),
        ("retriever", {"trained": "shared", "passage_tower": "x"}, "one tower encodes both; leave one of them out"),
        ("retriever", {"vector_norm": -1.0}, r"retriever\.vector_norm is -1\.0; give more than 0"),
        ("retriever", {"dropout": 1.0}, r"retriever\.dropout is 1\.0; give 0 or more, below 1"),
        ("optimizer", {"clip": 0.0}, r"optimizer\.clip is 0\.0; give more than 0"),
        ("optimizer", {"learning_rate": float("nan")}, r"optimizer\.learning_rate is nan; give 0 or more"),
        ("", {"steps": 0}, "steps is 0; give 1 or more"),
        ("", {"seed": -1}, "seed is -1; give 0 to"),
        ("", {"compute": Compute(accumulate=2)}, r"compute\.accumulate is 2, .*; contrastive\.chunk saves memory"),
        ("", {"compute": Compute(prefill_chunk=8)}, r"compute\.prefill_chunk is 8, .*; leave it out"),
    ],
)
def test_an_impossible_value_is_refused(config: ContrastiveConfig, section: str, values: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_values(changed(config, section, **values))


def test_margins_without_a_file_of_scores_are_refused(config: ContrastiveConfig) -> None:
    scored = changed(config, "contrastive", margin_mse=0.5)
    check_values(scored)
    with pytest.raises(InputError, match=r"margin_mse is 0\.5, and data\.negatives is not given: a teacher's scores"):
        check_values(changed(scored, "data", negatives=None))


def test_one_question_without_hard_negatives_has_nothing_to_learn_from(config: ContrastiveConfig) -> None:
    alone = changed(changed(config, "contrastive", hard_negatives=0, length_groups=1), "", batch_size=1)
    with pytest.raises(InputError, match="batch_size is 1 without hard negatives"):
        check_values(alone)
    check_values(changed(changed(config, "contrastive", hard_negatives=1, length_groups=1), "", batch_size=1))


def test_an_index_where_the_run_writes_its_own_is_refused(config: ContrastiveConfig, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with pytest.raises(InputError, match=r"run/index: data\.index is where the run writes the index of its own towers"):
        check(changed(config, "data", index=workdir / "index"), workdir)


def test_widths_beyond_the_vectors_are_refused(config: ContrastiveConfig) -> None:
    check_widths(changed(config, "contrastive", widths=(8, 32)), 32)
    with pytest.raises(InputError, match="the towers' vectors have width 32; give 32 at most"):
        check_widths(changed(config, "contrastive", widths=(8, 33)), 32)


def test_a_foreign_workdir_is_refused(config: ContrastiveConfig, tmp_path: Path) -> None:
    check(config, tmp_path / "new")
    (tmp_path / "used" / "index").mkdir(parents=True)
    (tmp_path / "used" / "index" / "mine").write_text("mine")
    with pytest.raises(InputError, match="not a knowledge store, and holds mine"):
        check(config, tmp_path / "used")
