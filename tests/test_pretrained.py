"""The facade against transformers: the same checkpoint and index give the same passages, numbers and words."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax
from transformers import DPRContextEncoder, PreTrainedTokenizerFast, RagTokenForGeneration

import oracle
import pretrained
import retrieved
from oracle import relative, torch
from pretrained import KINDS, QUESTIONS
from rag_jax.data.tokenizers import train_generator_tokenizer
from rag_jax.errors import InputError
from rag_jax.index import manifest
from rag_jax.index.building import build
from rag_jax.pipeline.assembly import load_bi_encoder
from rag_jax.rag import RAG
from retrieved import HELD, Both, Theirs
from suites import first

ANSWERS = ["Aaron", "the Danube, Europe's second-longest river", "Vienna"]
LONGEST = 33  # tokens, where some inputs are to be cut


@pytest.fixture(scope="module", params=first(1, KINDS))
def both(request, tmp_path_factory) -> Both:
    return retrieved.both(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Path:
    """Two towers and a generator: `question/`, `passages/` and `bart/`."""
    folder = tmp_path_factory.mktemp("networks")
    pretrained.save_networks(folder)
    return folder


def united(networks: Path, index: Path | None = None, **options) -> RAG:
    options = {"passage_tower": networks / "passages", "num_docs": 3} | options
    return RAG.from_networks(networks / "question", networks / "bart", index, **options)


def test_passages_scores_and_what_the_generator_reads_are_those_of_transformers(both: Both) -> None:
    read = retrieved.read(both.ours, QUESTIONS, len(HELD))
    for ours, question in zip(read, QUESTIONS, strict=True):
        theirs = both.theirs.found(question, len(HELD))
        assert ours.rows == theirs.rows
        assert relative(ours.scores, theirs.scores) < 1e-5
        assert ours.inputs == theirs.inputs
    words = both.ours.components.generator_tokenizer
    quoted = next(words.text(ids) for row, ids in zip(read[1].rows, read[1].inputs, strict=True) if row == 1)
    text = "Pokémon / Pokémon is a series of games about creatures that are caught. // what is the capital of austria?"
    assert quoted == text


@pytest.mark.parametrize("k", [1, 5])
def test_the_k_best_passages_are_those_of_transformers(both: Both, k: int) -> None:
    assert both.ours.search_rows(QUESTIONS, k).tolist() == [
        both.theirs.found(question, k).rows for question in QUESTIONS
    ]


@pytest.mark.extended
def test_where_passages_are_too_long_the_question_stays(tmp_path: Path) -> None:
    ours, theirs, _ = retrieved.both(tmp_path, "token", max_combined_length=LONGEST)
    words = ours.components.generator_tokenizer
    cut = 0
    for read, question in zip(retrieved.read(ours, QUESTIONS, len(HELD)), QUESTIONS, strict=True):
        (prompt,) = words.prompts([question.lower()])
        for one, other in zip(read.inputs, theirs.found(question, len(HELD)).inputs, strict=True):
            assert one[-len(prompt) :] == prompt
            if one != other:
                cut += 1
                assert len(one) == len(other) == LONGEST
                assert one[: -len(prompt)] == other[: LONGEST - len(prompt)]
                assert other[-len(prompt) :] != prompt
    assert 0 < cut < len(HELD) * len(QUESTIONS)

    long = "river vienna the capital " * 3
    (prompt,) = words.prompts([long.strip()])
    assert retrieved.read(ours, [long], 1)[0].inputs[0][-len(prompt) :] == prompt
    with pytest.raises(
        InputError, match=r"question '1' \(river .*\) has 39 tokens, more than max_question = 32; shorten it"
    ):
        ours.search(["river vienna the capital " * 4], 1)


def test_the_likelihood_of_an_answer_is_minus_the_loss_of_transformers(both: Both) -> None:
    words = both.ours.components.generator_tokenizer
    labels = [[words.bos, *target] for target in words.targets(ANSWERS)]
    losses = both.theirs.losses(QUESTIONS, labels, 3)
    assert relative(both.ours.log_likelihood(QUESTIONS, ANSWERS, num_docs=3), -losses) < 1e-5


def assert_answered(both: Both, k: int, ours: dict, theirs: dict) -> None:
    """The same tokens, as likely, from passages with the same prior."""
    for question, answer in zip(QUESTIONS, both.ours.answer(QUESTIONS, **ours), strict=True):
        expected = both.theirs.generated(question, k, **theirs)
        assert retrieved.texts(answer) == [both.theirs.tokens(row) for row in expected]
        log_probs = [each.log_prob for each in (answer, *answer.alternatives)]
        assert relative(log_probs, -both.theirs.losses([question] * len(expected), expected, k)) < 1e-5
        found = both.theirs.found(question, k)
        assert [passage[:3] for passage in answer.passages] == [HELD[row][:3] for row in found.rows]
        np.testing.assert_allclose([p.log_prior for p in answer.passages], log_softmax(found.scores), atol=1e-5)


@pytest.mark.extended
def test_the_best_answers_of_beams_are_those_of_transformers(both: Both) -> None:
    """As many beams and passages as the checkpoint says, and as it says they do not repeat themselves."""
    assert both.ours.components.config.decoding.num_beams == 3
    assert_answered(both, 2, {"n_best": 3}, {"num_return_sequences": 3})
    lengths = {len(tokens) for answer in both.ours.answer(QUESTIONS, n_best=3) for tokens in retrieved.texts(answer)}
    assert len(lengths) > 2


@pytest.mark.extended
def test_the_greedy_answer_is_that_of_transformers(both: Both) -> None:
    assert_answered(both, 3, {"num_beams": 1, "num_docs": 3}, {"num_beams": 1})


@pytest.mark.extended
def test_passages_are_encoded_by_their_own_tower_and_answers_rest_on_them(networks: Path, tmp_path: Path) -> None:
    rag = united(networks).with_passages(HELD)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(networks / "passages")
    read = [passage.title for passage in HELD], [passage.text for passage in HELD]
    with torch.no_grad():
        ids = tokenizer(*read, return_tensors="pt", padding=True, truncation=True, max_length=40)["input_ids"]
        vectors = DPRContextEncoder.from_pretrained(networks / "passages").eval()(ids).pooler_output.numpy()
    assert relative(rag.components.store.knowledge.passage_vectors, vectors) < 1e-5

    rag.save_pretrained(tmp_path / "rag")
    theirs = Theirs(tmp_path / "rag", "token", retrieved.save_index(tmp_path / "index", vectors))
    assert isinstance(theirs.model, RagTokenForGeneration)
    for question, answer in zip(QUESTIONS, rag.answer([q.lower() for q in QUESTIONS]), strict=True):
        assert retrieved.texts(answer) == [theirs.tokens(row) for row in theirs.generated(question, 3)]


@pytest.mark.extended
def test_a_store_is_opened_by_the_networks_that_made_it(networks: Path, tmp_path: Path) -> None:
    rag = united(networks)
    store = build(
        tmp_path / "store", HELD, rag.components.bi_encoder.required_passage_encoder, rag.components.passage_tokenizer
    )
    opened = united(networks, tmp_path / "store").components.store
    assert opened.passages == HELD
    for one, other in zip(
        oracle.jax.tree.leaves(opened.knowledge), oracle.jax.tree.leaves(store.knowledge), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert rag.with_index(store).components.store is store
    other = tmp_path / "bart"
    shutil.copytree(networks / "bart", other)
    train_generator_tokenizer(["other words"], 390).tokenizer.save(str(other / "tokenizer.json"))
    before = manifest.read(tmp_path / "store")
    RAG.from_networks(networks / "question", other, tmp_path / "store", passage_tower=networks / "passages")
    assert manifest.read(tmp_path / "store") == before, "what the other generator reads was made in memory"
    with pytest.raises(InputError, match=r"store: built by a tower with fingerprint .*, the run's has .*; name that"):
        united(networks, tmp_path / "store", passage_tower=networks / "question")


def test_vectors_have_the_norm_and_the_width_of_the_index(networks: Path, tmp_path: Path) -> None:
    """A run's index, for one, whose config scales its vectors: a model of checkpoints has no norm of its own."""
    rag = united(networks)
    retriever = replace(rag.components.config.retriever, vector_norm=3.0, vector_width=8)
    bi_encoder = load_bi_encoder(replace(rag.components.config, retriever=retriever))
    build(tmp_path / "store", HELD, bi_encoder.required_passage_encoder, None)
    opened = united(networks, tmp_path / "store")
    sizes = opened.components.bi_encoder.config
    assert (sizes.vector_norm, sizes.vector_width) == (3.0, 8)
    assert all(abs(found.score) < 3.0**2 for found in opened.search(QUESTIONS[0], 3))


def test_a_question_tower_alone_encodes_no_passages(networks: Path) -> None:
    with pytest.raises(InputError, match="question: reads questions only; name the tower of the passages too") as said:
        united(networks, passage_tower=None).with_passages(HELD)
    assert "\n" not in str(said.value)


def test_an_index_of_another_width_is_refused(both: Both, tmp_path: Path) -> None:
    narrow = retrieved.save_index(tmp_path, retrieved.VECTORS[:, :8].copy())
    with pytest.raises(InputError, match="vectors of width 8, the question tower's have 16"):
        both.ours.with_index(narrow)


def test_towers_of_different_width_are_refused(networks: Path, tmp_path: Path) -> None:
    tower = oracle.tower(DPRContextEncoder, replace(pretrained.sizes()[0], projection=8))[0]
    tower.save_pretrained(tmp_path)
    pretrained.tokenizers()["question_encoder_tokenizer"].save_pretrained(tmp_path)
    with pytest.raises(InputError, match="makes vectors of width 8, the questions' of 16; give two towers"):
        united(networks, passage_tower=tmp_path)


@pytest.mark.parametrize("without", ["question", "passages", "bart"])
def test_a_network_without_its_tokenizer_is_refused(networks: Path, tmp_path: Path, without: str) -> None:
    shutil.copytree(networks, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / without).glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path / without))}: holds no tokenizer; save "):
        united(tmp_path)


def test_a_model_without_an_index_is_asked_closed_book(both: Both) -> None:
    rag = RAG.from_pretrained(both.folder / "rag")
    assert rag.components.store.is_closed_book
    np.testing.assert_array_equal(
        rag.with_index(both.folder / "index").search_rows(QUESTIONS, 3), both.ours.search_rows(QUESTIONS, 3)
    )
