"""A run of Fusion-in-Decoder: it learns, resumes and answers; the retriever stays as it was."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.evaluation import figures
from rag_jax.models import registry
from rag_jax.pipeline import networks
from rag_jax.rag import RAG
from rag_jax.training.run import fit

QUESTIONS = ["what colour is Norburg", "what colour is Goldau"]
STEPS = 160


@pytest.fixture(scope="module")
def fid(towns: Config) -> Config:
    """The words are found by words: a frozen tower that has read nothing finds nothing."""
    retriever = dataclasses.replace(towns.retriever, engine="bm25", num_docs=3)
    return dataclasses.replace(towns, model="fid", retriever=retriever, steps=STEPS, save_every=80)


@pytest.fixture(scope="module")
def workdir(fid: Config, tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fid") / "run"


@pytest.fixture(scope="module")
def fused(fid: Config, workdir: Path) -> RAG:
    return fit(fid, workdir)


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_it_learns_and_leaves_the_question_tower_alone(fused: RAG, fid: Config) -> None:
    same(fused.params.question_tower, fused.components.initial_params.question_tower)
    answers = fused.answer(QUESTIONS)
    colours = {passage.title: passage.text.split()[-2] for answer in answers for passage in answer.passages}
    assert [answer.text for answer in answers] == [colours["Norburg"], colours["Goldau"]]


def test_answers_have_passages_with_priors_and_no_posterior(fused: RAG, tmp_path) -> None:
    answer = fused.answer(QUESTIONS, num_beams=2)[0]
    assert answer.passages
    assert answer.token_posteriors is None
    assert all(passage.posterior is None and np.isfinite(passage.log_prior) for passage in answer.passages)
    with pytest.raises(InputError, match="fused passages have no posterior to draw; leave --figure out"):
        figures.token_posterior(QUESTIONS[0], answer, tmp_path / "figure.png")


def test_answers_samples_labels_and_likelihoods_agree(fused: RAG) -> None:
    best = fused.answer(QUESTIONS, num_beams=2)
    drawn = fused.answer(QUESTIONS, do_sample=True, top_k=1)
    chosen = fused.choose(QUESTIONS, ["red", "blue", "green", "white", "black", "brown"])
    likelihoods = fused.log_likelihood(QUESTIONS, [answer.text for answer in best])
    for each in (best, drawn, chosen):
        assert [answer.text for answer in each] == [answer.text for answer in best]
        np.testing.assert_allclose([answer.log_prob for answer in each], likelihoods, rtol=1e-3, atol=1e-5)


def test_transformers_has_no_such_checkpoint(fused: RAG, tmp_path) -> None:
    with pytest.raises(InputError, match=r"^model fid: transformers has no such RAG; nothing is written; keep the"):
        fused.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_metrics_have_no_divergence_from_a_posterior(fused: RAG, workdir: Path) -> None:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert lines
    assert all("prior_entropy" in line and "kl" not in line for line in lines)
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]


def test_it_is_resumed_to_the_same_weights(fused: RAG, fid: Config, workdir: Path, tmp_path: Path) -> None:
    leave_out = shutil.ignore_patterns(str(STEPS))
    shutil.copytree(workdir, tmp_path / "run", ignore=leave_out)
    same(fit(fid, tmp_path / "run").params, fused.params)


def test_a_generator_that_cannot_fuse_is_refused(fid: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = networks.scratch_config(fid, 100)
    whole = registry.generator(sizes)
    monkeypatch.setattr(registry, "generator", lambda sizes: whole._replace(fuse=None))
    refused = r"^generator: its network cannot fuse passages, as model fid does; give token or sequence$"
    with pytest.raises(InputError, match=refused):
        networks.check_fuses(fid, sizes, "generator")
    networks.check_fuses(dataclasses.replace(fid, model="token"), sizes, "generator")
