"""A run of Fusion-in-Decoder: it learns, resumes and answers; the retriever stays as it was."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax import cli
from rag_jax.config.config import Config
from rag_jax.errors import InputError
from rag_jax.evaluation import figures
from rag_jax.models import registry
from rag_jax.pipeline import networks
from rag_jax.rag import RAG
from rag_jax.training.run import fit

pytestmark = pytest.mark.extended  # one more training each; every day `trained` stands for them

QUESTIONS = ["what colour is Norburg", "what colour is Goldau"]
BOTH = ["Norburg and Goldau", QUESTIONS[1]]  # of two towns, and of one
STEPS = 160


@pytest.fixture(scope="module")
def fid(towns: Config) -> Config:
    """The words are found by words: a frozen tower that has read nothing finds nothing."""
    retriever = dataclasses.replace(towns.retriever, engine="bm25", num_docs=3)
    generator = dataclasses.replace(towns.generator, question_template="{question} {passage}")  # as published, in short
    changes = {"model": "fid", "retriever": retriever, "generator": generator}
    return dataclasses.replace(towns, **changes, steps=STEPS, save_every=80)


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
    with pytest.raises(
        InputError, match="passages that were read together have no posterior to draw; leave --figure out"
    ):
        figures.token_posterior(QUESTIONS[0], answer, tmp_path / "figure.png")


def test_answers_samples_labels_and_likelihoods_agree(fused: RAG) -> None:
    best = fused.answer(QUESTIONS, num_beams=2)
    drawn = fused.answer(QUESTIONS, do_sample=True, top_k=1)
    chosen = fused.choose(QUESTIONS, ["red", "blue", "green", "white", "black", "brown"])
    likelihoods = fused.log_likelihood(QUESTIONS, [answer.text for answer in best])
    for each in (best, drawn, chosen):
        assert [answer.text for answer in each] == [answer.text for answer in best]
        np.testing.assert_allclose([answer.log_prob for answer in each], likelihoods, rtol=1e-3, atol=1e-5)


def test_attention_mass_is_that_of_the_program_over_what_was_retrieved(fused: RAG) -> None:
    mass = fused.attention_mass(BOTH, ["red", "blue"], num_docs=3)
    rows = fused.search_rows(BOTH, 3)
    assert np.sum(rows >= 0, axis=1).tolist() == [2, 1]
    np.testing.assert_array_equal(mass == 0, rows < 0)
    np.testing.assert_allclose(mass.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(fused.attention_mass(BOTH[0], "red", num_docs=3), mass[0], rtol=1e-5)
    assert fused.attention_mass([], []).shape == (0, 3)


def test_answers_have_their_passages_attention_where_it_is_asked_for(fused: RAG) -> None:
    best = fused.answer(BOTH[0], num_beams=2, n_best=2, attention=True)
    for answer in (best, *best.alternatives):
        shares = [passage.attention for passage in answer.passages]
        assert len(shares) == 2
        np.testing.assert_allclose(shares, fused.attention_mass(BOTH[0], answer.text)[:2], rtol=1e-4)
    assert all(passage.attention is None for passage in fused.answer(QUESTIONS[0], num_beams=2).passages)


def test_the_command_shows_and_writes_the_attention(fused: RAG, workdir: Path, tmp_path: Path, capsys) -> None:
    asked, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    cli.main(["answer", BOTH[0], "--workdir", str(workdir), "--attention"])
    printed = capsys.readouterr().out
    passages = fused.answer(BOTH[0], attention=True).passages
    assert "attention" in printed
    assert all(f"{passage.attention:.3f}" in printed for passage in passages)
    asked.write_text(json.dumps({"id": "1", "question": BOTH[0]}) + "\n")
    command = ["answer", "--workdir", str(workdir), "--file", str(asked), "--output", str(output)]
    cli.main([*command, "--attention"])
    (line,) = map(json.loads, output.read_text().splitlines())
    shares = [passage["attention"] for passage in line["passages"]]
    assert shares == pytest.approx([passage.attention for passage in passages], rel=1e-4)
    with pytest.raises(SystemExit):
        cli.main(command)
    assert "from this command with these questions, options and model" in capsys.readouterr().err


def test_a_question_that_finds_nothing_has_no_mass(fused: RAG) -> None:
    mass = fused.attention_mass([QUESTIONS[0], "zzz"], ["red", "red"])
    assert mass[0].sum() == pytest.approx(1)
    np.testing.assert_array_equal(mass[1], np.zeros(3))


def test_models_without_attention_over_passages_are_refused(fused: RAG) -> None:
    components = fused.components
    marginal = dataclasses.replace(components, config=dataclasses.replace(components.config, model="token"))
    with pytest.raises(InputError, match=r"^model token does not attend to its passages together; its answers have a"):
        RAG(marginal, fused.params).attention_mass(QUESTIONS, ["red", "red"])
    with pytest.raises(InputError, match=r"^model token does not attend to its passages together; its answers have a"):
        RAG(marginal, fused.params).check([], attention=True)
    with pytest.raises(InputError, match=r"^2 questions and 1 answers; give one answer for each$"):
        fused.attention_mass(QUESTIONS, ["red"])
    with pytest.raises(InputError, match=r"^cannot read K = 1000 of "):
        fused.attention_mass(QUESTIONS, ["red", "red"], num_docs=1000)


def test_a_network_that_does_not_report_its_attention_is_refused(fused: RAG, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = fused.components.networks
    silent = networks._replace(generator=networks.generator._replace(cross_attention=None))
    monkeypatch.setattr(type(fused.components), "networks", silent)
    with pytest.raises(InputError, match=r"^generator: its network does not report its attention; give it Generator"):
        fused.attention_mass(QUESTIONS, ["red", "red"])
    with pytest.raises(InputError, match=r"^generator: its network does not report its attention; give it Generator"):
        fused.answer(QUESTIONS, attention=True)


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
