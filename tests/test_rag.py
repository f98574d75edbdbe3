"""The facade: answers with their passages, likelihoods of given answers, and knowledge that changes."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag_jax.errors import InputError
from rag_jax.knowledge.passages import Passage
from rag_jax.rag import RAG
from rag_jax.run import config as configs

ASKED = [f"what colour is {town}" for town in ("Norburg", "Sudhof", "Westal", "Goldsee", "Neuort")]


@pytest.fixture
def rag(trained) -> RAG:
    return trained[0]


def test_answers_come_in_order_and_do_not_depend_on_their_company(rag: RAG) -> None:
    together, alone = rag.answer(ASKED), [rag.answer([question])[0] for question in ASKED]
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    np.testing.assert_allclose([a.log_prob for a in together], [a.log_prob for a in alone], rtol=1e-4, atol=1e-6)


def test_priors_and_posteriors_are_distributions(rag: RAG) -> None:
    for answer in rag.answer(ASKED):
        assert sum(math.exp(passage.log_prior) for passage in answer.passages) == pytest.approx(1, abs=1e-5)
        assert sum(passage.posterior for passage in answer.passages) == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(answer.token_posteriors.sum(axis=0), 1, atol=1e-5)
        assert answer.token_posteriors.shape == (len(answer.passages), len(answer.tokens))


def test_the_likelihood_of_an_answer_is_what_answering_said(rag: RAG) -> None:
    answers = rag.answer(ASKED)
    likelihoods = rag.log_likelihood(ASKED, [answer.text for answer in answers])
    np.testing.assert_allclose(likelihoods, [answer.log_prob for answer in answers], rtol=1e-4, atol=1e-6)
    wrong = ["blue" if answer.text == "red" else "red" for answer in answers]
    assert (rag.log_likelihood(ASKED, wrong) < likelihoods - 1).all()


def test_a_workdir_can_be_moved_and_needs_no_corpus(trained, tmp_path: Path) -> None:
    whole, _, workdir = trained
    shutil.copytree(workdir, tmp_path / "moved")
    config = configs.load(workdir / "config.json")
    gone = dataclasses.replace(config.data, passages=Path("gone.jsonl"), train=Path("gone.jsonl"))
    configs.write(dataclasses.replace(config, data=gone), tmp_path / "moved" / "config.json")
    moved = RAG.from_workdir(tmp_path / "moved")
    assert [answer.text for answer in moved.answer(ASKED)] == [answer.text for answer in whole.answer(ASKED)]


def test_more_passages_can_be_read_than_in_training(rag: RAG) -> None:
    (answer,) = rag.answer(ASKED[:1], num_docs=5)
    assert len({passage.id for passage in answer.passages}) == 5
    assert rag.search(ASKED[:1], 5)[0].tolist() == [rag.parts.store.rows[passage.id] for passage in answer.passages]


def test_a_changed_fact_changes_the_answer_and_nothing_is_trained(rag: RAG) -> None:
    (before,) = rag.answer(["what colour is Norburg"])
    other = "red" if before.text != "red" else "blue"
    changed = rag.with_passage(Passage("Norburg", "Norburg", f"Norburg is painted {other} ."))
    assert changed.answer(["what colour is Norburg"])[0].text == other
    assert rag.answer(["what colour is Norburg"])[0].text == before.text
    assert changed.params is rag.params


@pytest.mark.parametrize("k", [0, 257])
def test_a_k_that_the_index_has_not_is_refused(rag: RAG, k: int) -> None:
    with pytest.raises(InputError, match=f"cannot read {k} of 256 passages"):
        rag.answer(ASKED, num_docs=k)


def test_an_answer_too_many_is_refused(rag: RAG) -> None:
    with pytest.raises(InputError, match="5 questions and 1 answers"):
        rag.log_likelihood(ASKED, ["red"])
