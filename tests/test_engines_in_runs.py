"""Training and answering with every engine: the same model, the same loss, another way to its passages."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from rag_jax.config.config import Config, Mesh
from rag_jax.corpus import Chunker
from rag_jax.corpus.passage import Passage
from rag_jax.data.jsonl import write_jsonl
from rag_jax.data.questions import read_questions
from rag_jax.errors import InputError
from rag_jax.index import updates
from rag_jax.index.engines import store_engines
from rag_jax.index.engines.engine import Queries
from rag_jax.index.store import closed_book, open_store
from rag_jax.pipeline import programs
from rag_jax.rag import RAG
from rag_jax.training.run import fit
from suites import first

ASKED = [f"what colour is {town}" for town in ("Norburg", "Sudhof", "Westal", "Goldsee", "Neuort")]


def over(rag: RAG, **changes) -> RAG:
    """The model with another retriever."""
    config = rag.components.config
    mesh = changes.pop("mesh", config.mesh)
    changed = dataclasses.replace(config, mesh=mesh, retriever=dataclasses.replace(config.retriever, **changes))
    return RAG(dataclasses.replace(rag.components, config=changed), rag.params)


@pytest.fixture(scope="module")
def rag(trained) -> RAG:
    """The trained model over a store that has an exact index of FAISS."""
    workdir = trained[2]
    store = open_store(workdir / "index", None, None)
    store_engines.add_faiss(store, "Flat", store_engines.passage_queries(store))
    return RAG.from_workdir(workdir)


@pytest.mark.parametrize("changes", first(1, [{"engine": "faiss"}, {"mesh": Mesh(tensor=2)}]), ids=str)
def test_an_exact_index_anywhere_gives_the_same_answers(rag: RAG, changes: dict) -> None:
    other = over(rag, **changes)
    np.testing.assert_array_equal(other.search_rows(ASKED, 4), rag.search_rows(ASKED, 4))
    for here, there in zip(rag.answer(ASKED, num_docs=3), other.answer(ASKED, num_docs=3), strict=True):
        assert there.text == here.text
        assert [passage.id for passage in there.passages] == [passage.id for passage in here.passages]
        np.testing.assert_allclose(there.log_prob, here.log_prob, rtol=1e-4, atol=1e-6)


@pytest.mark.extended
def test_likelihoods_and_labels_are_the_same_by_a_search_on_the_host(rag: RAG) -> None:
    other = over(rag, engine="faiss")
    np.testing.assert_allclose(
        other.log_likelihood(ASKED, ["red"] * 5), rag.log_likelihood(ASKED, ["red"] * 5), rtol=1e-4
    )
    labels = ["red", "blue"]
    assert [answer.text for answer in other.choose(ASKED, labels)] == [a.text for a in rag.choose(ASKED, labels)]


@pytest.mark.parametrize("precision", first(1, ["int8", "bfloat16"]))
def test_vectors_in_fewer_bits_find_nearly_the_same(rag: RAG, precision: str) -> None:
    found, exact = over(rag, precision=precision).search_rows(ASKED, 4), rag.search_rows(ASKED, 4)
    assert np.mean([len(set(a) & set(b)) / 4 for a, b in zip(found, exact, strict=True)]) >= 0.7


@pytest.mark.extended
def test_bm25_s_scores_are_the_prior(rag: RAG) -> None:
    lexical = over(rag, engine="bm25")
    hits = store_engines.open_bm25(rag.components.store).search(Queries(ASKED, None), 2)
    for answer, rows, scores in zip(lexical.answer(ASKED, num_docs=2), hits.rows, hits.scores, strict=True):
        found = rows >= 0  # some share no word with the question
        assert [each.id for each in answer.passages] == [rag.components.store.passages[row].id for row in rows[found]]
        priors = [each.log_prior for each in answer.passages]
        np.testing.assert_allclose(priors, jax.nn.log_softmax(scores)[found], rtol=1e-4, atol=1e-6)


def test_a_search_by_texts_encodes_no_question(rag: RAG, monkeypatch: pytest.MonkeyPatch) -> None:
    lexical, expected = over(rag, engine="bm25"), over(rag, engine="bm25").answer(ASKED)
    monkeypatch.setattr(programs, "encoding", None)
    assert [answer.text for answer in lexical.answer(ASKED)] == [answer.text for answer in expected]
    assert lexical.search_rows(ASKED, 2).shape == (len(ASKED), 2)


@pytest.mark.extended
def test_a_question_that_shares_no_word_is_answered_closed_book(rag: RAG) -> None:
    lexical, asked = over(rag, engine="bm25"), ["zzz", ASKED[0]]
    store = closed_book(rag.components.store.width, rag.components.generator_tokenizer)
    blind = RAG(dataclasses.replace(rag.components, store=store), rag.params)
    (nothing, _), (expected,) = lexical.answer(asked), blind.answer(["zzz"])
    assert (nothing.text, nothing.passages) == (expected.text, [])
    np.testing.assert_allclose(nothing.log_prob, expected.log_prob, rtol=1e-4)
    assert nothing.token_posteriors.shape == (0, len(nothing.tokens))
    likelihoods = lexical.log_likelihood(asked, ["red", "red"])
    np.testing.assert_allclose(likelihoods[0], blind.log_likelihood(["zzz"], ["red"])[0], rtol=1e-4)
    assert (lexical.search_rows(asked, 3)[0] == -1).all()


@pytest.mark.extended
def test_passages_that_were_chosen_elsewhere_are_read_with_a_host_engine_too(rag: RAG) -> None:
    rows = rag.search_rows(ASKED, 2)
    here, there = rag.answer(ASKED, rows=rows), over(rag, engine="faiss").answer(ASKED, rows=rows)
    assert [answer.text for answer in here] == [answer.text for answer in there]
    assert [[p.id for p in answer.passages] for answer in here] == [[p.id for p in a.passages] for a in there]


@pytest.mark.extended
def test_training_searches_on_the_host_where_it_is_told_to(trained, rag, towns: Config, tmp_path: Path) -> None:
    """That the step is the same for rows that were found elsewhere: tests/core/test_training.py."""
    retriever = dataclasses.replace(towns.retriever, engine="faiss", staleness=1)
    data = dataclasses.replace(towns.data, index=trained[2] / "index")
    few = dataclasses.replace(towns, data=data, retriever=retriever, steps=6, log_every=1, save_every=6)
    fit(dataclasses.replace(few, start_from=trained[2]), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in (trained[2] / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 6
    assert max(line["loss"] for line in lines) < before[0]["loss"] / 2, "it goes on from what was learnt"
    assert np.mean([line["recall"] for line in lines]) > 0.8
    timed = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert all(0 < line["time/retrieval"] < 1 for line in timed)


@pytest.mark.extended
def test_gold_passages_are_read_without_the_whole_index_on_the_device(trained, towns: Config, tmp_path: Path) -> None:
    data, losses = dataclasses.replace(towns.data, index=trained[2] / "index"), {}
    for engine in ("device", "bm25"):
        retriever = dataclasses.replace(towns.retriever, engine=engine, mode="gold", num_docs=1)
        rag = fit(dataclasses.replace(towns, data=data, retriever=retriever, steps=3, log_every=1), tmp_path / engine)
        lines = [json.loads(line) for line in (tmp_path / engine / "metrics.jsonl").read_text().splitlines()]
        losses[engine] = [line["loss"] for line in lines]
    assert "knowledge" not in vars(rag.components), "placed on the devices when it is first asked for"
    np.testing.assert_allclose(losses["bm25"], losses["device"], rtol=1e-5)


@pytest.mark.extended
def test_training_reads_the_passages_of_the_question_file_and_counts_what_the_index_lacks(
    trained, towns: Config, tmp_path: Path, capsys
) -> None:
    assert towns.data.train is not None
    rows = [
        {"id": str(i), "question": each.question, "answers": each.answers, "passage_ids": ["gone", *each.positive_ids]}
        | {"positive_ids": each.positive_ids}
        for i, each in enumerate(read_questions(towns.data.train))
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    data = dataclasses.replace(towns.data, index=trained[2] / "index", train=tmp_path / "train.jsonl")
    retriever = dataclasses.replace(towns.retriever, engine="fixed", num_docs=1)
    few = dataclasses.replace(towns, data=data, retriever=retriever, steps=2, log_every=1, start_from=trained[2])
    fit(few, tmp_path / "run")
    said = capsys.readouterr().err
    assert "warning: 1 of the " in said
    assert (
        "passage_ids of the training questions name no passage of the index, and are not read (the first is 'gone')"
        in said
    )
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["recall"] for line in lines] == [1.0, 1.0]


@pytest.mark.extended
def test_a_closed_book_trains_whatever_the_engine_that_its_config_names(towns: Config, tmp_path: Path) -> None:
    """The one of the passages in the question file too, which it does not read."""
    closed = dataclasses.replace(
        towns,
        data=dataclasses.replace(towns.data, passages=None),
        retriever=dataclasses.replace(towns.retriever, engine="fixed"),
    )
    fit(dataclasses.replace(closed, steps=2, log_every=1), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["loss"] < 10 for line in lines)
    assert [line["skipped"] for line in lines] == [0, 0]


@pytest.mark.extended
def test_another_store_of_about_the_size_compiles_nothing_anew(rag: RAG) -> None:
    grown = rag.add_passages([Passage("new", "Neustadt", "Neustadt is painted red .")])
    grown.answer(ASKED)
    with compilations("jit(program)") as anew:
        more = grown.add_passages([Passage("newer", "Neuerstadt", "Neuerstadt is painted blue .")])
        more.answer(ASKED)
        more.remove_passages(["new"]).answer(ASKED)
    assert anew == []
    with compilations("jit(program)") as anew:
        grown.answer(ASKED, num_beams=3)
    assert anew, "others are seen"


@pytest.mark.extended
def test_passages_come_and_go_in_memory(rag: RAG) -> None:
    asked = "what colour is Norburg"
    (before,) = rag.answer([asked], num_docs=1)
    gone = rag.remove_passages([before.passages[0].id])
    (without,) = gone.answer([asked], num_docs=1)
    assert without.passages[0].id != before.passages[0].id
    back = gone.add_passages([Passage(*before.passages[0][:3])])
    (again,) = back.answer([asked], num_docs=1)
    assert again.passages[0][:3] == before.passages[0][:3]
    assert again.text == before.text


def test_documents_come_and_go_in_memory_with_all_their_pieces(rag: RAG) -> None:
    pieces = [*Chunker(4).chunks(Passage("doc", "Neustadt", "Neustadt is painted red . Neustadt is painted red ."))]
    assert len(pieces) == 3
    grown = rag.add_passages(pieces)
    assert len(grown.components.store) == len(rag.components.store) + 3
    assert list(grown.remove_passages(["doc"]).components.store.live_passages()) == list(
        rag.components.store.live_passages()
    )
    assert len(grown.remove_passages(["doc#2"]).components.store) == len(rag.components.store) + 2
    shorter = Passage("doc", "Neustadt", "Neustadt is painted blue .")
    held = list(grown.replace_passage(shorter).components.store.live_passages())
    assert held == [*rag.components.store.live_passages(), shorter]
    piece = grown.replace_passage(Passage("doc#2", "Neustadt", "Neustadt is black ."))
    assert len(piece.components.store) == len(grown.components.store)
    assert list(piece.replace_passage(shorter).components.store.live_passages()) == held
    with pytest.raises(InputError, match='has a passage "doc#2" already'):
        grown.add_passages(pieces[1:2])


@pytest.mark.extended
def test_a_store_that_changes_on_disk_is_taken_over_when_it_is_asked_for(rag: RAG, trained, tmp_path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(trained[2] / "index", folder)
    first = rag.with_index(folder)
    (answer,) = first.answer(ASKED[:1], num_docs=1)
    updates.remove(folder, [answer.passages[0].id])
    assert first.answer(ASKED[:1], num_docs=1)[0].passages[0].id == answer.passages[0].id
    assert rag.with_index(folder).answer(ASKED[:1], num_docs=1)[0].passages[0].id != answer.passages[0].id


@contextmanager
def compilations(name: str) -> Iterator[list[str]]:
    """The programs of a name that are compiled inside of it."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(name) if f"Compiling {name}" in record.getMessage() else None
    logger = logging.getLogger("jax._src.interpreters.pxla")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
